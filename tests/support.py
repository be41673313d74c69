"""What several tests share: sizes of small models, where optional material lies, and two processes as of torchrun."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

# A model of a few thousand parameters, whose encoder and decoder differ in every size; and a smaller one.
SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 40,
}
TINY = SMALL | {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_dir(name: str) -> Path:
    """Return ``shared/<name>`` beside the repository, or skip the test where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name!r} in the folder 'shared' beside the repository")
    return path


def run_two_ranks(command: list[str]) -> tuple[list[int], list[str], str]:
    """Run a command in two processes with what torchrun sets, without the time that its own process takes to start.

    Returns:
        Exit codes and standard outputs by rank, and the errors of the first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    try:
        written = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [out for out, _ in written], written[0][1]

"""Small training runs for tests: videos, settings, and commands that run in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from videomae.commands import distill as distill_command
from videomae.commands import finetune as finetune_command
from videomae.commands import pretrain as pretrain_command
from videomae.settings import parse_settings
from videomae.training.distillation import DistillSettings, distill
from videomae.training.finetuning import FinetuneSettings, finetune
from videomae.training.pretraining import PretrainSettings, pretrain
from videomae.video.synthetic import write_motion_videos

# Small enough for a step to take a hundredth of a second.
RECIPE = """
[model]
image_size = 16
num_frames = 4
patch_size = 8
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 32
decoder_hidden_size = 8
decoder_num_hidden_layers = 1
decoder_num_attention_heads = 2
decoder_intermediate_size = 16

[clips]
stride = 2

[loader]
num_workers = 0

[optim]
lr = 1e-2
scale_lr = false
warmup_epochs = 0

[run]
device = "cpu"
epochs = 2
batch_size = 4
log_every = 1
trackers = []
"""

# The command, its settings, the function behind it, and options of a small run.
TASKS = {
    "pretrain": (pretrain_command, PretrainSettings, pretrain, ("--mask.ratio", "0.5")),
    "finetune": (finetune_command, FinetuneSettings, finetune, ("--augment.randaugment-ops", "1")),
    "distill": (distill_command, DistillSettings, distill, ("--clips.method", "whole", "--model.tubelet-size", "4")),
}

# What a test's process runs: the task, and before it the test's own line of code.
_PROGRAM = """
import sys
import torch
sys.path.insert(0, {tests!r})
from training_runs import TASKS, settings
torch.set_num_threads(1)
{line}
task, *arguments = sys.argv[1:]
sys.exit(TASKS[task][0].main(settings(task, *arguments)))
"""


def write_data(folder: Path) -> Path:
    """Write 12 training and 6 validation videos of six classes, and the recipe beside them."""
    write_motion_videos(folder / "data" / "train", per_class=2, size=16, num_frames=12)
    write_motion_videos(folder / "data" / "val", per_class=1, size=16, num_frames=12, seed=1)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return folder / "data"


def settings(task: str, data: str | Path, out: str | Path, *options: str):
    """Return the settings of a small run."""
    own, recipe = TASKS[task], Path(data).parent / "recipe.toml"
    arguments = [str(data), "--out", str(out), "--recipe", str(recipe), *own[3], *options]
    return parse_settings(own[1], arguments, prog="videomae")


def run(task: str, data: Path, out: Path, *options: str):
    """Run a task in this process and return its result."""
    chosen = settings(task, data, out, *options)
    return TASKS[task][2](chosen)


def start(task: str, data: Path, out: Path, *options: str, line: str = "", processes: int = 1) -> list[str]:
    """Run a task in processes of its own, and return what each wrote; they must all end with 0, or all be killed."""
    program = _PROGRAM.format(tests=str(Path(__file__).parent), line=line)
    command = [sys.executable, "-c", program, task, str(data), str(out), *options]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(processes):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        group = own | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in group.items()}
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [process.communicate(timeout=120)[0] for process in running]
    codes = {process.returncode for process in running}
    assert codes <= {0} or codes <= {-9}, "\n".join(outputs)
    return outputs


def weights(out: Path):
    """Return the tensors of the model that a run left behind."""
    return load_file(out / "model" / "model.safetensors")

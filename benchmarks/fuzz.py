"""Mutated files through public calls: nothing crashes, hangs, grows past 1 GB, executes, or raises what is not ours.

    python benchmarks/fuzz.py [--inputs 12500] [--seconds 600] [--seed 0] [--kinds video list ...] [--out found]

Each of eight kinds of files (see `KINDS`) gets ``--inputs`` inputs, or as many as fit into its share of ``--seconds``.
An input is a function of (seed, kind, number): seeds are made here, and changed as bytes and, where they are JSON, as
values. Inputs run one after the other in a child with limits on time and memory, and what went wrong is kept in
``--out`` and ends in exit code 1. 100,000 inputs in all:

    python benchmarks/fuzz.py --inputs 12500 --seconds 36000
"""

import argparse
import contextlib
import json
import logging
import os
import pickle
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HANG, GROWTH, MEMORY = 20.0, 1e9, 6_000_000_000  # seconds of an input; bytes that one may add; bytes of a child
SIZES = {
    "image_size": 16, "num_frames": 4, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "decoder_hidden_size": 8, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16,
}  # fmt: skip
RAN = "ran"  # the file that a payload leaves behind

ODD = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J", "\0", "../x", [],
    [[]], [1], [1, 2, 3], {}, {"a": 1}, "9" * 5000,
)  # fmt: skip
BLOCKS = (b"", b"\0" * 64, b"\xff" * 8, b"\xff\xff\xff\x7f", b"[" * 3000, b"9" * 5000, b",", b'"', b"\n", b"\x80\x02c")


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Callable, tuple[str, str]]:
        return open, (RAN, "w")


# ------------------------------------------------------------------------------------------------------- seeds


def make_seeds(folder: Path) -> None:
    """Write a file of each sort below ``folder``/KIND."""
    import torch
    from safetensors.torch import load_file

    from videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
    from videomae.commands import pretrain as command
    from videomae.data.manifest import read_manifest
    from videomae.inference.embed import embed
    from videomae.settings import parse_settings
    from videomae.training.pretraining import pretrain
    from videomae.video.encode import write_video
    from videomae.video.synthetic import write_motion_videos

    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    write_motion_videos(folder / "data", per_class=1, size=16, num_frames=6)
    first = min((folder / "data").rglob("*.mp4"))
    frames = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), np.uint8)
    shutil.copy(first, folder / "video" / "a.mp4")
    for ending in (".mkv", ".avi", ".mov", ".webm"):
        with contextlib.suppress(Exception):  # where this FFmpeg has no writer for it
            write_video(folder / "video" / f"a{ending}", frames, fps=8)
    lists = {
        "a.csv": "path,label,split,start,end,group,note\na.mp4,x,train,0,1.5,g,n\nb.mp4,y,test,,,h,\n",
        "train.txt": "a.mp4 0\nb c.mp4 17\n",
        "trainlist01.txt": "A/v_A_g01_c01.avi 1\n",
        "a_test_split1.txt": "a.avi 1\nb.avi 2\n",
        "k.csv": "label,youtube_id,time_start,time_end,split\nx,aaaaaaaaaaa,1,11,train\n",
        "s.json": '[{"id": "1", "template": "Holding [something]"}]',
    }
    for name, text in lists.items():
        (folder / "list" / name).write_text(text)
    model = VideoMAEForVideoClassification(VideoMAEConfig(**SIZES, num_labels=2))
    model.save_pretrained(folder / "model")
    VideoMAEImageProcessor(size=16, crop_size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    shutil.copy(folder / "model" / "config.json", folder / "config")
    shutil.copy(folder / "model" / "preprocessor_config.json", folder / "processor")
    shutil.copy(folder / "model" / "model.safetensors", folder / "safetensors")
    small = load_file(folder / "model" / "model.safetensors")
    torch.save({"model": small}, folder / "pth" / "new.pth")
    torch.save({"model": small}, folder / "pth" / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": small, "args": Payload()}, folder / "pth" / "payload.pth")
    (folder / "pth" / "plain.pth").write_bytes(pickle.dumps(Payload()))
    (folder / "recipe.toml").write_text("[model]\n" + "\n".join(f"{name} = {size}" for name, size in SIZES.items()))
    options = "--run.device cpu --run.steps 1 --run.batch-size 2 --loader.num-workers 0 --optim.ema 0.5"
    arguments = [str(folder / "data"), "--out", str(folder / "whole"), "--recipe", str(folder / "recipe.toml")]
    settings = parse_settings(
        command.PretrainSettings, [*arguments, *options.split(), "--optim.warmup-epochs", "0"], prog="fuzz"
    )
    settings.run.trackers = ()
    pretrain(settings)
    (folder / "settings.pkl").write_bytes(pickle.dumps(settings))
    for file in (*(folder / "whole").glob("*.*"), *(folder / "whole" / "checkpoints").glob("*/*")):
        if file.is_file():
            shutil.copy(file, folder / "run")
    embed(read_manifest(folder / "data"), folder / "index", folder / "model")
    shutil.copy(next((folder / "index" / "parts").glob("*.parquet")), folder / "parquet")
    shutil.copy(folder / "index" / "features.json", folder / "parquet")


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change a file: as JSON values, or as bytes in up to eight places."""
    if content[:1] in (b"{", b"[") and rng.random() < 0.7:
        with contextlib.suppress(ValueError):
            return json.dumps(_with_odd_value(json.loads(content), rng)).encode()
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(data) + 1))
        match int(rng.integers(6)):
            case 0 if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at:at] = BLOCKS[int(rng.integers(len(BLOCKS)))]
            case 2:
                del data[at : at + int(rng.integers(1, 64))]
            case 3:
                data[at : at + 8] = int(rng.integers(2**63)).to_bytes(8, "little")
            case 4:
                data[at : at + 64] = other[at : at + 64]
            case 5 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def _with_odd_value(value: Any, rng: np.random.Generator) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return ODD[int(rng.integers(len(ODD)))]
    key = list(value)[int(rng.integers(len(value)))] if isinstance(value, dict) else int(rng.integers(len(value)))
    value[key] = _with_odd_value(value[key], rng)
    return value


# ------------------------------------------------------------------------------------- what is done with a file


def _video(file: Path, seeds: Path) -> None:
    from videomae.video.reader import VideoReader

    with VideoReader(file, threads=1, on_error="truncate") as reader:
        reader.frames_at([0, reader.num_frames - 1])


def _list(file: Path, seeds: Path) -> None:
    from videomae.data.manifest import read_manifest

    list(read_manifest(file))


def _model(file: Path, seeds: Path, **options: Any) -> None:
    from videomae import AutoModelForVideoClassification

    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        if file.suffix != ".pth" and name != file.name:
            shutil.copy(seeds / "model" / name, file.parent)
    place = file if file.suffix == ".pth" else file.parent
    AutoModelForVideoClassification.from_pretrained(place, **options)


def _pth(file: Path, seeds: Path) -> None:
    _model(file, seeds, image_size=16, num_frames=4, num_attention_heads=2)


def _processor(file: Path, seeds: Path) -> None:
    from videomae import VideoMAEImageProcessor

    processor = VideoMAEImageProcessor.from_pretrained(file.parent)
    processor([np.zeros((20, 30, 3), np.uint8)] * 2, return_tensors="pt")


def _run(file: Path, seeds: Path) -> None:
    from videomae.training.pretraining import pretrain

    folder = shutil.copytree(seeds / "whole", file.parent / "run")
    place = folder / file.name if (folder / file.name).exists() else next(folder.glob("checkpoints/*")) / file.name
    shutil.copy(file, place)
    settings = pickle.loads((seeds / "settings.pkl").read_bytes())
    settings.out = folder
    pretrain(settings)


def _parquet(file: Path, seeds: Path) -> None:
    from videomae.inference.feature_store import read_features, read_unreadable

    folder = shutil.copytree(seeds / "index", file.parent / "index")
    shutil.copy(file, folder / ("parts" if file.suffix == ".parquet" else ".") / file.name)
    read_features(folder)
    read_unreadable(folder)


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "video": _video,
    "list": _list,
    "config": _model,
    "processor": _processor,
    "safetensors": _model,
    "pth": _pth,
    "run": _run,
    "parquet": _parquet,
}


# ---------------------------------------------------------------------------------------------- child and parent


def work(kind: str, first: int, last: int, seed: int, seeds: Path, place: Path) -> None:
    """Try the inputs from first to last, and print what became of each as a line of JSON."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    files = sorted((seeds / kind).iterdir())
    os.chdir(place)
    for number in range(first, last):
        rng = np.random.default_rng((seed, list(KINDS).index(kind), number))
        chosen, other = (files[int(rng.integers(len(files)))] for _ in range(2))
        folder = place / "input"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        file = folder / chosen.name
        file.write_bytes(mutated(chosen.read_bytes(), other.read_bytes(), rng))
        answers.write(json.dumps({"begins": number}) + "\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = _outcome(KINDS[kind], file, seeds)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > GROWTH:
            found = {"outcome": "growth", "detail": f"{grown / 1e9:.1f} GB"}
        if (place / RAN).exists():
            found = {"outcome": "execution", "detail": ""}
        answers.write(json.dumps(found) + "\n")


def _outcome(call: Callable[[Path, Path], None], file: Path, seeds: Path) -> dict[str, str]:
    from videomae.errors import VideoMAEError

    try:
        call(file, seeds)
    except VideoMAEError:
        return {"outcome": "refused"}
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, ValueError) and "/videomae/" in last.filename and str(error).endswith("."):
            return {"outcome": "refused"}
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)][-4:]
        return {"outcome": "exception", "detail": f"{type(error).__name__}: {str(error)[:200]} at {' > '.join(where)}"}
    return {"outcome": "accepted"}


def outcomes(kind: str, inputs: int, seconds: float, seed: int, seeds: Path, out: Path) -> Iterator[dict[str, str]]:
    """Yield what became of each input, starting a child anew after each that did not survive."""
    ends, number = time.monotonic() + seconds, 0
    while number < inputs and time.monotonic() < ends:
        with tempfile.TemporaryDirectory() as place:
            arguments = [kind, str(number), str(inputs), str(seed), str(seeds), place]
            command = [sys.executable, "-P", __file__, "--child", *arguments]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path[1:])}
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1) as child:
                while child.stdout is not None and time.monotonic() < ends:
                    is_ready, _, _ = select.select([child.stdout], [], [], HANG + 40 * (number == 0))
                    line = child.stdout.readline() if is_ready else ""
                    found = json.loads(line) if line.endswith("\n") else None
                    if found is None and is_ready and number >= inputs:
                        break
                    if found is None:
                        code = child.poll()
                        found = {"outcome": "crash" if is_ready else "hang", "detail": f"input {number}, code {code}"}
                    if "begins" in found:
                        number = found["begins"]
                        continue
                    if found["outcome"] not in ("accepted", "refused"):
                        found["detail"] += f" ({kind} {number})"
                        for file in Path(place, "input").glob("*"):
                            if file.is_file():
                                out.mkdir(parents=True, exist_ok=True)
                                shutil.copy(file, out / f"{kind}-{number}-{file.name}")
                    yield found
                    number += 1
                    if found["outcome"] in ("crash", "hang", "growth", "execution"):
                        break
                child.kill()


def main() -> int:
    """Print a line of counts for each kind; the exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=12500)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("found"))
    options = parser.parse_args()
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        make_seeds(Path(folder))
        for kind in options.kinds:
            counts: Counter[str] = Counter()
            problems: dict[str, str] = {}
            share = options.seconds / len(options.kinds)
            for found in outcomes(kind, options.inputs, share, options.seed, Path(folder), options.out):
                counts[found["outcome"]] += 1
                if "detail" in found:
                    problems.setdefault(found["detail"].partition(" (")[0], found["detail"])
            total += counts
            sys.stdout.write(f"{kind}: {counts.total()} inputs, {dict(counts)}\n")
            sys.stdout.writelines(f"    {detail}\n" for detail in problems.values())
            sys.stdout.flush()
    sys.stdout.write(f"in all: {total.total()} inputs, {dict(total)}\n")
    return int(bool(set(total) - {"accepted", "refused"}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, first, last, seed, seeds, place = sys.argv[2:]
        work(kind, int(first), int(last), int(seed), Path(seeds), Path(place))
    else:
        sys.exit(main())

"""What README.md and docs/ tell to type runs: every block of a page in its order, in a folder with what it names."""

import importlib
import io
import re
import shutil
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from documents import PYTHON, blocks, commands, named_commands, pages
from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, cli
from videomae.settings import parse_settings
from videomae.video.checkpoint_processor import make_processor
from videomae.video.encode import write_video
from videomae.video.synthetic import MOTIONS, motion_video

HUB_NAMES = ("MCG-NJU/videomae-base-finetuned-kinetics", "MCG-NJU/videomae-base")  # here folders of these names
SMALL = {"image_size": 32, "num_frames": 8, "image_mean": (0.5,) * 3, "image_std": (0.2,) * 3}

# What is added to a command so that it takes seconds.
SHORTER = {
    "quickstart": "--videos-per-class 4 --pretrain-epochs 1 --finetune-epochs 2",
    "train": "--budget 5s --preset nano --image-size 48 --patch-size 16 --num-frames 8 --pretrain-epochs 0 "
    "--finetune-epochs 1 --batch-size 4 --num-workers 0",
    "pretrain": "--run.batch-size 4 --run.per-device-batch 2",
    "finetune": "--run.batch-size 4 --run.per-device-batch 2",
}

# What is not run, by how it begins, and why. Of commands of this package the options are checked all the same.
NOT_RUN = {
    "python3 -m venv": "this environment is one",
    ". .venv/bin/activate": "this environment is one",
    "pip install": "needs the package index; .ci/run does it",
    "pytest": "this is what runs",
    ".ci/run": "this is what it runs",
    "torchrun": "needs several GPUs; tests of training and embedding start two processes",
    "trtexec": "needs a GPU and TensorRT",
    "python benchmarks/": "takes hours",
    "python docs/examples/contrastive.py": "tests/unit/training/test_experiment.py runs it",
    "videomae serve": "listens until it is stopped; tests/unit/serving asks it",
    "videomae embed DATA --out FEATURES --model RUN/model --engine ray": "tests/unit/inference starts Ray",
}
WITHOUT = {"videomae export RUN/model --to openvino": "openvino"}  # not run where this package is not installed


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Write the files: a classifier that favours one class, a pre-trained model, videos with two splits."""
    place = tmp_path_factory.mktemp("documents")
    torch.manual_seed(0)
    config = VideoMAEConfig.preset("tiny", **SMALL, id2label=dict(enumerate(sorted(MOTIONS))))
    classifier = VideoMAEForVideoClassification(config)
    with torch.no_grad():
        classifier.classifier.bias[sorted(MOTIONS).index("moving_up")] = 3.0
    pretrained = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", use_mean_pooling=False, **SMALL))
    for model, name in ((classifier, "RUN/model"), (classifier, HUB_NAMES[0]), (pretrained, "PRETRAINED")):
        model.save_pretrained(place / name)
        make_processor(model.config, (SMALL["image_mean"], SMALL["image_std"])).save_pretrained(place / name)
    shutil.copytree(place / "PRETRAINED", place / HUB_NAMES[1])
    rng = np.random.default_rng(0)
    for motion in MOTIONS:
        for number in range(4):
            file = place / "DATA" / ("test" if number == 0 else "train") / motion / f"{motion}_{number:03}.mp4"
            write_video(file, motion_video(motion, rng=rng, size=64, num_frames=36))
    for name in ("clip.mp4", "eating_spaghetti.mp4"):
        shutil.copy(place / "DATA" / "test" / "moving_up" / "moving_up_000.mp4", place / name)
    write_video(place / "long.mp4", motion_video("moving_up", rng=rng, size=64, num_frames=96))
    return place


@pytest.mark.parametrize("page", [name for name, file in pages().items() if blocks(file)])
def test_what_the_page_says_to_type_runs(page, place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing: set[str] = set()  # what commands that are not run would have written
    for block in blocks(pages()[page]):
        where = f"{page}:{block.line}"
        if block.language == PYTHON:
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # as they are for readers
                exec(compile(block.code, where, "exec"), {"__name__": "documents"})
            continue
        for words in commands(block.code):
            if is_left_out(words, missing):
                missing |= {words[i + 1] for i, word in enumerate(words) if word == "--out"}
                continue
            assert words[0] == "videomae", f"{where} says {' '.join(words)!r}: run it here, or say in NOT_RUN why not"
            assert run(words[1:]) == 0, f"{where}: {' '.join(words)}\n{capsys.readouterr().err}"


def is_left_out(words: list[str], missing: set[str]) -> bool:
    """Tell whether a command is not run; the options of one of this package must exist nevertheless."""
    text = " ".join(words)
    lacks = [package for beginning, package in WITHOUT.items() if text.startswith(beginning) and not find_spec(package)]
    if not (lacks or missing & set(words) or any(text.startswith(beginning) for beginning in NOT_RUN)):
        return False
    if "videomae" in words:
        name, *rest = words[words.index("videomae") + 1 :]
        settings = getattr(importlib.import_module(f"videomae.commands.{name}"), cli.COMMANDS[name].settings)
        parse_settings(settings, rest, prog=f"videomae {name}")
    return True


def run(words: list[str]) -> int:
    """Run a command of this package, shortened, with its output in a file where one is named."""
    words = words + SHORTER.get(words[0], "").split()
    if ">" not in words:
        return cli.run(words)
    at = words.index(">")
    output = io.StringIO()
    with redirect_stdout(output):
        code = cli.run(words[:at] + words[at + 2 :])
    Path(words[at + 1]).write_text(output.getvalue(), encoding="utf-8")
    return code


def test_each_reason_not_to_run_something_is_of_something_that_is_said():
    said = [" ".join(words) for file in pages().values() for block in blocks(file) if block.language != PYTHON
            for words in commands(block.code)]  # fmt: skip
    beginnings = [*NOT_RUN, *WITHOUT]
    assert [beginning for beginning in beginnings if not any(text.startswith(beginning) for text in said)] == []


@pytest.fixture(scope="module")
def options():
    """Return what each command's help knows as an option."""
    known = {}
    for name in cli.COMMANDS:
        with redirect_stdout(io.StringIO()) as help, pytest.raises(SystemExit):
            cli.run([name, "--help"])
        known[name] = set(re.findall(r"--[a-z][a-z0-9.-]*", help.getvalue()))
    return known


@pytest.mark.parametrize("page", [name for name, file in pages().items() if named_commands(file)])
def test_commands_and_options_that_the_page_names_exist(page, options):
    unknown = []
    for text in named_commands(pages()[page]):
        name = text.split()[1]
        said = set(re.findall(r"(?<!\S)--[a-z][a-z0-9.-]*", text))
        if name not in options or not said <= options[name]:
            unknown.append(text)
    assert unknown == []

"""The examples of docstrings and of README.md run, in a directory with the files that they name."""

import doctest
import importlib
import pkgutil
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import videomae
from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.data.manifest import read_manifest
from videomae.inference.embed import embed
from videomae.video.checkpoint_processor import make_processor
from videomae.video.encode import write_video
from videomae.video.synthetic import motion_video, write_motion_videos

README = Path(__file__).parents[2] / "README.md"
SMALL = {"image_size": 32, "num_frames": 8, "image_mean": (0.5,) * 3, "image_std": (0.2,) * 3}


def examples() -> list[doctest.DocTest]:
    """Return the examples of all modules; a module that needs an extra is imported without it."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [m.name for m in pkgutil.walk_packages(videomae.__path__, "videomae.") if not m.name.endswith("__main__")]
    tests = [test for name in names for test in finder.find(importlib.import_module(name))]
    return [test for test in tests if test.examples]


def readme_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Write the files: a classifier that favours one class, a pre-trained model, videos and their features."""
    place = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    config = VideoMAEConfig.preset("tiny", **SMALL, id2label={0: "moving_down", 1: "moving_up"})
    classifier = VideoMAEForVideoClassification(config)
    with torch.no_grad():
        classifier.classifier.bias[1] = 2.0
    pretrained = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", use_mean_pooling=False, **SMALL))
    for model, name in ((classifier, "run"), (pretrained, "pretrained")):
        model.save_pretrained(place / name / "model")
        make_processor(model.config, (SMALL["image_mean"], SMALL["image_std"])).save_pretrained(place / name / "model")
    for name in ("quickstart/run/model", "MCG-NJU/videomae-base-finetuned-kinetics"):
        shutil.copytree(place / "run" / "model", place / name)
    rng = np.random.default_rng(0)
    for motion in config.id2label.values():
        for number in range(2):
            write_video(place / "videos" / motion / f"{number:03}.mp4", motion_video(motion, rng=rng, size=32))
    shutil.copy(place / "videos" / "moving_up" / "000.mp4", place / "clip.mp4")
    shutil.copy(place / "clip.mp4", place / "eating_spaghetti.mp4")
    write_motion_videos(place / "motions", per_class=2, size=48, num_frames=12)
    write_video(place / "long.mp4", motion_video("moving_up", rng=rng, size=32, num_frames=64))
    embed(read_manifest(place / "videos"), place / "index", place / "run" / "model", device="cpu")
    return place


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_the_example_of_the_docstring_runs(test, capsys):
    failed = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed
    assert failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("block", readme_blocks(), ids=lambda block: block.splitlines()[0])
def test_the_example_of_the_readme_runs(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})

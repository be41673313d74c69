"""What `videomae bench` measures of a machine."""

import json

import pytest
import torch

from classifiers import save_motions
from videomae.cli import run
from videomae.config import VideoMAEConfig
from videomae.data.manifest import read_manifest
from videomae.export.run import export
from videomae.inference.peak import matmul_peak
from videomae.pipeline import bench as bench_module
from videomae.pipeline import recipe_speed as recipe_module
from videomae.pipeline.bench import bench
from videomae.pipeline.measure import finetuning_cost
from videomae.processes import processors

RECIPE = """
task = "{task}"
[model]
preset = "nano"
image_size = 32
num_frames = 4
tubelet_size = 4
[clips]
stride = 2
[run]
batch_size = 64
epochs = 800
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return save_motions(tmp_path_factory.mktemp("bench"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A peak that is not measured, and exports that are hardly timed."""
    monkeypatch.setattr("videomae.export.verify.ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(bench_module, "matmul_peak", lambda dtype, device: 1e12)


def test_the_peak_is_that_of_the_fastest_product(monkeypatch):
    times = {512: 1.0, 1024: 0.01, 2048: 0.5}
    monkeypatch.setattr("videomae.inference.peak._timed", lambda a, b, device: times[len(a)])
    assert matmul_peak(torch.float32, torch.device("cpu"), seconds=0) == pytest.approx(2 * 512**3)
    times[512] = 0.01
    assert matmul_peak(torch.float32, torch.device("cpu"), seconds=0) == pytest.approx(2 * 1024**3 / 0.01)


def test_a_real_product_takes_some_time():
    peak = matmul_peak(torch.float32, torch.device("cpu"), seconds=0.01)
    assert 1e8 < peak < 1e15


def test_what_a_checkpoint_reaches_is_held_against_the_peak(place):
    found = bench(place / "model", device="cpu", data=place / "videos")
    cost = finetuning_cost(VideoMAEConfig.from_pretrained(place / "model"))
    assert (found.inference.flops, found.training.flops) == (cost.forward_flops, cost.training_flops)
    for speed in (found.inference, found.training):
        assert speed.fraction == pytest.approx(speed.flops / speed.seconds / 1e12)
    assert found.parameters == cost.parameters
    assert (found.reading.width, found.reading.height) == (80, 40)
    assert found.reading.frames_per_second > 0
    assert found.recipe is None


def test_an_exported_model_is_measured_as_it_runs(place, tmp_path):
    path = export(place / "model", "torch", tmp_path, source_size=(40, 80), allow_slower=True).path
    found = bench(path, data=place / "videos")
    assert found.inference.dtype == "float32"
    assert found.inference.seconds > 0
    assert found.training is None


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
@pytest.mark.parametrize(("reading", "part"), [(10.0, "reading"), (1e-9, "the model")])
def test_the_part_that_takes_longer_limits_a_recipe(place, tmp_path, monkeypatch, task, reading, part):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(task=task))
    measured = recipe_module._training_seconds

    def with_reading(*given):
        found, step, parameters = measured(*given)
        assert found > 0
        assert step > 0
        return reading, step, parameters

    monkeypatch.setattr(recipe_module, "_training_seconds", with_reading)
    found = recipe_module.recipe_speed(recipe, None, read_manifest(place / "videos"), torch.device("cpu"))
    assert found.limited_by == part
    assert (found.reading_fraction > 0.5) == (part == "reading")
    assert found.clips_per_second == pytest.approx(1 / (reading / processors() + found.model_seconds))


def test_the_model_takes_the_place_of_a_recipes_own(place, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "finetune"\n[run]\nbatch_size = 2\n')
    found = bench(place / "model", recipe=recipe, data=place / "videos", device="cpu")
    assert found.recipe.parameters == found.parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "dtype must be one of float32"),
        ({"recipe": "pretrain-bas"}, "did you mean 'pretrain-base'"),
        ({"recipe": "distill-small-data"}, "recipes of pretrain and finetune are measured, .* is one of distill"),
        ({"device": "tpu"}, "not available on this machine"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(options, message):
    with pytest.raises(ValueError, match=message):
        bench("nano", **options)


def test_the_command_prints_a_table_or_json(place, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "finetune"\n[run]\nbatch_size = 2\n')
    arguments = ["bench", str(place / "model"), "--data", str(place / "videos"), "--device", "cpu"]
    arguments += ["--recipe", str(recipe)]
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["limited_by"] in ("reading", "the model")
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "1000 GFLOP/s" in shown
    assert "limited by" in shown


def test_a_file_in_8_bits_has_no_peak_to_be_held_against():
    assert bench_module.Speed.of("int8", 10, 1.0, {"float32": 5.0}).fraction is None

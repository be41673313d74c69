"""What may be asked of `videomae train`, and what is refused before anything is written."""

import dataclasses

import pytest

from videomae.data.settings import DataSettings
from videomae.options import parse_duration
from videomae.pipeline.run import train
from videomae.pipeline.settings import TrainSettings, command_of


def test_what_would_be_ignored_is_refused(settings, tmp_path, monkeypatch):
    own = dataclasses.replace(settings, out=tmp_path / "run")
    with pytest.raises(ValueError, match="leave out --preset, --image-size"):
        train(dataclasses.replace(own, init="somewhere"))
    with pytest.raises(ValueError, match="--pretrain-epochs goes with neither"):
        train(dataclasses.replace(own, method="finetune"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        train(own)
    assert not own.out.exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"finetune_epochs": 0}, "--finetune-epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"pretrain_epochs": -1}, "--pretrain-epochs must be at least 0, got -1"),
        ({"stride": 0.0}, "--stride must be above 0, got 0"),
        ({"num_workers": -2}, "--num-workers must be at least 0, got -2"),
    ],
)
def test_numbers_without_sense_are_refused_before_anything_is_written(settings, tmp_path, option, told):
    with pytest.raises(ValueError, match=told):
        train(dataclasses.replace(settings, out=tmp_path / "run", **option))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"image_size": 53}, {"patch_size": 23}, {"num_frames": 15}])
def test_sizes_that_do_not_go_together_are_refused_before_anything_is_written(videos, tmp_path, options):
    with pytest.raises(ValueError, match="divisible"):
        train(TrainSettings(DataSettings(videos), tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_run_directory_inside_the_data_is_refused(videos):
    with pytest.raises(ValueError, match="name a folder outside"):
        train(TrainSettings(DataSettings(videos), videos / "run"))
    assert not (videos / "run").exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("45m", 2700), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert parse_duration(text, name="--budget") == seconds


@pytest.mark.parametrize("text", ["45", "0m", "an hour", "-3h"])
def test_a_budget_without_sense_is_refused(text):
    with pytest.raises(ValueError, match="45m"):
        parse_duration(text, name="--budget")


def test_the_command_names_what_was_asked_for(tmp_path):
    command = command_of(
        TrainSettings(DataSettings(tmp_path / "a b"), tmp_path / "run", budget="8h", method="finetune")
    )
    assert "'" in command
    assert command.endswith("--budget 8h --method finetune")

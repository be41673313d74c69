"""What several tests of the pipeline share: small videos, a run of them, and plans for them."""

import shutil
import tempfile

import pytest

from videomae.data.audit.check import check
from videomae.data.settings import DataSettings
from videomae.pipeline import budget, measure
from videomae.pipeline.plan import make_plan
from videomae.pipeline.run import train
from videomae.pipeline.settings import TrainSettings
from videomae.pipeline.split import split_for_training
from videomae.pipeline.stages import stage_settings
from videomae.video.synthetic import write_motion_videos

SMALL = {"image_size": 32, "patch_size": 16, "num_frames": 4, "stride": 4.0, "batch_size": 8, "num_workers": 0}


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "my videos"
    write_motion_videos(folder, per_class=6, num_frames=16, size=32)
    shutil.copy(folder / "moving_up" / "moving_up_000.mp4", folder / "moving_up" / "a copy.mp4")
    (folder / "moving_up" / "broken.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def settings(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    return TrainSettings(
        DataSettings(videos),
        out,
        budget="5s",
        preset="tiny",
        pretrain_epochs=2,
        finetune_epochs=2,
        device="cpu",
        **SMALL,
    )


@pytest.fixture(scope="session")
def result(settings):
    return train(settings)


@pytest.fixture
def quick_plan(videos, tmp_path, monkeypatch):
    """Plans for the videos, on a machine of a given speed."""
    monkeypatch.setattr(measure, "reading_seconds", lambda videos, settings, config: 1e-9)
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)

    def plan(*, budget=10.0, speed=1e12, **options):
        monkeypatch.setattr(measure, "training_speed", lambda config, cost, device: speed)
        given = TrainSettings(DataSettings(videos), tmp_path / "run", batch_size=8, **options)
        made = make_plan(given, manifest, report, budget)
        manifest.to_csv(tmp_path / "manifest.csv")
        return made, stage_settings(given, made, tmp_path / "manifest.csv")

    return plan


def read_slowly(videos, settings, config):
    """Take long for videos as they are, and little for copies."""
    return 1e-3 if str(videos.samples[0].file).startswith(tempfile.gettempdir() + "/tmp") else 0.1


@pytest.fixture
def slow_videos(monkeypatch):
    """Videos that are worth to be copied."""
    monkeypatch.setattr(measure, "reading_seconds", read_slowly)
    monkeypatch.setattr(measure, "training_speed", lambda config, cost, device: 1e12)
    copies = measure.small_copies
    monkeypatch.setattr(measure, "small_copies", lambda *given: (1e-4, copies(*given)[1]))
    monkeypatch.setattr(budget, "COPY_START", 0.0)

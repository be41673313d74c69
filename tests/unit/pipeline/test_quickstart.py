import dataclasses

import numpy as np
import pytest

from videomae import DataError, VideoClassifier, VideoReader
from videomae.commands.quickstart import main
from videomae.pipeline.plan import TrainPlan
from videomae.pipeline.quickstart import QuickstartSettings, quickstart
from videomae.pipeline.run import TrainResult
from videomae.training.loop import EXIT_PREEMPTED
from videomae.video.sampling import ClipSampling
from videomae.video.synthetic import MOTIONS, motion_video


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "q"
    settings = QuickstartSettings(out=out, videos_per_class=6, pretrain_epochs=2, finetune_epochs=2)
    return settings, quickstart(settings)


def test_quickstart_trains_saves_reports_and_predicts(done):
    settings, result = done
    assert result.evaluation.num_videos == 6
    assert result.report == settings.out / "run" / "report.html"
    classify = VideoClassifier.from_pretrained(result.model, device="cpu")
    assert list(classify.model.config.id2label.values()) == sorted(MOTIONS)
    example = next((settings.out / "videos" / "test").rglob("*.mp4"))
    assert len(classify(example)) == 5


def test_the_command_ends_with_figures_and_a_prediction(done, capsys):
    settings, result = done
    assert main(settings) == 0
    shown = capsys.readouterr().out
    assert f"{result.evaluation.top1:.1%} of 6 test videos are right (95 % interval" in shown
    assert f"report: {result.report}\nmodel:  {result.model}\n" in shown
    assert "$ videomae predict " in shown
    assert shown.count("moving") + shown.count("turning") >= 3


def test_a_directory_of_anything_else_is_refused(done, tmp_path):
    with pytest.raises(DataError, match="exists already"):
        quickstart(QuickstartSettings(out=tmp_path))
    with pytest.raises(DataError, match="holds no run of these settings"):
        quickstart(dataclasses.replace(done[0], seed=1))


def test_the_same_command_goes_on_with_a_run_that_was_stopped(tmp_path, monkeypatch, capsys):
    asked = []

    def stopped(settings, say):
        asked.append(settings)
        return TrainResult(None, None, None, None, TrainPlan({}, ClipSampling(stride=1), 1, 1, ()), {})

    monkeypatch.setattr("videomae.pipeline.quickstart.train", stopped)
    settings = QuickstartSettings(out=tmp_path / "q", videos_per_class=1)
    assert main(settings) == EXIT_PREEMPTED
    assert "stopped by SIGTERM; the same command goes on from there" in capsys.readouterr().err
    (tmp_path / "q" / "videos.csv").unlink()  # as if it had been stopped while it made the videos
    for told in ("making videos", "going on with what is in"):
        assert main(settings) == EXIT_PREEMPTED
        assert told in capsys.readouterr().err
    assert asked[0] == asked[1] == asked[2]


def test_videos_are_read_back_as_drawn(done):
    with VideoReader(next((done[0].out / "videos").rglob("*.mp4"))) as reader:
        assert (reader.num_frames, reader.width, reader.height, reader.fps) == (32, 64, 64, 16)


def test_a_seed_draws_the_same_videos():
    videos = [motion_video("moving_up", rng=np.random.default_rng(4), num_frames=3) for _ in range(2)]
    assert np.array_equal(*videos)


@pytest.mark.parametrize(("motion", "axis", "sign"), [("moving_right", 2, 1), ("moving_up", 1, -1)])
def test_the_motion_is_what_the_class_says(motion, axis, sign):
    frames = motion_video(motion, rng=np.random.default_rng(0), num_frames=12, size=64).max(-1) > 150
    shifts = [(np.roll(frames[0], sign * shift, axis - 1) != frames[8]).mean() for shift in range(20)]
    assert 5 <= int(np.argmin(shifts)) <= 15

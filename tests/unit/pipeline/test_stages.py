"""From the plan to the settings of both stages."""

import pytest

from trained import reason
from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.data.audit.check import check
from videomae.data.settings import DataSettings
from videomae.pipeline import measure
from videomae.pipeline.plan import make_plan
from videomae.pipeline.recipes import finetuning_rate
from videomae.pipeline.settings import TrainSettings
from videomae.pipeline.split import split_for_training
from videomae.pipeline.stages import stage_settings


def test_no_epochs_of_pretraining_means_none(quick_plan):
    plan, (first, second) = quick_plan(pretrain_epochs=0, preset="tiny")
    assert plan.pretrain_epochs == 0
    assert first is None
    assert second.model.preset == "tiny"
    assert reason(plan, "epochs of finetune").startswith("what the budget is enough for")


def test_a_given_checkpoint_is_finetuned_as_its_size_asks_for(quick_plan, tmp_path):
    """Base at 5e-4 for 256 videos and a layer decay of 0.75 (v1), on clips as it was trained on."""
    sizes = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 64}
    config = VideoMAEConfig(**sizes, image_size=32, num_frames=4, clip_sampling="uniform", clip_stride=2.0)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "checkpoint")
    plan, (_, second) = quick_plan(init=str(tmp_path / "checkpoint"))
    assert (second.optim.lr, second.optim.layer_decay) == (5e-4 * 8 / 256, 0.75)
    assert (second.clips.method, second.clips.stride, second.clips.jitter) == ("uniform", 2.0, 0.0)
    assert "pre-trained at scale" in reason(plan, "learning rate")
    assert reason(plan, "stride") == "as the checkpoint was trained"
    _, (_, second) = quick_plan(init=str(tmp_path / "checkpoint"), stride=3.0)
    assert (second.clips.method, second.clips.stride) == ("dense", 3.0)
    rate, decay, _ = finetuning_rate(VideoMAEConfig.preset("tiny"), 16)
    assert (rate, decay) == (5e-4, None)


def test_nano_is_trained_as_its_recipes_say(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "training_speed", lambda config, cost, device: 1e13)
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)
    given = TrainSettings(
        DataSettings(videos), tmp_path / "run", preset="nano", pretrain_epochs=4000, finetune_epochs=4000
    )
    plan = make_plan(given, manifest, report, 1000)
    manifest.to_csv(tmp_path / "manifest.csv")
    first, second = stage_settings(given, plan, tmp_path / "manifest.csv")
    assert (first.mask.name, first.mask.ratio, first.model.norm_pix_loss) == ("random", 0.5, False)
    assert (first.run.batch_size, first.optim.lr, first.run.epochs, first.run.steps) == (4, 2e-3, 2000, None)
    assert first.loader.augmentations_per_clip == 2
    assert first.augment.mean == second.augment.mean == plan.mean
    assert plan.mean == measure.pixel_statistics(manifest.split("train"))[0]
    assert second.augment.area == (0.64, 1.0)
    assert second.run.batch_size == len(manifest.split("train")) // 4
    assert second.optim.lr == pytest.approx(1e-3 * (second.run.batch_size / 16) ** 0.5)

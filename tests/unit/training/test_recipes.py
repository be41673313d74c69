"""The recipes of published runs are the published ones: a table of the official scripts' figures."""

import re
from typing import NamedTuple

import pytest

from videomae.config import VideoMAEConfig
from videomae.inference.protocols import find_protocol
from videomae.settings import builtin_recipes, from_recipe
from videomae.training.finetuning import FinetuneSettings
from videomae.training.pretraining import PretrainSettings
from videomae.training.schedule import Schedule
from videomae.video.sampling import ClipSampling

VIDEOS = {"k400": 240_000, "k600": 390_000, "k710": 658_000, "ssv2": 168_913, "ucf101": 9_537, "hmdb51": 3_570}
HYBRID = 1_350_000  # V2 pre-trains on a mixture


class Run(NamedTuple):
    """What an official script says; the learning rate is the one that the optimiser sees."""

    batch: int
    lr: float
    epochs: int
    warmup: int
    drop_path: float = 0.1
    layer_decay: float = 0.75
    dropout: float = 0.0


# GPUs x videos each, rate x batch / 256.
FINETUNED = {
    "k400-small": Run(32 * 12, 5e-4 * 384 / 256, 150, 5),
    "k400-base": Run(64 * 6, 5e-4 * 384 / 256, 75, 5),
    "k400-large": Run(64 * 2, 2e-3 * 128 / 256, 35, 5),
    "k400-huge": Run(64 * 8, 1e-3 * 512 / 256, 50, 5, 0.2, dropout=0.5),
    "ssv2-small": Run(32 * 12, 1e-3 * 384 / 256, 40, 5, layer_decay=0.7),
    "ssv2-base": Run(64 * 6, 5e-4 * 384 / 256, 30, 5),
    "ucf101-base": Run(8 * 16, 5e-4 * 128 / 256, 100, 5, 0.2, 0.7, 0.5),
    "v2-k400-base": Run(32 * 16, 7e-4 * 512 / 256, 90, 5),
    "v2-k400-large": Run(32 * 6, 2e-3 * 192 / 256, 35, 5, 0.2),
    "v2-k400-huge": Run(32 * 4, 1e-3 * 128 / 256, 40, 5, 0.2, 0.8, 0.5),
    "v2-k400-giant": Run(64 * 3, 1e-3 * 192 / 256, 30, 5, 0.2, 0.9),
    "v2-k710-base": Run(32 * 16, 7e-4 * 512 / 256, 90, 5),
    "v2-k710-huge": Run(32 * 4, 1e-3 * 128 / 256, 40, 5, 0.2, 0.8, 0.5),
    "v2-k710-giant": Run(32 * 3, 1e-3 * 96 / 256, 35, 5, 0.3, 0.9),
    "v2-k710-k400-giant": Run(32 * 3, 1e-5 * 96 / 256, 3, 1, 0.25, 0.9),
    "v2-k710-k600-giant": Run(32 * 3, 1e-5 * 96 / 256, 3, 1, 0.25, 0.9),
    "v2-ssv2-base": Run(16 * 16, 2e-3 * 256 / 256, 25, 5, 0.1, 0.65),
    "v2-ssv2-large": Run(32 * 6, 5e-4 * 192 / 256, 20, 5, 0.2),
    "v2-ssv2-huge": Run(32 * 4, 5e-4 * 128 / 256, 20, 5, 0.2, 0.8),
    "v2-ssv2-giant": Run(32 * 3, 3e-4 * 96 / 256, 20, 5, 0.25, 0.9),
    "v2-ucf101-giant": Run(8 * 3, 1e-3 * 24 / 256, 50, 5, 0.35, 0.9, 0.5),
    "v2-hmdb51-giant": Run(8 * 3, 5e-4 * 24 / 256, 15, 5, 0.35, 0.9, 0.5),
}
PRETRAINED = {
    "k400-small": Run(32 * 32, 1.5e-4 * 1024 / 256, 1600, 40),
    "k400-base": Run(64 * 32, 1.5e-4 * 2048 / 256, 1600, 40),
    "k400-large": Run(64 * 8, 1.5e-4 * 512 / 256, 1600, 40),
    "k400-huge": Run(64 * 16, 1.5e-4 * 1024 / 256, 1600, 40),
    "ssv2-small": Run(32 * 32, 1.5e-4 * 1024 / 256, 2400, 40),
    "ssv2-base": Run(64 * 32, 1.5e-4 * 2048 / 256, 2400, 40),
    "ucf101-base": Run(8 * 24, 3e-4 * 192 / 256, 3200, 40),
    "hmdb51-base": Run(8 * 24, 3e-4 * 192 / 256, 4800, 40),
    "v2-base": Run(32 * 32, 1e-3 * 1024 / 256, 200, 20),
    "v2-large": Run(48 * 32, 1e-3 * 1536 / 256, 300, 30),
    "v2-huge": Run(64 * 32, 1e-3 * 2048 / 256, 300, 30),
    "v2-giant": Run(64 * 32, 6e-4 * 2048 / 256, 300, 30),
}
V2_DECODER = (512, 4, 8, 2048)


def assert_course(settings, official, num_videos):
    """Batch, learning rate and steps are those of the script, on one process as on all of its GPUs."""
    per_epoch = num_videos // official.batch
    gpus = official.batch // settings.run.per_device_batch
    for world_size in (1, gpus):
        course = Schedule.make(settings.run, settings.optim, num_videos=num_videos, world_size=world_size)
        assert (course.batch_size, course.steps) == (official.batch, official.epochs * per_epoch)
        assert course.lr == pytest.approx(official.lr, rel=1e-9)
        assert course.learning_rate(course.warmup_steps - 1) == pytest.approx(course.lr)
        assert course.warmup_steps == official.warmup * per_epoch
    assert course.accumulation == 1
    assert settings.optim.name == "adamw"
    assert settings.optim.weight_decay == 0.05


@pytest.mark.parametrize("name", FINETUNED)
def test_fine_tuning_is_as_published(name):
    settings, official = from_recipe(FinetuneSettings, f"finetune-{name}"), FINETUNED[name]
    data, size = name.split("-")[-2], name.split("-")[-1]
    assert_course(settings, official, VIDEOS[data])
    head, augment = settings.head, settings.augment
    assert (head.drop_path, head.dropout, head.init_scale) == (official.drop_path, official.dropout, 1e-3)
    assert settings.optim.layer_decay == official.layer_decay
    assert settings.optim.betas == (0.9, 0.999)
    assert (settings.loader.augmentations_per_clip, settings.loader.square_pixels) == (2, False)
    is_ssv2, stride = data == "ssv2", 2 if data == "hmdb51" else 4
    assert settings.clips == (ClipSampling("uniform") if is_ssv2 else ClipSampling("v1_finetune", stride=stride))
    assert augment.flip == (0.0 if is_ssv2 else None)
    assert (augment.mixup, augment.cutmix, augment.switch, augment.label_smoothing) == (0.8, 1.0, 0.5, 0.1)
    assert (augment.randaugment_ops, augment.randaugment_magnitude, augment.erasing) == (4, 7.0, 0.25)
    protocol = find_protocol("k400" if data in ("k600", "k710") else data, VideoMAEConfig.preset(size))
    views = re.search(r"\((\d) x (\d) views\)", builtin_recipes()[f"finetune-{name}"].read_text(encoding="utf-8"))
    assert views is not None
    assert tuple(map(int, views.groups())) == (protocol.num_clips, protocol.num_crops)
    assert protocol.sampling == settings.clips


@pytest.mark.parametrize("name", PRETRAINED)
def test_pre_training_is_as_published(name):
    settings, official = from_recipe(PretrainSettings, f"pretrain-{name}"), PRETRAINED[name]
    data, size = name.split("-")
    is_v2, is_giant, is_small_data = data == "v2", size == "giant", data in ("ucf101", "hmdb51")
    assert_course(settings, official, VIDEOS.get(data, HYBRID))
    assert settings.model.preset == size
    assert settings.clips == ClipSampling("v1_pretrain", stride=2 if data == "ssv2" else 4)
    assert settings.mask.name == "tube"
    assert settings.mask.ratio == (0.75 if is_small_data else 0.9)
    assert (settings.mask.decoder, settings.mask.decoder_ratio) == ("running_cell" if is_v2 else None, 0.5)
    assert settings.loader.augmentations_per_clip == (4 if is_v2 else 1)
    assert not settings.loader.square_pixels
    assert (settings.optim.betas, settings.optim.min_lr) == ((0.9, 0.95), 1e-5)
    assert settings.optim.clip_grad == (0.02 if is_giant else None)
    assert settings.run.gradient_checkpointing == (size in ("huge", "giant"))
    config = VideoMAEConfig.preset(size, **settings.model.overrides())
    decoder = (
        config.decoder_hidden_size,
        config.decoder_num_hidden_layers,
        config.decoder_num_attention_heads,
        config.decoder_intermediate_size,
    )
    if is_v2 and size != "base":
        assert decoder == V2_DECODER
    else:
        plain = VideoMAEConfig.preset(size)
        assert (decoder[0], decoder[1]) == (plain.decoder_hidden_size, plain.decoder_num_hidden_layers)


def test_every_recipe_of_a_published_run_is_in_the_table():
    benchmarks = re.compile(r"(pretrain|finetune)-(v2-\S+|(k400|k600|k710|ssv2|ucf101|hmdb51)-\S+)")
    published = {name for name in builtin_recipes() if benchmarks.fullmatch(name)}
    assert published == {f"finetune-{name}" for name in FINETUNED} | {f"pretrain-{name}" for name in PRETRAINED}

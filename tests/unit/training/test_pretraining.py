"""Pre-training learns, goes on from checkpoints, and leaves a directory that others load."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from training_runs import run, settings, write_data
from videomae.commands import pretrain as command
from videomae.config import IMAGENET_MEAN
from videomae.data.manifest import read_manifest
from videomae.errors import CheckpointError, DataError
from videomae.models.videomae import VideoMAEForPreTraining
from videomae.models.weights import open_checkpoint
from videomae.training import pretraining as pretrain
from videomae.training.launch import describe_score
from videomae.training.metrics_log import read_metrics
from videomae.video.processors import VideoMAEImageProcessor


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    run("pretrain", data, out, "--run.epochs", "30", "--run.trackers", "tensorboard", "--loader.clips-per-video", "2")
    return out


def test_the_loss_falls_and_everything_is_recorded(trained):
    lines = read_metrics(trained)
    losses = [line["loss"] for line in lines]
    assert sum(losses[-10:]) < 0.99 * sum(losses[:10])
    wanted = {"step", "loss", "lr", "grad_norm", "clips_per_s", "data_wait_fraction", "memory_gb", "epoch", "bad_steps"}
    assert wanted <= lines[-1].keys()
    assert (trained / "settings.toml").exists()
    assert list((trained / "logs" / "videomae").iterdir())


def test_the_model_directory_is_complete(trained):
    config = json.loads((trained / "model" / "config.json").read_text())
    assert config["use_mean_pooling"] is False
    assert config["clip_stride"] == 2
    assert tuple(config["image_mean"]) == IMAGENET_MEAN
    assert VideoMAEForPreTraining.from_pretrained(trained / "model").config.num_frames == 4
    processor = VideoMAEImageProcessor.from_pretrained(trained / "model")
    assert (processor.crop_size["height"], processor.image_mean) == (16, IMAGENET_MEAN)


def test_transformers_loads_the_model_directory(trained):
    transformers = pytest.importorskip("transformers", reason="the oracle of this test")
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(trained / "model").eval()
    ours = VideoMAEForPreTraining.from_pretrained(trained / "model")
    pixels = torch.randn(1, 4, 3, 16, 16)
    mask = torch.tensor([[True, False, True, False] * 2])
    torch.testing.assert_close(
        ours(pixels, mask).logits, theirs(pixels, bool_masked_pos=mask).logits, atol=1e-4, rtol=1e-4
    )


def test_it_goes_on_from_a_checkpoint_with_its_statistics(data, trained, tmp_path):
    own = ("--augment.mean", "0.4", "0.4", "0.4", "--augment.std", "0.2", "0.2", "0.2")
    run("pretrain", data, tmp_path / "first", *own, "--run.steps", "1")
    sizes = [f"--model.{name.replace('_', '-')}=None" for name in settings("pretrain", data, "x").model.overrides()]
    options = (
        "--init",
        str(tmp_path / "first" / "model"),
        *sizes,
        "--run.steps",
        "1",
        "--optim.lr",
        "0",
        "--optim.min-lr",
        "0",
    )
    run("pretrain", data, tmp_path / "second", *options)
    model = VideoMAEForPreTraining.from_pretrained(tmp_path / "second" / "model")
    assert model.config.image_mean == (0.4, 0.4, 0.4)
    first = VideoMAEForPreTraining.from_pretrained(tmp_path / "first" / "model")
    torch.testing.assert_close(model.state_dict(), first.state_dict())
    with pytest.raises(ValueError, match="brings its own size: leave out model"):
        run("pretrain", data, tmp_path / "third", *options, "--model.preset", "tiny")


def test_a_probe_tells_of_the_features_and_leaves_the_training_alone(data, tmp_path):
    rows = [
        f"{sample.file},{sample.label},{'train' if sample.split == 'train' else 'test'}"
        for sample in read_manifest(data)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    probed = run(
        "pretrain", data, tmp_path / "probed", "--probe.data", str(tmp_path / "labels.csv"), "--probe.every", "1"
    )
    plain = run("pretrain", data, tmp_path / "plain")
    figures = [line for line in read_metrics(tmp_path / "probed") if "probe_linear" in line]
    assert [line["epoch"] for line in read_metrics(tmp_path / "probed") if "epoch" in line][-1] == 2
    assert len(figures) == 2
    assert all(0 <= line[name] <= 1 for line in figures for name in ("probe_linear", "probe_knn"))
    before, after = open_checkpoint(plain.model).tensors, open_checkpoint(probed.model).tensors
    assert all(torch.equal(before[name], after[name]) for name in before)


def probe_list(data, folder, *, label=lambda sample, classes: classes[sample.label], broken=()):
    manifest = read_manifest(data)
    rows = ["path,label,split"]
    for number, sample in enumerate(manifest):
        file = folder / "none.mp4" if number in broken else sample.file
        split = "train" if sample.split == "train" else "test"
        rows.append(f"{file},{label(sample, manifest.classes)},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--probe.k", "0"), r"probe\.k must be at least 1, got 0"),
        (("--probe.c", "0"), r"probe\.c must be above 0, got 0"),
    ],
)
def test_a_probe_without_sense_is_refused_before_training(data, tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        run("pretrain", data, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_probe_needs_labels_of_two_classes(data, tmp_path):
    one = probe_list(data, tmp_path, label=lambda sample, classes: "same")
    with pytest.raises(DataError, match=r"split 'train': 12 videos are all of one class, 'same', and"):
        run("pretrain", data, tmp_path / "run", "--probe.data", str(one))
    rows = [line.split(",") for line in one.read_text().splitlines()]
    one.write_text("".join(f"{path},{split}\n" for path, _, split in rows))
    with pytest.raises(DataError, match=r"labels\.csv, split 'train': 12 of 12 videos have no label, such as"):
        run("pretrain", data, tmp_path / "run", "--probe.data", str(one))
    assert not (tmp_path / "run").exists()


def test_a_test_video_that_cannot_be_read_counts_as_wrong(data, tmp_path, monkeypatch, capsys):
    """5 of 6 can be read, and a classifier that knew all of them would have 5/6."""
    labels = probe_list(data, tmp_path, broken=(17,))
    right = [sample.label for sample in read_manifest(labels).split("test")][:5]
    for name in ("predict_knn", "predict_linear"):
        monkeypatch.setattr(f"videomae.models.probes.{name}", lambda *features, **options: np.array(right))
    result = run("pretrain", data, tmp_path / "run", "--probe.data", str(labels), "--probe.every", "1")
    assert result.best_score == pytest.approx(5 / 6)
    assert "none.mp4" in (tmp_path / "run" / "unreadable.csv").read_text()
    told = capsys.readouterr().err
    assert told.count("none.mp4', left out of the probe") == 1


def test_the_end_says_which_score_and_which_model(data, tmp_path, monkeypatch):
    labels = probe_list(data, tmp_path)
    scores = iter([1.0, 0.5])
    monkeypatch.setattr(
        pretrain, "build_probe", lambda *given: lambda model: {"probe_knn": 0.0, "probe_linear": next(scores)}
    )
    result = run("pretrain", data, tmp_path / "run", "--probe.data", str(labels), "--probe.every", "1")
    assert describe_score(result) == "; best probe_linear 100.0% at step 3; the model is the last one"
    monkeypatch.undo()
    plain = run("pretrain", data, tmp_path / "plain", "--run.steps", "1")
    assert describe_score(plain) == ""
    best = dataclasses.replace(result, score="val_top1", model_step=3)
    assert describe_score(best) == "; best val_top1 100.0% at step 3; the model is that step's"


def test_masks_come_by_name_and_the_decoder_may_have_one(data):
    chosen = settings("pretrain", data, "x", "--mask.decoder", "running_cell", "--model.image-size", "32")
    config = pretrain.Pretraining(chosen).config
    masks = pretrain.mask_function(chosen.mask, config)(torch.Generator().manual_seed(0))
    assert masks.shape == (2, config.num_tubelets)
    assert pretrain.mask_arguments(masks[None]) == {"num_masked": 16, "num_decoder_masked": 16}
    assert pretrain.split_masks(masks[None, :1].squeeze(1)).keys() == {"bool_masked_pos"}


@pytest.mark.parametrize("option", ["--mask.name", "--mask.decoder"])
def test_an_unknown_mask_is_refused_with_the_known_ones(data, tmp_path, option):
    with pytest.raises(
        ValueError, match=r"no mask 'tubes' \(did you mean 'tube'\?\)\. Known: tube, random, frame, running_cell"
    ):
        run("pretrain", data, tmp_path / "run", option, "tubes")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_would_happen_and_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "run"
    chosen = settings("pretrain", data, out, "--dry-run", "--model.image-size", "32", "--run.gradient-checkpointing")
    assert command.main(chosen) == 0
    shown = capsys.readouterr().out
    assert "batch 4 videos = 4 x 1 accumulated x 1 processes; 6 steps, 3 an epoch" in shown
    assert "GFLOPs per clip forward" in shown
    assert "memory per process, estimated" in shown
    assert "learning rate by step" in shown
    assert not out.exists()


def test_a_dry_run_of_sharded_training_counts_the_share_of_a_process(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "4")
    large = ("--dry-run", "--model.preset", "small", "--run.steps", "1")
    state = []
    for strategy in ("auto", "deepspeed", "fsdp"):
        command.main(settings("pretrain", data, tmp_path / "run", *large, "--run.strategy", strategy))
        state.append(float(re.search(r"= ([\d.e-]+) GB for weights", capsys.readouterr().out)[1]))
    assert state[1] == pytest.approx(state[0] * (1 + 3 / 4) / 4, rel=0.02)
    assert state[2] == pytest.approx(state[0] / 4, rel=0.02)


def test_the_settings_can_be_printed(data, capsys):
    assert command.main(settings("pretrain", data, "x", "--print-config", "--mask.ratio", "0.75")) == 0
    assert "ratio = 0.75" in capsys.readouterr().out


def test_faulty_requests_are_refused(data, trained, tmp_path):
    with pytest.raises(DataError, match="no video is in split 'nowhere'"):
        run("pretrain", data, tmp_path / "a", "--train-split", "nowhere")
    with pytest.raises(ValueError, match=r"augment\.mean and augment\.std go together"):
        run("pretrain", data, tmp_path / "b", "--augment.mean", "0.5", "0.5", "0.5")
    with pytest.raises(ValueError, match="'wandbb' is not installed"):
        run("pretrain", data, tmp_path / "c", "--run.trackers", "wandbb")
    with pytest.raises(ValueError, match="needs several processes"):
        run("pretrain", data, tmp_path / "d", "--run.strategy", "fsdp")
    with pytest.raises(CheckpointError):
        run("pretrain", data, tmp_path / "e", "--init", str(tmp_path / "nothing"))
    assert list(tmp_path.iterdir()) == []

"""Fine-tuning learns classes from any start, and the classes travel with the model."""

import dataclasses
import shutil

import pytest
import torch

from training_runs import run, settings, weights, write_data
from videomae.commands import finetune as command
from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.errors import CheckpointError, DataError
from videomae.inference.convert import convert
from videomae.models.videomae import MODELS, VideoMAEForVideoClassification
from videomae.models.weights import open_checkpoint
from videomae.training import finetuning as finetune
from videomae.training.metrics_log import read_metrics
from videomae.training.settings import TrainingDataSettings
from videomae.training.validation import build_eval_loader
from videomae.video.synthetic import MOTIONS

CLASSES = sorted(MOTIONS)
FROZEN = ("--optim.lr", "0", "--optim.min-lr", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "run"
    run("pretrain", data, out, "--run.steps", "2")
    return str(out / "model")


def options(data, *more: str) -> tuple[str, ...]:
    """The options of a run that takes its sizes from --init."""
    sizes = settings("finetune", data, "x").model.overrides()
    return (*(f"--model.{name.replace('_', '-')}=None" for name in sizes), *more)


def test_a_pretrained_encoder_gets_a_small_classifier_that_pools_by_mean(data, pretrained, tmp_path):
    result = run("finetune", data, tmp_path, *options(data, "--init", pretrained, *FROZEN))
    model = VideoMAEForVideoClassification.from_pretrained(result.model)
    assert model.config.use_mean_pooling
    assert model.config.clip_stride == 2
    assert list(model.config.id2label.values()) == CLASSES
    assert 0 < model.classifier.weight.abs().max() < 1e-3 * 0.1
    before = open_checkpoint(pretrained).tensors
    assert torch.equal(before["videomae.blocks.0.mlp.fc1.weight"], model.videomae.blocks[0].mlp.fc1.weight)
    figures = [line for line in read_metrics(tmp_path) if "val_top1" in line]
    assert [line["step"] for line in figures] == [3, 6]
    assert result.best_score == pytest.approx(1 / 6)


PLAIN = """
    --augment.randaugment-ops 0 --augment.area 1 1 --augment.erasing 0 --augment.mixup 0 --augment.cutmix 0
    --augment.label-smoothing 0 --head.drop-path 0 --head.init-scale 1 --optim.layer-decay 1
"""


def test_from_random_weights_it_learns_its_training_videos(data, tmp_path):
    long = "--val-split train --run.epochs 60 --run.validate-every 20"
    assert run("finetune", data, tmp_path, *PLAIN.split(), *long.split()).best_score > 0.5


def test_a_finetuned_model_keeps_its_classifier_for_the_same_classes_only(data, tmp_path):
    first = run("finetune", data, tmp_path / "first", "--run.steps", "2")
    again = options(data, "--init", str(first.model), *FROZEN, "--run.steps", "1")
    kept = run("finetune", data, tmp_path / "kept", *again)
    assert torch.equal(
        weights(tmp_path / "kept")["classifier.weight"], weights(tmp_path / "first")["classifier.weight"]
    )
    assert kept.best_score == first.best_score
    files = [sample.path for sample in read_manifest(data)][:8]
    table = "".join(f"{file},{'ab'[i % 2]}\n" for i, file in enumerate(files))
    (data / "two.csv").write_text(f"path,label\n{table}")
    chosen = settings("finetune", data, tmp_path / "other", *again)
    other = finetune.finetune(dataclasses.replace(chosen, data=TrainingDataSettings(data / "two.csv")))
    model = VideoMAEForVideoClassification.from_pretrained(other.model)
    assert model.config.id2label == {0: "a", 1: "b"}
    assert model.classifier.weight.abs().max() < 1e-3


def test_a_classifier_of_more_classes_keeps_the_rows_of_these(data, tmp_path):
    """As from 710 kinds of action to 400 of them: a classifier from nothing would need many epochs."""
    first = run("finetune", data, tmp_path / "first", "--run.steps", "2")
    files = [sample.path for sample in read_manifest(data)][:8]
    known = VideoMAEForVideoClassification.from_pretrained(first.model).config.id2label
    table = "".join(f"{file},{known[(5, 2)[i % 2]]}\n" for i, file in enumerate(files))
    (data / "some.csv").write_text(f"path,label\n{table}")
    again = options(data, "--init", str(first.model), *FROZEN, "--run.steps", "1")
    chosen = settings("finetune", data, tmp_path / "other", *again)
    other = finetune.finetune(dataclasses.replace(chosen, data=TrainingDataSettings(data / "some.csv")))
    model = VideoMAEForVideoClassification.from_pretrained(other.model)
    assert model.config.id2label == {0: known[2], 1: known[5]}
    expected = weights(tmp_path / "first")
    assert torch.equal(model.classifier.weight, expected["classifier.weight"][[2, 5]])
    assert torch.equal(model.classifier.bias, expected["classifier.bias"][[2, 5]])


def test_the_linear_probe_leaves_the_encoder_alone(data, pretrained, tmp_path):
    run("finetune", data, tmp_path, *options(data, "--init", pretrained, "--head.train", "linear"))
    before, after = open_checkpoint(pretrained).tensors, open_checkpoint(tmp_path / "model").tensors
    encoder = [name for name in after if name.startswith("videomae.")]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert after["classifier.weight"].abs().max() > 1e-3


def test_the_attentive_probe_trains_its_query_and_leaves_the_encoder_alone(data, pretrained, tmp_path):
    result = run("finetune", data, tmp_path, *options(data, "--init", pretrained, "--head.train", "attentive"))
    before, after = open_checkpoint(pretrained).tensors, open_checkpoint(result.model).tensors
    assert all(torch.equal(before[name], after[name]) for name in after if name.startswith("videomae."))
    model = VideoMAEForVideoClassification.from_pretrained(result.model)
    assert model.config.attentive_pooling
    assert model.pooler.query.abs().max() > 0
    with pytest.raises(ValueError, match="save this model as 'hf'"):
        model.save_pretrained(tmp_path / "model.pth", family="v1")


def test_an_attentive_probe_may_follow_a_fine_tuning(data, tmp_path):
    first = run("finetune", data, tmp_path / "first", "--run.steps", "1")
    again = options(data, "--init", str(first.model), "--run.steps", "1", "--head.train", "attentive")
    probe = run("finetune", data, tmp_path / "probe", *again)
    assert VideoMAEForVideoClassification.from_pretrained(probe.model).config.attentive_pooling


def test_lora_ends_as_an_ordinary_model_with_another_encoder(data, pretrained, tmp_path):
    pytest.importorskip("peft")
    more = ("--head.train", "lora", "--head.lora-rank", "2", "--head.init-scale", "1", "--optim.lr", "0.05")
    result = run("finetune", data, tmp_path, *options(data, "--init", pretrained, *more))
    before, after = open_checkpoint(pretrained).tensors, open_checkpoint(result.model).tensors
    changed = {name for name in after if name in before and not torch.equal(before[name], after[name])}
    assert "videomae.blocks.0.attn.qkv.weight" in changed
    assert all(name.endswith((".qkv.weight", ".proj.weight", ".fc1.weight", ".fc2.weight")) for name in changed)
    rank = torch.linalg.matrix_rank(
        after["videomae.blocks.0.mlp.fc1.weight"] - before["videomae.blocks.0.mlp.fc1.weight"]
    )
    assert rank == 2
    assert run("finetune", data, tmp_path, *options(data, "--init", pretrained, *more)).steps == result.steps
    for step in (tmp_path / "checkpoints").iterdir():
        with pytest.raises(CheckpointError, match=r"is no model yet: .*base_layer.* load its folder model/"):
            VideoMAEForVideoClassification.from_pretrained(step)


@pytest.mark.parametrize("task", ["pretraining", "classification"])
def test_sizes_that_are_given_are_not_guessed_besides(task, data, tmp_path, caplog):
    """A file of VideoMAE v1 does not tell them, and 16 frames of 224 pixels would be named though nobody has them."""
    config = settings("finetune", data, "x").model.overrides() | {"use_mean_pooling": task == "classification"}
    MODELS[task](VideoMAEConfig(**config)).save_pretrained(tmp_path / "v1.pth", family="v1")
    sizes = ("--model.image-size", "16", "--model.num-frames", "4", "--model.num-attention-heads", "2")
    sizes = (*options(data), *sizes, "--init", str(tmp_path / "v1.pth"), "--run.steps", "1")
    trained = run("finetune", data, tmp_path / "run", *sizes).model
    assert open_checkpoint(trained).resolve_config().grid == (2, 2, 2)
    given = {"image_size": 16, "num_frames": 4, "num_attention_heads": 2, "decoder_num_attention_heads": 2}
    convert(tmp_path / "v1.pth", tmp_path / "hf", **given)
    MODELS[task].from_pretrained(tmp_path / "v1.pth", **given)
    assert "does not tell" not in caplog.text


def test_standardized_features_have_mean_0_and_deviation_1_over_the_training_videos(data, pretrained, tmp_path):
    more = options(data, "--init", pretrained, *FROZEN, "--head.standardize", "--augment.mean", "0", "0", "0")
    result = run("finetune", data, tmp_path, *more, "--augment.std", "1", "1", "1")
    model = VideoMAEForVideoClassification.from_pretrained(result.model)
    features = []
    model.fc_norm.register_forward_hook(lambda module, inputs, output: features.append(output))
    chosen = settings("finetune", data, "x")
    train, _ = finetune.labelled_splits(chosen.data)
    with torch.no_grad():
        for batch in build_eval_loader(chosen.loader, train, model.config, batch_size=5):
            model(batch["pixel_values"].float() / 255)
    seen = torch.cat(features)
    assert seen.shape == (12, 16)
    assert seen.mean(dim=0).abs().max() < 1e-3
    assert (seen.std(dim=0) - 1).abs().max() < 0.05  # a feature that hardly varies is not blown up


def test_the_run_stops_when_validation_does_not_improve(data, tmp_path):
    more = (*FROZEN, "--run.epochs", "9", "--run.patience", "2")
    result = run("finetune", data, tmp_path, *more)
    assert result.steps == 9  # best after the first epoch, then twice no better
    assert run("finetune", data, tmp_path, *more).steps == 9


def uneven(tmp_path) -> Manifest:
    labels = [0, 0, 0, 0, 1, 1]
    samples = tuple(Sample(f"{i}.mp4", tmp_path / f"{i}.mp4", label) for i, label in enumerate(labels))
    return Manifest(samples, ("many", "few"), tmp_path)


def test_rare_classes_count_or_come_more_often(data, tmp_path):
    assert finetune.class_weights(uneven(tmp_path)) == [0.75, 1.5]
    taken = [sample.path for sample in finetune.balanced(uneven(tmp_path))]
    assert taken == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4", "4.mp4", "5.mp4"]
    for balance in ("weights", "sampling"):
        assert run("finetune", data, tmp_path / balance, "--head.balance", balance, "--run.steps", "1").steps == 1


def test_class_weights_train_on_classes_of_unequal_size(data, tmp_path):
    """Targets times weights do not add up to 1, which the model refuses as soft targets."""
    files = [sample.path for sample in read_manifest(data)]
    table = "".join(f"{file},{'few' if i < 2 else 'many'}\n" for i, file in enumerate(files))
    (data / "skewed.csv").write_text(f"path,label\n{table}")
    chosen = settings("finetune", data, tmp_path / "run", "--head.balance", "weights", "--run.steps", "1")
    assert finetune.finetune(dataclasses.replace(chosen, data=TrainingDataSettings(data / "skewed.csv"))).steps == 1


def test_videos_without_labels_are_refused(data, tmp_path):
    (tmp_path / "list.csv").write_text(f"path\n{data / 'train' / CLASSES[0]}/{CLASSES[0]}_000.mp4\n")
    with pytest.raises(
        DataError, match=r"list\.csv: 1 of 1 videos have no label.* Put the videos into a folder per class"
    ):
        finetune.finetune(
            finetune.FinetuneSettings(data=TrainingDataSettings(tmp_path / "list.csv"), out=tmp_path / "run")
        )


@pytest.mark.parametrize("task", ["finetune", "distill"])
def test_a_single_class_is_refused_before_anything_is_written(task, data, tmp_path):
    """Its loss is 0 from the start, and a model that tells nothing apart would pass for a success."""
    shutil.copy(data.parent / "recipe.toml", tmp_path)
    folder = data / "train" / CLASSES[0]
    (tmp_path / "one.csv").write_text("path,label\n" + "".join(f"{file},left\n" for file in folder.glob("*.mp4")))
    told = r"one\.csv: \d+ videos are all of one class, 'left', and a classifier tells at least 2 apart"
    with pytest.raises(DataError, match=told):
        run(task, tmp_path / "one.csv", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_only_what_is_trained(data, pretrained, tmp_path, capsys):
    more = options(data, "--init", pretrained, "--dry-run", "--head.train", "linear")
    assert command.main(settings("finetune", data, tmp_path / "run", *more)) == 0
    assert "GFLOPs per clip forward" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()

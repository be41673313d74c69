"""Every family of checkpoint loads, and what does not fit is named."""

import argparse
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from hub_server import serve_hub
from videomae import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    CheckpointError,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    convert,
)
from videomae.models.patches import sinusoid_table
from videomae.models.weights import FAMILIES, from_our_names, open_checkpoint, read_tensors, to_our_names

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SIZES = {"image_size": 32, "num_frames": 8, "num_attention_heads": 3}


def golden(name="v1_finetune"):
    return read_tensors(GOLDEN / f"{name}.pth")


@pytest.fixture
def classifier():
    return VideoMAEForVideoClassification.from_pretrained(GOLDEN / "v1_finetune.pth", **SIZES)


def load(file, **options):
    return VideoMAEForVideoClassification.from_pretrained(file, **SIZES, **options)


def saved(tensors, path, **content):
    torch.save({"model": tensors} | content, path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_names_there_and_back_are_the_identity(family):
    ours = open_checkpoint(GOLDEN / ("v1_finetune.pth" if "pre" not in family else "v1_pretrain.pth")).tensors
    detected, back = to_our_names(from_our_names(ours, family), source="test")
    assert detected == family
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_names_of_mmaction2_are_as_in_its_files(classifier):
    theirs = from_our_names(classifier.state_dict(), "mmaction2")
    assert {
        "backbone.patch_embed.projection.weight",
        "backbone.blocks.0.attn.qkv.weight",
        "backbone.blocks.0.mlp.layers.0.0.weight",
        "backbone.blocks.1.mlp.layers.1.bias",
        "backbone.fc_norm.weight",
        "cls_head.fc_cls.weight",
    } <= theirs.keys()


@torch.no_grad()
def test_mmaction2_loads_with_its_position_table(classifier, tmp_path):
    theirs = from_our_names(classifier.state_dict(), "mmaction2")
    theirs["backbone.pos_embed"] = sinusoid_table((1, 1, 64), 48)[None]
    torch.save({"meta": {"epoch": 3}, "state_dict": theirs}, tmp_path / "mm.pth")
    clip = torch.randn(1, 8, 3, 32, 32)
    torch.testing.assert_close(load(tmp_path / "mm.pth")(clip).logits, classifier(clip).logits)
    theirs["backbone.pos_embed"] = torch.randn(1, 64, 48)
    torch.save({"state_dict": theirs}, tmp_path / "learned.pth")
    with pytest.raises(CheckpointError, match="position table of its own"):
        load(tmp_path / "learned.pth")


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("top", ["model", "module", "state_dict", None])
def test_wrapped_names_load(prefix, top, tmp_path):
    tensors = {prefix + name: tensor for name, tensor in golden().items()}
    torch.save(tensors if top is None else {top: tensors, "epoch": 1}, tmp_path / "wrapped.pth")
    assert torch.equal(load(tmp_path / "wrapped.pth").classifier.weight, golden()["head.weight"])


def test_arguments_stored_beside_the_weights_are_let_through_and_other_objects_are_not(tmp_path):
    load(saved(golden(), tmp_path / "v1.pth", args=argparse.Namespace(lr=1e-3, output_dir=Path("x"))))

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    with pytest.raises(CheckpointError, match="would run code"):
        load(saved(golden(), tmp_path / "harmful.pth", extra=Harmful()))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["blocks.1.attn.q_bias", "blocks.0.attn.v_bias", "fc_norm.weight", "head.bias"])
def test_a_missing_tensor_is_named(name, tmp_path):
    tensors = golden()
    del tensors[name]
    ours = {"fc_norm.weight": "fc_norm.weight", "head.bias": "classifier.bias"}.get(name, f"videomae.{name}")
    with pytest.raises(CheckpointError, match=f"missing {ours}"):
        load(saved(tensors, tmp_path / "short.pth"))


def test_a_leftover_tensor_is_named(tmp_path):
    tensors = golden() | {"blocks.0.gamma_1": torch.ones(48)}
    with pytest.raises(CheckpointError, match=r"left over videomae.blocks.0.gamma_1"):
        load(saved(tensors, tmp_path / "long.pth"))


def test_a_missing_matrix_of_query_key_and_value_is_named(classifier, tmp_path):
    theirs = from_our_names(classifier.state_dict(), "hf")
    del theirs["videomae.encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(CheckpointError, match=r"lacks .*layer.1.attention.attention.key.weight"):
        load(saved(theirs, tmp_path / "short.pth"))


def test_a_classifier_cannot_be_pretrained_further():
    with pytest.raises(CheckpointError, match="has no decoder"):
        VideoMAEForPreTraining.from_pretrained(GOLDEN / "v1_finetune.pth", **SIZES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
        (b"not a checkpoint at all" * 50, "not a PyTorch checkpoint: its content"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_called_what_it_is(content, message, suffix, tmp_path):
    (tmp_path / f"file{suffix}").write_bytes(content)
    if suffix == ".safetensors" and "PyTorch" in message:
        message = "not a readable safetensors file"
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / f"file{suffix}")


@pytest.mark.parametrize("name", ["v1_pretrain.pth", "cut.safetensors"])
def test_a_file_that_is_cut_short_is_refused(name, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    whole = GOLDEN / name if name.endswith(".pth") else tmp_path / "model.safetensors"
    (tmp_path / name).write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match="is not a"):
        load(tmp_path / name)


def test_other_tensors_are_no_videomae(tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"called conv1.weight .*Known families: Hugging Face"):
        load(tmp_path / "resnet.pth")


def test_a_folder_without_weights_lists_what_was_looked_for(classifier, tmp_path):
    classifier.config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no weights: one of model.safetensors"):
        load(tmp_path)


def test_nothing_is_initialised_at_random_when_weights_are_loaded(monkeypatch, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)

    def refuse(tensor, *args, **kwargs):
        assert tensor.is_meta
        return tensor

    for name in ("trunc_normal_", "xavier_uniform_", "kaiming_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, refuse)
    load(tmp_path)


def test_loaded_weights_can_be_trained_without_touching_the_file(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    model.save_pretrained(tmp_path)
    assert not load(tmp_path).classifier.weight.any()


@pytest.mark.parametrize("key", ["videomae.", ""])
def test_a_bare_encoder_loads_with_and_without_its_prefix(key, classifier, tmp_path):
    encoder = {n: t for n, t in from_our_names(classifier.state_dict(), "hf").items() if n.startswith("videomae.")}
    named = {key + name.removeprefix("videomae."): tensor for name, tensor in encoder.items()}
    model = VideoMAEModel.from_pretrained(saved(named, tmp_path / "encoder.pth"), **SIZES)
    assert torch.equal(model.blocks[1].mlp.fc2.weight, classifier.videomae.blocks[1].mlp.fc2.weight)


def test_widths_with_other_than_64_per_head_are_known():
    heads = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
    for width, expected in heads.items():
        with torch.device("meta"):
            tensors = {
                "videomae.patch_embed.proj.weight": torch.empty(width, 3, 2, 16, 16),
                "videomae.blocks.0.mlp.fc1.weight": torch.empty(4 * width, width),
            }
        from videomae.models.weights import inferred_config

        assert inferred_config(tensors, "mmaction2")["num_attention_heads"] == expected


@pytest.mark.parametrize("channels", [1, 5])
@torch.no_grad()
def test_another_number_of_channels_starts_from_the_mean_of_the_trained_ones(channels, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    model = load(tmp_path, num_channels=channels)
    grey = torch.randn(1, 8, 1, 32, 32)
    expected = classifier(grey.expand(-1, -1, 3, -1, -1)).logits
    torch.testing.assert_close(model(grey.expand(-1, -1, channels, -1, -1)).logits, expected)
    pretraining = VideoMAEForPreTraining.from_pretrained(
        GOLDEN / "v1_pretrain.pth", **SIZES, decoder_num_attention_heads=3, num_channels=channels
    )
    mask = torch.arange(64)[None] % 2 == 0
    assert pretraining(grey.expand(-1, -1, channels, -1, -1), mask).loss.isfinite()


@pytest.mark.parametrize("name", ["q_bias", "v_bias"])
def test_v1_without_any_bias_of_query_or_value_is_refused(name, tmp_path):
    tensors = {key: tensor for key, tensor in golden().items() if name not in key}
    with pytest.raises(CheckpointError, match=f"missing videomae.blocks.0.attn.{name}"):
        load(saved(tensors, tmp_path / "short.pth"))


def test_weights_alone_with_names_of_hugging_face_get_its_epsilon(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert load(tmp_path / "alone.safetensors").config.layer_norm_eps == 1e-6  # from the config.json beside it
    (tmp_path / "config.json").unlink()
    config = load(tmp_path / "alone.safetensors", num_labels=5).config
    assert (config.layer_norm_eps, config.output_norm_eps) == (1e-12, 1e-5)


def test_an_incomplete_checkpoint_names_what_its_sizes_need(tmp_path):
    tensors = golden()
    del tensors["blocks.0.mlp.fc1.weight"]
    with pytest.raises(CheckpointError, match=r"lacks videomae.blocks.0.mlp.fc1.weight"):
        load(saved(tensors, tmp_path / "short.pth"))


def test_an_explicit_config_does_not_bring_back_the_first_token():
    known = {"image_size": 32, "num_frames": 16, "num_attention_heads": 3, "decoder_num_attention_heads": 3}
    config = VideoMAEForPreTraining.from_pretrained(GOLDEN / "v1_pretrain.pth", **known).config
    assert not config.use_mean_pooling
    model = VideoMAEForVideoClassification.from_pretrained(GOLDEN / "v1_pretrain.pth", config=config)
    assert model.fc_norm is not None


@torch.no_grad()
def test_a_model_comes_from_the_hub_and_then_from_the_cache(classifier, tmp_path, monkeypatch):
    classifier.save_pretrained(tmp_path / "root" / "someone" / "gestures")
    clip = torch.randn(1, 8, 3, 32, 32)
    with serve_hub(tmp_path / "root") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = {"cache_dir": tmp_path / "cache", "token": False}
        model = AutoModelForVideoClassification.from_pretrained("someone/gestures", **options)
        torch.testing.assert_close(model(clip).logits, classifier(clip).logits)
        assert AutoConfig.from_pretrained("someone/gestures", **options).num_labels == 5
    offline = AutoModel.from_pretrained("someone/gestures", **options, local_files_only=True)
    assert torch.equal(offline.blocks[0].norm1.weight, classifier.videomae.blocks[0].norm1.weight)


def test_auto_classes_name_another_model_type(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "timesformer"}')
    for auto in (AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification):
        with pytest.raises(CheckpointError, match="'timesformer' model"):
            auto.from_pretrained(tmp_path)


def test_convert_reports_what_it_matched_and_overwrites_nothing(tmp_path):
    done = convert(GOLDEN / "v1_pretrain.pth", tmp_path / "hf", num_attention_heads=3, decoder_num_attention_heads=3)
    assert done.family == "VideoMAE v1/v2 pre-training"
    assert done.task == "pretraining"
    assert sum(done.tensors.values()) == len(golden("v1_pretrain"))
    back = convert(tmp_path / "hf", tmp_path / "back.pth", to="v1")
    assert back.family == "Hugging Face"
    assert all(torch.equal(t, golden("v1_pretrain")[n]) for n, t in read_tensors(tmp_path / "back.pth").items())
    with pytest.raises(CheckpointError, match="exists already"):
        convert(tmp_path / "hf", tmp_path / "back.pth", to="v1")


def test_a_failed_save_leaves_the_old_checkpoint_whole(classifier, tmp_path, monkeypatch):
    classifier.save_pretrained(tmp_path)
    before = shutil.copytree(tmp_path, tmp_path.parent / "before")

    def full_disk(tensors, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("videomae.models.weights.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        classifier.save_pretrained(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in before.iterdir()}

"""Every family of checkpoint loads, and what does not fit is named."""

import argparse
import datetime
import json
import os
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hub_server import serve_hub
from videomae import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    CheckpointError,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
    convert,
)
from videomae.models.patches import sinusoid_table
from videomae.models.videomae import MODELS
from videomae.models.weight_files import read_tensors
from videomae.models.weight_names import FAMILIES, from_our_names, to_our_names
from videomae.models.weights import open_checkpoint

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


@torch.no_grad()
def test_what_is_pushed_to_the_hub_is_loaded_from_there(classifier, tmp_path, monkeypatch):
    clip = torch.randn(1, 8, 3, 32, 32)
    with serve_hub(tmp_path / "root") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.token = "secret"
        mine = {"token": "secret", "cache_dir": tmp_path / "cache"}
        assert classifier.push_to_hub("gestures", token="secret").startswith(f"{hub.url}/me/gestures/commit/")
        VideoMAEImageProcessor(size=32).push_to_hub("me/gestures", token="secret", commit_message="How to see")
        classifier.config.replace(num_labels=3).push_to_hub("me/gestures", token="secret", revision="three")
        model = AutoModelForVideoClassification.from_pretrained("me/gestures", **mine)
        torch.testing.assert_close(model(clip).logits, classifier(clip).logits)
        assert VideoMAEImageProcessor.from_pretrained("me/gestures", **mine).size == {"shortest_edge": 32}
        assert AutoConfig.from_pretrained("me/gestures", revision="three", **mine).num_labels == 3
        with torch.no_grad():
            classifier.classifier.bias.add_(1)
        classifier.save_pretrained(tmp_path / "other", push_to_hub=True, token="secret", max_shard_size="10KB")
        assert "model.safetensors.index.json" in {path.name for path in (tmp_path / "root/me/other").iterdir()}
        assert hub.commits == [
            ("me/gestures", "main", "Upload VideoMAEForVideoClassification"),
            ("me/gestures", "main", "How to see"),
            ("me/gestures", "three", "Upload config"),
            ("me/other", "main", "Upload VideoMAEForVideoClassification"),
        ]
        with pytest.raises(CheckpointError, match=r"cannot upload to 'me/gestures' \(.*Log in with the right to write"):
            classifier.push_to_hub("me/gestures", token="stranger")
        with pytest.raises(TypeError, match="comit_message"):
            classifier.push_to_hub("me/gestures", comit_message="x")


@pytest.mark.parametrize("auto", [AutoConfig, AutoModel, AutoModelForVideoClassification, AutoImageProcessor])
def test_auto_classes_take_what_is_always_so_here(auto, classifier, tmp_path):
    classifier.save_pretrained(save_directory=tmp_path)
    VideoMAEImageProcessor(size=32, crop_size=32).save_pretrained(save_directory=tmp_path)
    loaded = auto.from_pretrained(pretrained_model_name_or_path=tmp_path, trust_remote_code=True, use_fast=True)
    assert type(loaded).__name__.startswith("VideoMAE")


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

    monkeypatch.setattr("videomae.models.weight_files.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        classifier.save_pretrained(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in before.iterdir()}


def native(task="classification"):
    """A small model's own state dict, as torch.save, Trainer and training loops write it."""
    sizes = {"image_size": 32, "num_frames": 4, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    sizes |= {"decoder_hidden_size": 24, "decoder_num_attention_heads": 3, "decoder_intermediate_size": 40}
    config = VideoMAEConfig(num_hidden_layers=2, decoder_num_hidden_layers=1, num_labels=3, **sizes)
    torch.manual_seed(0)
    return MODELS[task](config).eval()


FORMS = {
    "ours": lambda model: model.state_dict(),
    "hf": lambda model: from_our_names(model.named_weights(), "hf"),
    "v1": lambda model: from_our_names(
        model.named_weights(), "v1-pretraining" if model.task == "pretraining" else "v1-classification"
    ),
    "mmaction2": lambda model: from_our_names(model.named_weights(), "mmaction2"),
}
PREFIXES = ["", "_orig_mod.", "module.", "model.", "net.", "backbone.", "module._orig_mod.", "ema.module.", "lit.net."]
PREFIXES += ["encoder.", "videomae.", "student.", "network.encoder.", "base_model.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["encoder", "classification", "pretraining"])
def test_what_wrappers_put_before_names_is_taken_off_again(task, form, prefix, tmp_path):
    if form == "mmaction2" and task == "pretraining":
        pytest.skip("MMAction2's pre-training is not read")
    model = native(task)
    weights = {prefix + name: tensor for name, tensor in FORMS[form](model).items()}
    loaded = type(model).from_pretrained(saved(weights, tmp_path / "weights.pth"), config=model.config)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    "key",
    [
        "model", "module", "state_dict", "model_state_dict", "net", "ema", "model_ema", "state_dict_ema", "params",
        "student", "teacher", "encoder", "network",
    ],
)  # fmt: skip
def test_weights_are_found_under_the_keys_that_scripts_use(key, tmp_path):
    model = native()
    content = {
        "epoch": 3,
        "best": np.float64(0.5),
        "scores": np.ones(3),
        "lr": np.float32(1),
        "optimizer": {"state": {}},
    }
    content |= {"when": datetime.datetime(2022, 1, 1), "arguments": types.SimpleNamespace(lr=1), "rng": torch.ones(5)}
    for weights in (
        model.state_dict(),
        {"module": model.state_dict(), "decay": 0.9},
        {"state_dict": model.state_dict()},
    ):
        torch.save(content | {key: weights}, tmp_path / "weights.pth")
        loaded = load_native(tmp_path / "weights.pth", model.config)
        assert torch.equal(loaded.classifier.weight, model.classifier.weight)


def test_a_model_that_pytorch_averages_loads(tmp_path):
    """It counts the models that it has seen in a tensor beside the weights."""
    model = native()
    average = torch.optim.swa_utils.AveragedModel(model)
    loaded = load_native(saved(average.state_dict(), tmp_path / "swa.pth"), model.config)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)


def test_a_mapping_that_holds_itself_is_read_once(tmp_path):
    content = {"model": native().state_dict(), "a": {}, "b": {}}
    for name in ("a", "b"):
        content[name] |= {str(i): content for i in range(100)} | {f"{i}{i}": content["a"] for i in range(100)}
    torch.save(content, tmp_path / "round.pth")
    assert load_native(tmp_path / "round.pth", native().config).num_parameters() == native().num_parameters()


@pytest.mark.parametrize(
    "name", ["base_model.model.{}.lora_A.default.weight", "{}.base_layer.weight", "hints.0.weight"]
)
def test_what_training_adds_is_named_with_what_to_load_instead(name, tmp_path):
    model = native()
    weights = model.state_dict() | {name.format("videomae.blocks.0.attn.qkv"): torch.zeros(1, 1)}
    with pytest.raises(CheckpointError, match=r"is no model yet.*load its folder model/.*merge_and_unload\(\)"):
        load_native(saved(weights, tmp_path / "step.pth"), model.config)


def test_an_average_beside_the_weights_is_left_alone(tmp_path):
    model = native()
    average = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    torch.save({"ema": average, "model": model.state_dict()}, tmp_path / "keys.pth")
    joined = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(joined | {f"ema_model.{name}": tensor for name, tensor in average.items()}, tmp_path / "joined.pth")
    for file in ("keys.pth", "joined.pth"):
        loaded = load_native(tmp_path / file, model.config)
        assert torch.equal(loaded.classifier.weight, model.classifier.weight)


def test_two_models_in_one_file_are_named(tmp_path):
    weights = native().state_dict()
    both = {f"first.{name}": t for name, t in weights.items()} | {f"second.{name}": t for name, t in weights.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"holds 2 models, .*'first\.', 'second\.'"):
        load_native(tmp_path / "both.pth", native().config)
    torch.save({"first": weights, "second": {"net": native().state_dict()}}, tmp_path / "keys.pth")
    with pytest.raises(CheckpointError, match=r"holds 2 models, under 'first', 'second\.net'"):
        load_native(tmp_path / "keys.pth", native().config)


def load_native(path, config):
    return VideoMAEForVideoClassification.from_pretrained(path, config=config)


@pytest.mark.parametrize("where", ["top", "beside", "inside", "key", "numpy"])
def test_a_hostile_pickle_never_runs_wherever_it_stands(where, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

        def __hash__(self):
            return 1

    weights = native().state_dict()
    content = {
        "top": Hostile(),
        "beside": {"model": weights, "extra": [Hostile()]},
        "inside": {"model": dict(weights) | {"classifier.bias": Hostile()}},
        "key": {"model": weights, "ema": {"module": {"x": Hostile()}}},
        "numpy": {"model": weights, "scores": np.array([Hostile()], dtype=object)},
    }[where]
    torch.save(content, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match="would run code"):
        load_native(tmp_path / "hostile.pth", native().config)
    assert not (tmp_path / "harm").exists()


V2 = {
    "model_type": "VideoMAEv2_Base",
    "architectures": ["VideoMAEv2_Base"],
    "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2"},
    "model_config": {
        "img_size": 32, "patch_size": 16, "in_chans": 3, "num_classes": 0, "embed_dim": 32, "depth": 2, "num_heads": 2,
        "mlp_ratio": 1.5, "qkv_bias": True, "qk_scale": None, "drop_rate": 0.0, "attn_drop_rate": 0.0,
        "drop_path_rate": 0.0, "norm_layer": "nn.LayerNorm", "layer_norm_eps": 1e-6, "init_values": 0.0,
        "use_learnable_pos_emb": False, "tubelet_size": 2, "use_mean_pooling": True, "num_frames": 4, "cos_attn": False,
    },
    "use_cache": True,
}  # fmt: skip


@torch.no_grad()
def test_official_folders_of_videomae_v2_load(tmp_path):
    model = native()
    weights = {n: t for n, t in model.named_weights().items() if not n.startswith("classifier.")}
    weights = {f"model.{name}": tensor for name, tensor in from_our_names(weights, "v1-classification").items()}
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "config.json").write_text(json.dumps(V2))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "v2" / "model.safetensors")
    clip = torch.randn(1, 4, 3, 32, 32)
    encoder = AutoModel.from_pretrained(tmp_path / "v2", trust_remote_code=True)
    assert (encoder.config.layer_norm_eps, encoder.config.intermediate_size, encoder.config.num_frames) == (1e-6, 48, 4)
    features = VideoMAEForVideoClassification.from_pretrained(tmp_path / "v2")
    model.fc_norm.eps = 1e-6
    for block in model.videomae.blocks:
        block.norm1.eps = block.norm2.eps = 1e-6
    expected = model.pool(model.videomae(clip).last_hidden_state)
    torch.testing.assert_close(features(clip).logits, expected)
    assert VideoMAEForVideoClassification.from_pretrained(tmp_path / "v2", num_labels=7)(clip).logits.shape == (1, 7)
    with pytest.raises(CheckpointError, match="has no decoder"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "v2")
    assert convert(tmp_path / "v2", tmp_path / "hf").task == "classification"
    torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "hf")(clip)[0], encoder(clip)[0])


@pytest.mark.parametrize(
    ("step", "described"), [("checkpoints/step-00000005", "model"), ("checkpoint-500", "."), ("step", None)]
)
def test_the_checkpoint_of_a_run_is_described_by_the_run(step, described, tmp_path):
    """Of this project, and of transformers' Trainer, which writes weights alone for classes that are not its own."""
    model, step = native(), tmp_path / step
    step.mkdir(parents=True)
    save_file(model.state_dict(), step / "model.safetensors")
    if described is None:
        model.config.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"the folder '.*step' holds no config\.json"):
            VideoMAEConfig.from_pretrained(step)
        return
    model.config.save_pretrained(tmp_path / described)
    VideoMAEImageProcessor(size=32, crop_size=32).save_pretrained(tmp_path / described)
    save_file({"other": torch.zeros(1)}, tmp_path / described / "model.safetensors")  # weights are never taken from it
    loaded = VideoMAEForVideoClassification.from_pretrained(step)
    assert loaded.config == model.config == VideoMAEConfig.from_pretrained(step)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    assert VideoMAEImageProcessor.from_pretrained(step).crop_size == {"height": 32, "width": 32}


def test_use_safetensors_says_which_of_two_files_is_read(tmp_path):
    model = native()
    model.save_pretrained(tmp_path, safe_serialization=False)
    pickled = (tmp_path / "pytorch_model.bin").read_bytes()
    with torch.no_grad():
        model.classifier.bias.add_(1)
    load = VideoMAEForVideoClassification.from_pretrained
    with pytest.raises(CheckpointError, match=r"has no weights: one of model\.safetensors, model\.safetensors\.index"):
        load(tmp_path, use_safetensors=True)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no weights: one of pytorch_model\.bin, pytorch_model\.bin\.index"):
        load(tmp_path, use_safetensors=False)
    (tmp_path / "pytorch_model.bin").write_bytes(pickled)
    for choice, offset in ((None, 0), (True, 0), (False, -1)):
        torch.testing.assert_close(
            load(tmp_path, use_safetensors=choice).classifier.bias, model.classifier.bias + offset
        )
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not what use_safetensors=True asks for"):
        load(tmp_path / "pytorch_model.bin", config=model.config, use_safetensors=True)


def test_sizes_that_were_given_are_used_once_and_not_guessed_again(tmp_path, caplog):
    config = VideoMAEConfig(
        image_size=30, patch_size=10, num_frames=6, tubelet_size=3, hidden_size=40, num_attention_heads=4,
        num_hidden_layers=1, intermediate_size=16, num_labels=3,
    )  # fmt: skip
    weights = from_our_names(VideoMAEForVideoClassification(config).named_weights(), "v1-classification")
    file = saved(weights, tmp_path / "v1.pth")
    with pytest.raises(CheckpointError, match=r"does not tell num_frames, image_size.*does not fit: .*Give those"):
        load_native_sizes(file)
    caplog.clear()
    given = {"image_size": 30, "num_frames": 6, "num_attention_heads": 4}
    assert load_native_sizes(file, **given).config.grid == (2, 3, 3)
    assert not caplog.records
    assert convert(file, tmp_path / "hf", **given).settings["num_frames"] == 6


def load_native_sizes(path, **sizes):
    return VideoMAEForVideoClassification.from_pretrained(path, **sizes)


def test_heads_of_a_decoder_that_no_published_one_is_as_wide_as_are_named(tmp_path, caplog):
    model = VideoMAEForPreTraining(native("pretraining").config.replace(use_mean_pooling=False))
    model.save_pretrained(tmp_path / "v1.pth", family="v1")
    given = {"image_size": 32, "num_frames": 4, "num_attention_heads": 2}
    VideoMAEForVideoClassification.from_pretrained(tmp_path / "v1.pth", **given)
    assert "does not tell" not in caplog.text
    VideoMAEForPreTraining.from_pretrained(tmp_path / "v1.pth", **given)
    assert "does not tell the clip size and the heads: taking decoder_num_attention_heads=1" in caplog.text


def test_the_number_of_classes_is_read_off_the_weights_where_no_config_tells_it(tmp_path):
    model = native()
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["id2label"], content["label2id"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert torch.equal(VideoMAEForVideoClassification.from_pretrained(tmp_path).classifier.bias, model.classifier.bias)


def test_as_many_classes_as_there_are_keep_their_names(tmp_path):
    model = VideoMAEForVideoClassification(native().config.replace(id2label={0: "jump", 1: "run", 2: "sit"}))
    model.save_pretrained(tmp_path)
    assert VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=3).config.id2label[1] == "run"
    assert model.config.replace(num_labels=3).id2label[1] == "run"


@torch.no_grad()
def test_options_that_ask_for_nothing_are_taken_and_others_refused(tmp_path):
    model = native()
    asked = {"variant": None, "quantization_config": None, "from_tf": False, "resume_download": True, "proxies": None}
    model.save_pretrained(tmp_path, variant=None, token=None)
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path, **asked)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    clip = torch.randn(1, 4, 3, 32, 32)
    torch.testing.assert_close(loaded(clip, head_mask=None).logits, model(clip).logits)
    with pytest.raises(TypeError, match="no field 'variant'"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, variant="fp16")
    with pytest.raises(TypeError, match=r"no argument 'repoid' \(did you mean 'repo_id'\?\)"):
        model.save_pretrained(tmp_path, repoid="me/model")


def test_advice_is_given_where_it_helps(tmp_path):
    model = native()
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="does not fit the model"):  # as PyTorch and transformers raise it
        VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=5)
    with pytest.raises(CheckpointError, match="pass ignore_mismatched_sizes=True"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=5)
    weights = dict(model.state_dict()) | {"classifier.0.weight": torch.zeros(3, 3)}
    with pytest.raises(CheckpointError) as refused:
        VideoMAEForVideoClassification.from_pretrained(None, config=model.config, state_dict=weights)
    assert "left over classifier.0.weight" in str(refused.value)
    assert "ignore_mismatched_sizes" not in str(refused.value)


@torch.no_grad()
def test_models_save_in_shards_as_a_pickle_and_from_a_state_dict(tmp_path):
    model, clip = native(), torch.randn(1, 4, 3, 32, 32)
    expected = model(clip).logits
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    torch.testing.assert_close(VideoMAEForVideoClassification.from_pretrained(tmp_path)(clip).logits, expected)
    model.save_pretrained(tmp_path, safe_serialization=False, is_main_process=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "pytorch_model.bin"]
    torch.testing.assert_close(VideoMAEForVideoClassification.from_pretrained(tmp_path)(clip).logits, expected)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=zeros)
    loaded, report = VideoMAEForVideoClassification.from_pretrained(
        tmp_path, output_loading_info=True, low_cpu_mem_usage=True, torch_dtype=torch.bfloat16
    )
    assert not loaded.classifier.weight.any()
    assert loaded.dtype == torch.bfloat16
    assert not any(report.values())
    model.save_pretrained(tmp_path / "nothing", is_main_process=False)
    assert not (tmp_path / "nothing").exists()

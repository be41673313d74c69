"""The models agree with transformers on random weights, in both directions."""

import pytest
import torch
from torch import nn

import videomae
from support import SMALL

transformers = pytest.importorskip("transformers")

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
SIZES = SMALL | {"num_hidden_layers": 3, "num_labels": 5}
CLASSES = ["VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def theirs(name, *, attention="eager", **sizes):
    """A model of transformers in which every parameter is random, also the biases that start at zero."""
    config = transformers.VideoMAEConfig(**(SIZES | sizes), attn_implementation=attention)
    model = getattr(transformers, name)(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def inputs(name, batch=2):
    values = {"pixel_values": torch.randn(batch, 4, 3, 32, 32)}
    if name != "VideoMAEForVideoClassification":
        values["bool_masked_pos"] = videomae.random_mask((2, 4, 4), 0.7, batch_size=batch)
    return values


@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_what_transformers_saves_gives_the_same_outputs_here(name, attention, mean_pooling, tmp_path):
    reference = theirs(name, use_mean_pooling=mean_pooling)
    reference.save_pretrained(tmp_path)
    model = getattr(videomae, name).from_pretrained(tmp_path, attn_implementation=attention)
    arguments = inputs(name) | {"output_hidden_states": True, "output_attentions": True}
    expected, outputs = reference(**arguments), model(**arguments)
    assert list(outputs.keys()) == list(expected.keys())
    for key, value in expected.items():
        pairs = [(outputs[key], value)] if torch.is_tensor(value) else list(zip(outputs[key], value, strict=True))
        assert pairs
        for ours, their in pairs:
            torch.testing.assert_close(ours, their, **TOLERANCE)


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_what_we_save_gives_the_same_outputs_in_transformers(name, tmp_path):
    model = getattr(videomae, name)(videomae.VideoMAEConfig(**SIZES)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    reference, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    arguments = inputs(name)
    expected, outputs = reference(**arguments), model(**arguments)
    for key, value in expected.items():
        torch.testing.assert_close(outputs[key], value, **TOLERANCE)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_gradients_of_a_pretraining_step_agree(norm_pix_loss, tmp_path):
    reference = theirs("VideoMAEForPreTraining", norm_pix_loss=norm_pix_loss)
    reference.save_pretrained(tmp_path)
    model = videomae.VideoMAEForPreTraining.from_pretrained(tmp_path).train()
    arguments = inputs("VideoMAEForPreTraining")
    reference(**arguments).loss.backward()
    model(**arguments).loss.backward()
    pairs = [
        (model.mask_token, reference.mask_token),
        (model.videomae.patch_embed.proj.weight, reference.videomae.embeddings.patch_embeddings.projection.weight),
        (model.decoder.head.weight, reference.decoder.head.weight),
    ]
    layers = zip(model.decoder.blocks, reference.decoder.decoder_layers, strict=True)
    pairs += [(ours.attn.v_bias, their.attention.attention.value.bias) for ours, their in layers]
    for ours, their in pairs:
        torch.testing.assert_close(ours.grad, their.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("labels", [torch.tensor([1, 4]), None])
@torch.no_grad()
def test_the_classification_loss_agrees(labels, tmp_path):
    reference = theirs("VideoMAEForVideoClassification")
    reference.save_pretrained(tmp_path)
    model = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path)
    arguments = inputs("VideoMAEForVideoClassification")
    expected, outputs = reference(**arguments, labels=labels), model(**arguments, labels=labels)
    torch.testing.assert_close(outputs.loss, expected.loss, **TOLERANCE)


@pytest.mark.parametrize("shards", ["20KB", "5GB"])
@torch.no_grad()
def test_sharded_checkpoints_load(shards, tmp_path):
    reference = theirs("VideoMAEForPreTraining")
    reference.save_pretrained(tmp_path, max_shard_size=shards)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shards == "20KB")
    arguments = inputs("VideoMAEForPreTraining")
    outputs = videomae.VideoMAEForPreTraining.from_pretrained(tmp_path)(**arguments)
    torch.testing.assert_close(outputs.logits, reference(**arguments).logits, **TOLERANCE)


@torch.no_grad()
def test_pytorch_model_bin_loads(tmp_path):
    reference = theirs("VideoMAEForVideoClassification")
    reference.config.save_pretrained(tmp_path)
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    arguments = inputs("VideoMAEForVideoClassification")
    outputs = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path)(**arguments)
    torch.testing.assert_close(outputs.logits, reference(**arguments).logits, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_auto_takes_the_stored_one(dtype, tmp_path):
    theirs("VideoMAEForVideoClassification").to(dtype).save_pretrained(tmp_path)
    load = videomae.VideoMAEForVideoClassification.from_pretrained
    assert load(tmp_path, dtype="auto").dtype == dtype
    assert load(tmp_path).dtype == torch.float32
    assert load(tmp_path, dtype="bfloat16").videomae.position.table.dtype == torch.bfloat16


@torch.no_grad()
def test_tuples_come_back_on_request(tmp_path):
    reference = theirs("VideoMAEForVideoClassification")
    reference.save_pretrained(tmp_path)
    model = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path)
    arguments = inputs("VideoMAEForVideoClassification") | {"labels": torch.tensor([0, 1]), "return_dict": False}
    for ours, their in zip(model(**arguments), reference(**arguments), strict=True):
        torch.testing.assert_close(ours, their, **TOLERANCE)


def test_config_json_of_transformers_comes_back_whole(tmp_path):
    config = transformers.VideoMAEConfig(**SIZES, qv_bias=False)
    config.task_specific = {"kept": True}
    config.save_pretrained(tmp_path / "theirs")
    ours = videomae.VideoMAEConfig.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    back = transformers.VideoMAEConfig.from_pretrained(tmp_path / "ours")
    assert back.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}

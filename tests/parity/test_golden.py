"""The models agree with VideoMAE v1 and v2 on the files in tests/golden, which those implementations wrote."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae.models.losses import pixel_targets
from videomae.models.masking import running_cell_maps
from videomae.models.weight_files import read_tensors
from videomae.models.weights import open_checkpoint

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TOLERANCE = {"atol": 1e-5, "rtol": 0}


def sizes(name):
    """What the weights do not tell: clip size and heads."""
    known = json.loads((GOLDEN / f"{name}.json").read_text())
    keys = ("image_size", "num_frames", "num_attention_heads", "decoder_num_attention_heads")
    return {key: known[key] for key in keys if key in known}


def load(cls, name, **options):
    return cls.from_pretrained(GOLDEN / f"{name}.pth", **sizes(name), **options)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
@pytest.mark.parametrize("family", ["v1", "v2"])
@torch.no_grad()
def test_classification_logits_and_features_agree(family, attention):
    golden = load_file(GOLDEN / f"{family}_finetune.safetensors")
    model = load(VideoMAEForVideoClassification, f"{family}_finetune", attn_implementation=attention)
    pixel_values = golden["pixel_values"]
    torch.testing.assert_close(model(pixel_values).logits, golden["logits"], **TOLERANCE)
    torch.testing.assert_close(model.pool(model.videomae(pixel_values)[0]), golden["pooled"], **TOLERANCE)


@pytest.mark.parametrize("family", ["v1", "v2"])
@torch.no_grad()
def test_pretraining_logits_targets_and_losses_agree(family):
    golden = load_file(GOLDEN / f"{family}_pretrain.safetensors")
    model = load(VideoMAEForPreTraining, f"{family}_pretrain")
    pixel_values, mask = golden["pixel_values"], golden["bool_masked_pos"].bool()
    outputs = model(pixel_values, mask)
    torch.testing.assert_close(outputs.logits, golden["logits"], **TOLERANCE)
    torch.testing.assert_close(outputs.loss, golden["loss_norm_pix"][0], **TOLERANCE)
    masked = mask.nonzero()[:, 1].view(len(mask), -1)
    torch.testing.assert_close(pixel_targets(pixel_values, masked, model.config), golden["target"], **TOLERANCE)
    model.config.norm_pix_loss = False
    torch.testing.assert_close(model(pixel_values, mask).loss, golden["loss_raw_pix"][0], **TOLERANCE)


@torch.no_grad()
def test_dual_masking_agrees_with_v2():
    golden = load_file(GOLDEN / "v2_pretrain.safetensors")
    model = load(VideoMAEForPreTraining, "v2_pretrain")
    masks = golden["bool_masked_pos"].bool(), golden["decoder_masked_pos"].bool()
    outputs = model(golden["pixel_values"], *masks)
    torch.testing.assert_close(outputs.logits, golden["dual_logits"], **TOLERANCE)
    torch.testing.assert_close(outputs.loss, golden["dual_loss"][0], **TOLERANCE)


def test_running_cell_maps_are_those_of_v2():
    golden = load_file(GOLDEN / "v2_pretrain.safetensors")["running_cell_masks"].bool()
    assert torch.equal(running_cell_maps((4, 4, 4)), golden)


@pytest.mark.parametrize("name", ["v1_pretrain", "v2_pretrain", "v1_finetune", "v2_finetune"])
def test_v1_to_hf_to_v1_is_bit_equal(name, tmp_path):
    cls = VideoMAEForPreTraining if "pretrain" in name else VideoMAEForVideoClassification
    load(cls, name).save_pretrained(tmp_path / "hf")
    cls.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "back.pth", family="v1")
    before, after = read_tensors(GOLDEN / f"{name}.pth"), read_tensors(tmp_path / "back.pth")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@torch.no_grad()
def test_a_directory_written_from_v1_gives_the_logits_of_v1(tmp_path):
    golden = load_file(GOLDEN / "v1_finetune.safetensors")
    load(VideoMAEForVideoClassification, "v1_finetune").save_pretrained(tmp_path)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert model.config.layer_norm_eps == model.config.output_norm_eps == 1e-6
    torch.testing.assert_close(model(golden["pixel_values"]).logits, golden["logits"], **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "family", "task"),
    [
        ("v1_pretrain", "v1-pretraining", "pretraining"),
        ("v2_finetune", "v1-classification", "classification"),
    ],
)
def test_the_family_and_the_task_are_detected(name, family, task):
    checkpoint = open_checkpoint(GOLDEN / f"{name}.pth")
    assert (checkpoint.family, checkpoint.task) == (family, task)


def test_a_pretrained_checkpoint_gives_a_classifier_that_pools_by_mean():
    """transformers takes the first token here, as if it were a CLS token: there is none."""
    model = load(VideoMAEForVideoClassification, "v1_pretrain", num_labels=7)
    assert model.fc_norm is not None
    assert model.videomae.norm is None
    assert model.classifier.weight.shape == (7, 48)
    assert not model.classifier.weight.is_meta
    encoder = load(VideoMAEModel, "v1_pretrain")
    assert torch.equal(model.videomae.blocks[1].attn.qkv.weight, encoder.blocks[1].attn.qkv.weight)

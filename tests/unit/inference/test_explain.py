"""Explanations: the published rules, recomputed plainly; and what is relevant by construction is found."""

import doctest

import numpy as np
import pytest
import torch
from PIL import Image

from videomae import (
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
)
from videomae.inference import explain as module
from videomae.inference.explain import explain, relevance, rollout
from videomae.video.synthetic import motion_video

SIZES = {
    "image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
NAMES = {0: "jump", 1: "run", 2: "sit"}


def small_model(**fields):
    torch.manual_seed(0)
    return VideoMAEForVideoClassification(
        VideoMAEConfig(**(SIZES | {"id2label": NAMES, "initializer_range": 0.3} | fields))
    ).eval()


def small_processor(**options):
    return VideoMAEImageProcessor(size=32, crop_size=32, **options)


def clip():
    return motion_video("moving_up", rng=np.random.default_rng(0), num_frames=4, size=32)


def test_rollout_of_two_blocks_is_what_one_computes_by_hand():
    """Rows of (A + I) / 2: the heads of the first block average to [[1, 0], [1/2, 1/2]], of the second to 1/2."""
    first = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    second = torch.full((2, 2, 2), 0.5)
    of_first_token = rollout(iter([second, first]), torch.tensor([1.0, 0.0]))
    assert of_first_token.tolist() == [0.75 + 0.25 * 0.25, 0.25 * 0.75]
    of_mean = rollout(iter([second, first]), torch.tensor([0.5, 0.5]))
    assert of_mean.tolist() == [0.5 + 0.5 * 0.25, 0.5 * 0.75]


def test_relevance_counts_only_what_speaks_for_the_class():
    weights = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    gradient = torch.tensor([[[4.0, -1.0], [0.0, 2.0]]])
    assert relevance(iter([(weights, gradient)]), torch.tensor([1.0, 0.0])).tolist() == [1.0, 0.0]
    assert relevance(iter([(weights, gradient)]), torch.tensor([0.5, 0.5])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("use_mean_pooling", [True, False])
@pytest.mark.parametrize("method", ["relevance", "rollout"])
def test_block_by_block_equals_all_attentions_at_once(method, use_mean_pooling):
    model = small_model(use_mean_pooling=use_mean_pooling, num_hidden_layers=3)
    pixels = small_processor()(clip(), return_tensors="pt").pixel_values
    outputs = model(pixels, output_attentions=True)
    gradients = torch.autograd.grad(outputs.logits[0, 1], outputs.attentions)
    identity = torch.eye(model.config.num_tubelets)
    total = identity
    for weights, gradient in zip(outputs.attentions, gradients, strict=True):
        if method == "rollout":
            total = (weights[0].mean(0) + identity) / 2 @ total
        else:
            total = total + (weights * gradient)[0].clamp(min=0).mean(0) @ total
    total = total - identity if method == "relevance" else total
    row = (total.mean(0) if use_mean_pooling else total[0]).detach()
    label = "run" if method == "relevance" else None
    found = explain(clip(), model, small_processor(), method=method, label=label, stride=1)
    assert np.allclose(found.map.ravel(), row / row.sum(), atol=1e-6)
    scores = outputs.logits.softmax(-1)[0].tolist()
    assert found.score == pytest.approx(scores[model.config.label2id[found.label]])


def test_only_the_tubelet_that_makes_the_class_is_relevant():
    """Black tubelets have no value, so that attention to them changes nothing; the classes pull in opposite ways."""
    model = small_model(num_hidden_layers=1, num_attention_heads=1, id2label={0: "for", 1: "against"})
    encoder, processor = model.videomae, small_processor(do_normalize=False)
    (block,) = encoder.blocks
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[2:, 8:16, 24:] = 255
    with torch.no_grad():
        for nothing in (encoder.position.table, encoder.patch_embed.proj.bias, block.mlp.fc2.weight):
            nothing.zero_()
        tokens = encoder.patch_embed(processor(frames, return_tensors="pt").pixel_values)
        *_, value = block.attn.query_key_value(block.norm1(tokens), None)  # (1, 1, N, D)
        model.classifier.weight[0] = block.attn.proj(value[0, 0, 1 * 16 + 1 * 4 + 3])
        model.classifier.weight[1] = -model.classifier.weight[0]
    with pytest.raises(ValueError, match="no attention of the model speaks for 'against'"):
        explain(frames, model, processor, label="against", stride=1)
    found = explain(frames, model, processor, label="for", stride=1)
    assert found.map[1, 1, 3] == pytest.approx(1)
    assert found.fraction_by_slot.tolist() == pytest.approx([0, 1])
    assert found.places[1] == (1, 3)


@pytest.mark.parametrize("method", ["relevance", "rollout"])
def test_a_map_has_a_share_for_each_tubelet_and_sums_to_one(method):
    model = small_model(image_size=(32, 48), num_frames=8)
    processor = VideoMAEImageProcessor(size=(32, 48), crop_size=(32, 48))
    with torch.inference_mode():
        found = explain([Image.fromarray(frame) for frame in clip()], model, processor, method=method, stride=1)
    assert found.map.shape == (4, 4, 6)
    assert found.map.dtype == np.float32
    assert found.map.min() >= 0
    assert found.map.sum() == pytest.approx(1, abs=1e-6)
    assert found.frames.shape == (8, 32, 48, 3)
    assert found.label == found.predicted


def test_frames_are_shown_as_the_model_sees_them():
    model = small_model()
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 64, 3), np.uint8)
    found = explain(frames, model, small_processor(), stride=1)
    assert np.array_equal(found.frames, frames[:, :, 16:48])
    of_floats = explain(frames / np.float32(255), model, small_processor(), stride=1)
    assert np.array_equal(of_floats.frames, found.frames)


def test_channels_that_are_not_colours_are_shown_as_grey():
    model = small_model(num_channels=2, image_mean=(0.5, 0.5), image_std=(0.5, 0.5))
    processor = small_processor(image_mean=(0.5, 0.5), image_std=(0.5, 0.5))
    found = explain(np.full((4, 2, 32, 32), 80, np.uint8), model, processor, stride=1)
    assert (found.frames == 80).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "runn"}, r"no class 'runn' \(did you mean 'run'\?\); it has jump, run, sit\.$"),
        ({"label": "run", "method": "rollout"}, "rollout is the same for every class"),
        ({"method": "gradcam"}, "method must be 'relevance' or 'rollout', got 'gradcam'"),
        ({"stride": 0}, "stride"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        explain(clip(), small_model(), small_processor(), **options)


def test_many_classes_are_not_all_listed():
    with pytest.raises(ValueError, match=r"LABEL_29 and 370 more\.$"):
        explain(clip(), small_model(id2label=None, num_labels=400), small_processor(), label="x")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (VideoMAEModel(VideoMAEConfig(**SIZES)).eval(), "VideoMAEModel without a classifier"),
        (small_model(id2label={}, num_labels=0), "without a classifier cannot be explained: fine-tune it first"),
        (small_model(attentive_pooling=True), "attentive_pooling"),
        (small_model().train(), "call model.eval\\(\\) first"),
    ],
)
def test_a_model_that_cannot_be_explained_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        explain(clip(), model, small_processor())


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(module)
    assert results.attempted > 5
    assert results.failed == 0

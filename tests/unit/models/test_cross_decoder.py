"""A decoder whose mask tokens look at visible tubelets only, and predict any part of the hidden ones."""

import pytest
import torch

from training_runs import run, write_data
from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, tube_mask
from videomae.models.masking import partial_mask
from videomae.training.metrics_log import read_metrics

SMALL = {
    "image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 2, "intermediate_size": 64, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
}  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VideoMAEForPreTraining(VideoMAEConfig(**SMALL, use_mean_pooling=False, decoder_attention="cross")).eval()


@pytest.fixture
def clips():
    return torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_prediction_does_not_hang_on_what_else_is_predicted(model, clips):
    mask = tube_mask(model.config.grid, 0.75, batch_size=2, generator=torch.Generator().manual_seed(0))
    dropped = partial_mask(mask, 0.5, generator=torch.Generator().manual_seed(1))
    whole = model(clips, mask)
    part = model(clips, mask, dropped)
    assert (whole.logits.shape[1], part.logits.shape[1]) == (24, 12)
    for row in range(2):
        kept = ~dropped[row][mask[row]]  # of the hidden ones, in their order
        torch.testing.assert_close(whole.logits[row, kept], part.logits[row])
    assert whole.hidden_states is None
    assert len(model(clips, mask, output_hidden_states=True).hidden_states) == 4


def test_every_hidden_state_of_the_encoder_is_looked_at(model, clips):
    mask = tube_mask(model.config.grid, 0.75, batch_size=2)
    model(clips, mask).loss.backward()
    assert all(block.mixture.grad.abs().min() > 0 for block in model.decoder.blocks)
    assert all(
        parameter.grad is not None for name, parameter in model.named_parameters() if "videomae.norm" not in name
    )


def test_it_is_saved_and_loaded_and_its_encoder_is_an_ordinary_one(model, clips, tmp_path):
    mask = tube_mask(model.config.grid, 0.75, batch_size=2)
    model.save_pretrained(tmp_path / "model")
    again = VideoMAEForPreTraining.from_pretrained(tmp_path / "model").eval()
    assert again.config.decoder_attention == "cross"
    torch.testing.assert_close(again(clips, mask).loss, model(clips, mask).loss)
    classifier = VideoMAEForVideoClassification.from_pretrained(tmp_path / "model", use_mean_pooling=True)
    torch.testing.assert_close(classifier.videomae.blocks.state_dict(), model.videomae.blocks.state_dict())
    with pytest.raises(ValueError, match="v1 has neither attentive pooling nor a cross decoder"):
        model.save_pretrained(tmp_path / "v1.pth", family="v1")
    with pytest.raises(ValueError, match="decoder_attention must be one of 'self', 'cross', got 'across'"):
        VideoMAEConfig(decoder_attention="across")


def test_a_partial_mask_keeps_as_many_hidden_tubelets_in_every_clip():
    mask = tube_mask((4, 4, 4), 0.75, batch_size=50, generator=torch.Generator().manual_seed(0))
    dropped = partial_mask(mask, 0.75, generator=torch.Generator().manual_seed(0))
    assert (~dropped).sum(dim=1).unique().tolist() == [12]
    assert not (~dropped & ~mask).any()  # what is seen is never predicted
    assert (~dropped).float().mean(dim=0).max() < 0.5  # and not the same ones in every clip
    assert torch.equal(partial_mask(mask, 0.0), ~mask)
    with pytest.raises(ValueError, match="from 0 to below 1 of the hidden tubelets, got 1"):
        partial_mask(mask, 1.0)


def test_it_is_trained_by_name(tmp_path):
    data = write_data(tmp_path)
    options = ("--model.decoder-attention", "cross", "--mask.decoder", "hidden", "--mask.decoder-ratio", "0.5")
    result = run("pretrain", data, tmp_path / "run", *options, "--run.epochs", "20")
    losses = [line["loss"] for line in read_metrics(tmp_path / "run")]
    assert sum(losses[-9:]) < sum(losses[:9])
    assert VideoMAEForPreTraining.from_pretrained(result.model).config.decoder_attention == "cross"

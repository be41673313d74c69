"""The features of one video: they are the model's tokens, at their times."""

import numpy as np
import pytest
import torch

from feature_folders import make_place, one_video
from videomae.data.manifest import Sample
from videomae.inference.embedder import VideoEmbedder
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.reader import VideoReader
from videos import write_video as write_stamped


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


def test_a_clips_vector_is_the_mean_of_the_models_tokens(place):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    video = one_video(place)
    features = embedder(video, stride=2)
    with VideoReader(video) as reader:
        first = round(features.starts[0] * 16)
        assert first in (12, 13)  # of 32 frames, a span of 7 in the middle
        frames = reader.frames_at([first, first + 2, first + 4, first + 6])
    with torch.inference_mode():
        tokens = embedder.model(embedder.processor(list(frames), return_tensors="pt").pixel_values).last_hidden_state
    np.testing.assert_allclose(features.vectors[0], tokens.mean(1)[0], atol=1e-6)
    assert features.ends[0] - features.starts[0] == pytest.approx(8 / 16)
    slots, every = embedder(video, stride=2, per="slot"), embedder(video, stride=2, per="token")
    assert slots.vectors.shape == (2, 16)
    assert every.vectors.shape == (8, 16)
    np.testing.assert_allclose(every.vectors.reshape(2, 4, 16).mean(1), slots.vectors, atol=1e-6)
    np.testing.assert_allclose(slots.vectors.mean(0), features.vectors[0], atol=1e-6)
    assert slots.starts[0] == features.starts[0]
    assert slots.ends[-1] == features.ends[0]


def test_a_layers_tokens_are_its_hidden_states(place):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    video = one_video(place)
    first, last = (embedder(video, layer=layer).vectors for layer in (0, 2))
    assert not np.allclose(first, last)
    with pytest.raises(ValueError, match="from 0 to 2"):
        embedder(video, layer=3)


def test_windows_cover_the_video(place):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    features = embedder(one_video(place), per="window", window=0.5, hop=0.25)
    np.testing.assert_allclose(features.starts, np.arange(len(features.starts)) * 0.25, atol=1e-6)
    assert len(features.vectors) == 7  # 2 s: the last whole window begins at 1.5 s


def test_times_of_a_file_whose_stamps_begin_later_count_from_its_start(place, tmp_path):
    frames = np.full((64, 32, 32, 3), 20, np.uint8)
    frames[32:] = 235
    late = write_stamped(tmp_path / "late.mkv", frames, fps=16, times=[100 + i / 16 for i in range(64)])
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    assert embedder(late, per="window", window=1.0, hop=1.0).starts.tolist() == [0, 1, 2, 3]


def test_windows_hold_the_pixels_of_a_batch_and_the_next_only(place, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    made, held, encode, processor = [], [], embedder.encode, embedder.processor
    embedder.processor = lambda clip, **options: made.append(1) or processor(clip, **options)
    embedder.processor.shrink = processor.shrink
    monkeypatch.setattr(embedder, "encode", lambda clips, layer: held.append(len(made)) or encode(clips, layer))
    assert len(embedder(one_video(place), per="window", window=0.5, hop=0.25, batch_size=2).vectors) == 7
    assert len(held) == 4
    assert all(2 * (i + 1) <= made_by_then <= 2 * (i + 2) for i, made_by_then in enumerate(held[:3]))


@pytest.mark.parametrize("options", [{"hop": 0}, {"hop": -1}, {"window": 0}, {"window": float("nan")}])
def test_windows_without_sense_are_refused(place, options):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    with pytest.raises(ValueError, match="above 0"):
        embedder(one_video(place), per="window", **options)


@pytest.mark.parametrize("per", ["clip", "slot", "token"])
@pytest.mark.parametrize("options", [{"window": 2.0}, {"hop": 1.0}])
def test_windows_are_not_asked_for_in_vain(place, per, options):
    """Seconds of a window would be ignored silently, and the features be those of the middle clip."""
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    with pytest.raises(ValueError, match=f"window and hop must be those of per='window', got '{per}'"):
        embedder(one_video(place), per=per, **options)


@pytest.mark.parametrize(
    ("field", "value", "is_other"),
    [
        ("layer_norm_eps", 1e-3, True),
        ("num_attention_heads", 4, True),
        ("image_size", 64, True),
        ("hidden_act", "relu", True),
        ("clip_stride", 2.0, False),
        ("hidden_dropout_prob", 0.5, False),
        ("num_labels", 7, False),
        ("decoder_num_attention_heads", 4, False),
    ],
)
def test_a_fingerprint_knows_what_the_config_does_with_the_weights(place, field, value, is_other):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    before = embedder.fingerprint()
    embedder.model.config = embedder.model.config.replace(**{field: value})
    assert (embedder.fingerprint() != before) == is_other


def test_windows_of_a_stretch_are_decoded_from_near_its_start(place, tmp_path, monkeypatch):
    file = write_stamped(tmp_path / "long.mp4", np.zeros((200, 32, 32, 3), np.uint8), fps=20, gop=10, b_frames=0)
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    entries, decode_from = [], PyAVDecoder.decode_from
    monkeypatch.setattr(
        PyAVDecoder, "decode_from", lambda self, entry: entries.append(entry) or decode_from(self, entry)
    )
    found = embedder(Sample("long.mp4", file, start=8.0, end=9.0), per="window", window=0.5, hop=0.5)
    assert found.starts.tolist() == [8.0, 8.5]
    assert entries[-1] >= 150

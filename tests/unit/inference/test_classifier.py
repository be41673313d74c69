import numpy as np
import pytest
import torch
from PIL import Image

from videomae import (
    VideoClassifier,
    VideoError,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoReader,
)
from videomae.inference.classifier import predict
from videomae.inference.protocols import Protocol
from videomae.video.encode import write_video
from videomae.video.synthetic import motion_video

CONFIG = VideoMAEConfig.preset("tiny", image_size=32, num_frames=4, num_labels=6, num_hidden_layers=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(CONFIG)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder / "model")
    model.save_pretrained(folder / "v1.pth", family="v1")
    processor = VideoMAEImageProcessor(size=32, crop_size=32, image_mean=[0.4, 0.5, 0.6])
    processor.save_pretrained(folder / "model")
    frames = motion_video("moving_left", rng=np.random.default_rng(0), num_frames=40, size=64)
    write_video(folder / "wide.mp4", np.concatenate([frames, frames], axis=2))
    return folder


def by_hand(place, rows, lefts):
    """The mean of the softmax over clips and crops, done step by step."""
    model = VideoMAEForVideoClassification.from_pretrained(place / "model")
    processor = VideoMAEImageProcessor.from_pretrained(place / "model")
    scores = []
    with VideoReader(place / "wide.mp4") as reader, torch.no_grad():
        for row in rows:
            whole = processor(list(reader.frames_at(row)), do_center_crop=False, return_tensors="pt").pixel_values
            assert whole.shape[-2:] == (32, 64)
            scores += [model(whole[..., left : left + 32]).logits.softmax(-1)[0] for left in lefts]
    return torch.stack(scores).mean(0)


@pytest.mark.parametrize(("views", "lefts"), [("1x1", [16]), ("2x1", [16]), ("1x3", [0, 16, 32]), ("3x2", [0, 32])])
def test_scores_are_the_mean_of_the_softmax_over_the_views(place, views, lefts):
    protocol = Protocol.of_model(CONFIG, views=views)
    rows = protocol.sampling(40, video_fps=16, clip_frames=4, num_clips=protocol.num_clips)
    expected = by_hand(place, rows, lefts)
    predictions = VideoClassifier.from_pretrained(place / "model", device="cpu")(
        place / "wide.mp4", top_k=6, views=views
    )
    assert sum(prediction.score for prediction in predictions) == pytest.approx(1.0)
    scores = torch.tensor([prediction.score for prediction in predictions])
    torch.testing.assert_close(scores, expected.sort(descending=True).values)
    assert predictions[0].label == f"LABEL_{int(expected.argmax())}"


def test_frames_in_memory_give_what_the_file_gives(place):
    classifier = VideoClassifier.from_pretrained(place / "model", device="cpu")
    with VideoReader(place / "wide.mp4") as reader:
        frames = reader.frames_at(range(40))
    assert classifier(frames) == classifier(place / "wide.mp4") == classifier(list(frames))


def test_a_file_of_weights_alone_is_processed_with_imagenets_statistics(place):
    classifier = VideoClassifier.from_pretrained(place / "v1.pth", device="cpu", image_size=32, num_frames=4)
    assert classifier.processor.image_mean == (0.485, 0.456, 0.406)
    assert classifier.processor.crop_size == {"height": 32, "width": 32}
    assert len(classifier(place / "wide.mp4", top_k=2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"views": "5"}, "views must be"), ({"views": "0x1"}, "views must be"), ({"top_k": 0}, "top_k must be"),
     ({"stride": 0}, "stride")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(place, options, message):
    with pytest.raises(ValueError, match=message):
        VideoClassifier.from_pretrained(place / "model", device="cpu")(place / "wide.mp4", **options)


def test_several_clips_or_one_frame_are_not_a_video(place):
    classifier = VideoClassifier.from_pretrained(place / "model", device="cpu")
    for shape in [(2, 8, 32, 32, 3), (32, 32, 3)]:
        with pytest.raises(ValueError, match="a list of frames or an array of 4 axes"):
            classifier(np.zeros(shape, np.uint8))


def test_an_unreadable_file_is_a_video_error(place, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        VideoClassifier.from_pretrained(place / "model", device="cpu")(tmp_path / "text.mp4")


@pytest.mark.parametrize("options", [{"views": "2x3"}, {"protocol": "k400"}])
def test_frames_in_memory_are_cut_as_those_of_the_file(place, options):
    classifier = VideoClassifier.from_pretrained(place / "model", device="cpu")
    with VideoReader(place / "wide.mp4") as reader:
        frames = reader.frames_at(range(40))
    expected = {p.label: p.score for p in classifier(place / "wide.mp4", top_k=6, **options)}
    for video in (frames, list(frames), [Image.fromarray(frame) for frame in frames]):
        found = {p.label: p.score for p in classifier(video, top_k=6, **options)}
        assert found == pytest.approx(expected, abs=1e-6)


def test_frames_that_are_scaled_already_do_not_fit_a_published_test(place):
    classifier = VideoClassifier.from_pretrained(place / "model", device="cpu")
    with pytest.raises(ValueError, match=r"take frames of 8 bits, 0 to 255, got torch\.float32"):
        classifier(np.zeros((40, 32, 64, 3), np.float32), protocol="k400")


def test_probabilities_are_those_of_single_clips_whatever_the_batches(place):
    classifier = VideoClassifier.from_pretrained(place / "model", device="cpu")
    clips = torch.randint(256, (5, 4, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (classifier.processor.image_mean, (0.5, 0.5, 0.5)))
    floats = (clips / 255 - mean) / std
    with torch.inference_mode():
        expected = torch.cat([classifier.model(clip[None]).logits.softmax(-1) for clip in floats])
    for pixel_values in (clips, floats):
        torch.testing.assert_close(classifier.probabilities(pixel_values, batch_size=2), expected)


@pytest.mark.parametrize("name", ["model", "v1.pth"])
def test_files_are_classified_in_order_and_a_bad_one_does_not_stop_the_others(place, tmp_path, name):
    (tmp_path / "text.mp4").write_text("hello")
    videos = [place / "wide.mp4", tmp_path / "text.mp4", place / "wide.mp4"]
    model = place / name if name == "model" else VideoClassifier.from_pretrained(
        place / name, device="cpu", image_size=32, num_frames=4
    )  # fmt: skip
    first, bad, last = predict(videos, model=model, device="cpu", top_k=2)
    assert first == last
    assert len(first.predictions) == 2
    assert first.error is None
    assert (bad.path, bad.predictions) == (str(tmp_path / "text.mp4"), [])
    assert "text.mp4" in bad.error


def test_a_device_may_compute_in_less_than_the_parameters_are_unless_that_is_asked_for(place, monkeypatch):
    """As a CUDA GPU does by default: the answers are nearly the same."""
    exact, usual = (VideoClassifier.from_pretrained(place / "model", device="cpu", dtype=d) for d in ("float32", None))
    clips = torch.randint(256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    expected = exact.probabilities(clips)
    assert torch.equal(usual.probabilities(clips), expected)
    monkeypatch.setattr("videomae.inference.engines.pytorch.compute_dtype", lambda device, parameters: torch.bfloat16)
    assert (exact.engine.dtype, usual.engine.dtype) == ("torch.float32", "torch.bfloat16")
    assert torch.equal(exact.probabilities(clips), expected)
    found = usual.probabilities(clips)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert usual.model.dtype is torch.float32

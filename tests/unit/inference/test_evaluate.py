import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from classifiers import MOTION_CONFIG, NUM_TEST_VIDEOS, save_motions
from videomae import (
    VideoClassifier,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoReader,
)
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.data.manifest import read_manifest
from videomae.errors import DataError, VideoError
from videomae.inference.classifier import predict
from videomae.inference.evaluate import evaluate, match_classes
from videomae.inference.protocols import PROTOCOLS, Protocol, ViewTransform, find_protocol
from videomae.video.augment import normalize
from videomae.video.encode import write_video
from videomae.video.sampling import ClipSampling, multi_view_indices, uniform_view_indices
from videomae.video.synthetic import MOTIONS
from videos import moving_square
from videos import write_video as store_video

CLASSES = tuple(MOTIONS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return save_motions(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def classifier(place):
    return VideoClassifier.from_pretrained(place / "model", device="cpu")


@pytest.fixture
def data(place):
    return read_manifest(place / "videos").split("test")


def by_hand(classifier, sample, rows):
    """The softmax of every clip and of its three crops, (clips, 3, L), one step after the other."""
    config = classifier.model.config
    with VideoReader(sample.file) as reader, torch.inference_mode():
        clips = [torch.from_numpy(reader.frames_at(row)).permute(0, 3, 1, 2) for row in rows]
        views = ViewTransform(3, "published", config.frame_size, classifier.processor)
        return torch.stack(
            [
                classifier.model(normalize(views(clip), mean=IMAGENET_MEAN, std=IMAGENET_STD)).logits.softmax(dim=-1)
                for clip in clips
            ]
        )


@pytest.mark.parametrize(
    ("protocol", "rows"),
    [
        ("k400", multi_view_indices(24, num_clips=5, clip_frames=4, stride=4)),
        ("ssv2", uniform_view_indices(24, num_clips=2, clip_frames=4)),
    ],
)
def test_a_named_protocol_averages_the_softmax_over_its_views(classifier, data, protocol, rows):
    result = evaluate(classifier, data, protocol=protocol, batch_size=7)
    right, first_right, true_in_five = 0, 0, 0
    for video, sample in zip(result.videos, data, strict=True):
        expected = by_hand(classifier, sample, rows)
        np.testing.assert_allclose(video.scores, expected.mean(dim=(0, 1)), atol=1e-5)
        true = CLASSES.index(data.classes[sample.label])
        assert video.path == sample.path
        assert video.label == true
        in_order = torch.stack([expected[view] for view in PROTOCOLS[protocol].views])
        assert video.predicted.tolist() == in_order.cumsum(dim=0).argmax(dim=-1).tolist()
        ranked = expected.mean(dim=(0, 1)).argsort(descending=True).tolist()
        right += ranked[0] == true
        true_in_five += true in ranked[:5]
        first_right += int(expected[(len(rows) - 1) // 2, 1].argmax()) == true  # the middle of time and space
    assert result.top1 == pytest.approx(right / NUM_TEST_VIDEOS)
    assert result.top5 == pytest.approx(true_in_five / NUM_TEST_VIDEOS)
    assert result.accuracy_by_views[0] == pytest.approx(first_right / NUM_TEST_VIDEOS)
    assert len(result.accuracy_by_views) == 3 * len(rows)
    assert result.about["protocol"]["method"] == PROTOCOLS[protocol].sampling.method
    assert any("frame size is (32, 32)" in departure for departure in result.about["departures"])


def test_the_centre_is_what_predict_sees(classifier, data):
    result = evaluate(classifier, data)
    for video, sample in zip(result.videos, data, strict=True):
        predictions = classifier(sample.file, top_k=6)
        scores = {p.label: p.score for p in predictions}
        np.testing.assert_allclose(video.scores, [scores[name] for name in CLASSES], atol=1e-6)
    assert result.about["departures"] == []


@pytest.mark.parametrize(("width", "height"), [(480, 272), (456, 256)])
@pytest.mark.parametrize(("protocol", "views"), [("center", "2x3"), ("k400", None)])
def test_predict_and_evaluate_see_the_same_views(tmp_path, width, height, protocol, views):
    """These sizes leave an odd number of pixels beside the crops, so that rounding would shift the middle one."""
    config = MOTION_CONFIG.replace(image_size=224, num_frames=2, num_hidden_layers=1)
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    classifier = VideoClassifier(model, VideoMAEImageProcessor(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD))
    noise = np.random.default_rng(0).integers(0, 256, (12, height // 8, width // 8, 3), dtype=np.uint8)
    write_video(tmp_path / "moving_up" / "noise.mp4", noise.repeat(8, axis=1).repeat(8, axis=2))
    measured = evaluate(
        classifier,
        read_manifest(tmp_path),
        protocol=find_protocol(protocol, config, views=views),
        allow_missing_classes=True,
    )
    (result,) = predict([tmp_path / "moving_up"], model=classifier, top_k=6, protocol=protocol, views=views)
    scores = {p.label: p.score for p in result.predictions}
    np.testing.assert_allclose(measured.videos[0].scores, [scores[name] for name in CLASSES], atol=1e-6)


@pytest.mark.parametrize(("protocol", "are_square"), [("center", True), ("k400", False), ("ssv2", False)])
def test_published_protocols_see_the_stored_pixels_and_the_centre_square_ones(
    classifier, tmp_path, protocol, are_square
):
    """Two files of the same stored frames, of which one says that its pixels are twice as wide as high."""
    folder = tmp_path / CLASSES[0]
    folder.mkdir()
    frames, lossless = moving_square(24), {"qp": "0"}  # lossy encoding may differ from file to file
    for name, aspect in {"plain": None, "wide": Fraction(2)}.items():
        store_video(folder / f"{name}.mp4", frames, pixel_aspect=aspect, options=lossless)
    videos = evaluate(classifier, read_manifest(tmp_path), protocol=protocol, allow_missing_classes=True).videos
    plain, wide = (video.scores for video in videos)
    assert np.array_equal(plain, wide) != are_square
    for video, result in zip(videos, predict([folder], model=classifier, top_k=6, protocol=protocol), strict=True):
        alone = classifier(result.path, top_k=6, protocol=protocol)
        for predictions in (result.predictions, alone):
            found = {p.label: p.score for p in predictions}
            np.testing.assert_allclose([found[name] for name in CLASSES], video.scores, rtol=1e-2)


def test_neither_batches_nor_workers_change_the_figures(classifier, data):
    protocol = Protocol("own", ClipSampling(stride=2), num_clips=2)
    one = evaluate(classifier, data, protocol=protocol, batch_size=1)
    other = evaluate(classifier, data, protocol=protocol, batch_size=9, num_workers=2)
    assert one.top1 == other.top1
    assert one.interval == other.interval
    np.testing.assert_allclose([v.scores for v in one.videos], [v.scores for v in other.videos], atol=1e-5)


def test_the_model_returns_to_the_mode_that_it_came_in(classifier, data):
    classifier.model.train()
    evaluate(classifier, dataclasses.replace(data, samples=data.samples[:1]))
    assert classifier.model.training
    classifier.model.eval()


def test_a_model_in_half_precision_is_measured(place, data):
    half = VideoClassifier.from_pretrained(place / "model", device="cpu", dtype="bfloat16")
    result = evaluate(half, dataclasses.replace(data, samples=data.samples[:2]), protocol="ssv2")
    assert result.videos[0].scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.fixture
def damaged(place, tmp_path, data):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    bad = dataclasses.replace(data.samples[0], path="bad.mp4", file=tmp_path / "bad.mp4")
    return dataclasses.replace(data, samples=(data.samples[0], bad, data.samples[1]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_stops_the_run(classifier, damaged, workers):
    with pytest.raises(VideoError, match=r"remove 'bad\.mp4' from the data, .*--on-bad wrong"):
        evaluate(classifier, damaged, num_workers=workers)


def test_a_bad_file_counts_as_wrong_when_told_to(classifier, damaged):
    good = [v.right for v in evaluate(classifier, damaged, on_bad="wrong").videos if v.scores is not None]
    result = evaluate(classifier, damaged, on_bad="wrong", protocol="ssv2", batch_size=30)
    assert (result.num_videos, result.num_unreadable, len(good)) == (3, 1, 2)
    assert result.top1 <= 2 / 3
    assert [video.path for video in result.videos] == [sample.path for sample in damaged]
    assert "bad.mp4" in result.to_dict()["unreadable"]


def test_replacing_a_bad_file_is_not_on_offer(classifier, damaged):
    with pytest.raises(ValueError, match="on_bad must be one of"):
        evaluate(classifier, damaged, on_bad="skip")


def test_other_classes_than_the_models_are_listed(data):
    other = dataclasses.replace(MOTION_CONFIG, id2label={**MOTION_CONFIG.id2label, 0: "standing"})
    with pytest.raises(DataError, match=r"Not in the data: \['standing'\]. Only in the data: \['moving_left'\]"):
        match_classes(data, other)


def test_data_with_fewer_classes_is_accepted_on_request_only(data):
    more = dataclasses.replace(MOTION_CONFIG, id2label={**MOTION_CONFIG.id2label, 6: "standing"})
    with pytest.raises(DataError, match=r"Not in the data: \['standing'\]"):
        match_classes(data, more)
    assert match_classes(data, more, allow_missing=True).classes == (*CLASSES, "standing")


def test_classes_without_names_match_data_whose_classes_are_numbers(tmp_path):
    (tmp_path / "test.csv").write_text("".join(f"{i}.mp4 {i}\n" for i in range(12)))
    matched = match_classes(read_manifest(tmp_path / "test.csv"), VideoMAEConfig(num_labels=12))
    assert [sample.label for sample in matched] == list(range(12))


def test_classes_of_one_name_are_refused(data):
    with pytest.raises(DataError, match=r"several classes of one name, \['moving_up'\]"):
        match_classes(data, dataclasses.replace(MOTION_CONFIG, id2label={**MOTION_CONFIG.id2label, 0: "moving_up"}))


def test_videos_without_label_are_refused(data):
    bare = dataclasses.replace(data, samples=(dataclasses.replace(data.samples[0], label=None),))
    with pytest.raises(DataError, match="1 of 1 videos have no label"):
        match_classes(bare, MOTION_CONFIG)


def test_an_unknown_protocol_is_answered_with_the_nearest(classifier, data):
    with pytest.raises(ValueError, match=r"no protocol 'k40' \(did you mean 'k400'\?\)"):
        evaluate(classifier, data, protocol="k40")

import csv
import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from support import run_two_ranks
from videomae import (
    VideoClassifier,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoReader,
)
from videomae.commands.evaluate import main
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.data.manifest import read_manifest
from videomae.data.settings import DataSettings
from videomae.errors import DataError, VideoError
from videomae.inference.evaluate import EvaluateSettings, evaluate, match_classes, run
from videomae.inference.protocols import PROTOCOLS, Protocol, ViewTransform, find_protocol, published_top1
from videomae.video.augment import normalize
from videomae.video.sampling import multi_view_indices, uniform_view_indices
from videomae.video.synthetic import MOTIONS, motion_video, write_video

# Not the order of the data, which is alphabetical.
CLASSES = tuple(MOTIONS)
CONFIG = VideoMAEConfig.preset(
    "tiny", image_size=32, num_frames=4, num_hidden_layers=2, id2label=dict(enumerate(CLASSES))
)
NUM_VIDEOS = 13


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model with random weights, and a manifest of 13 wide test videos, one training video."""
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(CONFIG)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder / "model")
    processor = VideoMAEImageProcessor(size=32, crop_size=32, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    processor.save_pretrained(folder / "model")
    lines = ["path,label,split"]
    for i in range(NUM_VIDEOS + 1):
        motion = CLASSES[i % len(CLASSES)]
        frames = motion_video(motion, rng=np.random.default_rng(i), num_frames=24, size=40)
        name = f"{motion}/{i // len(CLASSES)}.mp4"  # names repeat from folder to folder
        write_video(folder / "videos" / name, np.concatenate([frames, frames], axis=2))
        lines.append(f"{name},{motion},{'train' if i == NUM_VIDEOS else 'test'}")
    (folder / "videos" / "manifest.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def classifier(place):
    return VideoClassifier.from_pretrained(place / "model", device="cpu")


@pytest.fixture
def data(place):
    return read_manifest(place / "videos").split("test")


def settings(place, **options):
    return EvaluateSettings(
        DataSettings(place / "videos"), **{"model": str(place / "model"), "device": "cpu", "workers": 0} | options
    )


def table(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


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


def test_the_centre_protocol_chooses_frames_as_in_training():
    config = VideoMAEConfig(clip_sampling="uniform", clip_stride=2.5, clip_fps=12.0)
    found = find_protocol("center", config)
    assert (found.method, found.stride, found.fps, found.clips, found.crops) == ("uniform", 2.5, 12.0, 1, 1)
    assert find_protocol("k400", config) == PROTOCOLS["k400"]


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
    assert result.top1 == pytest.approx(right / NUM_VIDEOS)
    assert result.top5 == pytest.approx(true_in_five / NUM_VIDEOS)
    assert result.accuracy_by_views[0] == pytest.approx(first_right / NUM_VIDEOS)
    assert len(result.accuracy_by_views) == 3 * len(rows)
    assert result.about["protocol"]["method"] == PROTOCOLS[protocol].method
    assert any("frame size is (32, 32)" in departure for departure in result.about["departures"])


def test_the_centre_is_what_predict_sees(classifier, data):
    result = evaluate(classifier, data)
    for video, sample in zip(result.videos, data, strict=True):
        predictions = classifier(sample.file, top_k=6)
        scores = {p.label: p.score for p in predictions}
        np.testing.assert_allclose(video.scores, [scores[name] for name in CLASSES], atol=1e-6)
    assert result.about["departures"] == []


def test_views_are_counted_from_the_middle_outwards():
    assert PROTOCOLS["k400"].views[:7] == [(2, 1), (1, 1), (3, 1), (0, 1), (4, 1), (2, 0), (2, 2)]
    assert PROTOCOLS["ssv2"].views == [(0, 1), (1, 1), (0, 0), (0, 2), (1, 0), (1, 2)]


def test_neither_batches_nor_workers_change_the_figures(classifier, data):
    protocol = Protocol("own", clips=2, stride=2)
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


# ---------------------------------------------------------------------------------------------------- bad files


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


# ------------------------------------------------------------------------------------------------------ classes


def test_other_classes_than_the_models_are_listed(data):
    other = dataclasses.replace(CONFIG, id2label={**CONFIG.id2label, 0: "standing"})
    with pytest.raises(DataError, match=r"Not in the data: \['standing'\]. Only in the data: \['moving_left'\]"):
        match_classes(data, other)


def test_data_with_fewer_classes_is_accepted_on_request_only(data):
    more = dataclasses.replace(CONFIG, id2label={**CONFIG.id2label, 6: "standing"})
    with pytest.raises(DataError, match=r"Not in the data: \['standing'\]"):
        match_classes(data, more)
    assert match_classes(data, more, allow_missing=True).classes == (*CLASSES, "standing")


def test_classes_without_names_match_data_whose_classes_are_numbers(tmp_path):
    (tmp_path / "test.csv").write_text("".join(f"{i}.mp4 {i}\n" for i in range(12)))
    matched = match_classes(read_manifest(tmp_path / "test.csv"), VideoMAEConfig(num_labels=12))
    assert [sample.label for sample in matched] == list(range(12))


def test_classes_of_one_name_are_refused(data):
    with pytest.raises(DataError, match=r"several classes of one name, \['moving_up'\]"):
        match_classes(data, dataclasses.replace(CONFIG, id2label={**CONFIG.id2label, 0: "moving_up"}))


def test_videos_without_label_are_refused(data):
    bare = dataclasses.replace(data, samples=(dataclasses.replace(data.samples[0], label=None),))
    with pytest.raises(DataError, match="1 of 1 videos have no label"):
        match_classes(bare, CONFIG)


# ---------------------------------------------------------------------------------------------------- protocols


def test_the_published_score_is_that_of_size_and_benchmark():
    assert published_top1("k400", VideoMAEConfig.preset("base", num_labels=400)) == {"v1": 81.5}
    assert published_top1("ssv2", VideoMAEConfig.preset("giant", num_labels=174)) == {"v2": 77.0}
    assert published_top1("ssv2", VideoMAEConfig.preset("huge", num_labels=174)) == {}
    assert published_top1("k400", VideoMAEConfig.preset("base", num_labels=10)) == {}
    assert published_top1("k400", VideoMAEConfig.preset("tiny", num_labels=400)) == {}
    assert published_top1("center", VideoMAEConfig.preset("base", num_labels=400)) == {}


def test_what_departs_from_the_published_protocol_is_listed():
    config = VideoMAEConfig.preset("base", num_labels=400)
    imagenet = VideoMAEImageProcessor(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    assert PROTOCOLS["k400"].departures(config, imagenet) == []
    changed = dataclasses.replace(PROTOCOLS["k400"], crops=1)
    assert changed.departures(config, imagenet) == ["crops is 1, the protocol has 3"]
    assert "mean is (0.5, 0.5, 0.5)" in PROTOCOLS["k400"].departures(config, VideoMAEImageProcessor())[0]


def test_frames_that_are_not_square_have_a_centre_only():
    with pytest.raises(ValueError, match=r"need square frames; the model's are \(32, 64\)"):
        ViewTransform(3, "processor", (32, 64), VideoMAEImageProcessor())
    processor = VideoMAEImageProcessor(size=(32, 64), crop_size=(32, 64))
    clip = torch.zeros(4, 3, 40, 80, dtype=torch.uint8)
    assert ViewTransform(1, "processor", (32, 64), processor)(clip).shape == (1, 4, 3, 32, 64)


def test_an_unknown_protocol_is_answered_with_the_nearest(classifier, data):
    with pytest.raises(ValueError, match=r"no protocol 'k40' \(did you mean 'k400'\?\)"):
        evaluate(classifier, data, protocol="k40")


# ------------------------------------------------------------------------------------------------- command line


def test_the_json_object_holds_the_figures_and_how_they_came_about(place, capsys):
    assert main(settings(place, json=True, views="2x3", stride=2.0)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_videos"] == NUM_VIDEOS
    assert result["interval"][0] <= result["top1"] <= result["interval"][1]
    assert {"top5", "mean_class_accuracy", "ece", "per_class", "published_top1_percent"} <= result.keys()
    assert (result["protocol"]["clips"], result["protocol"]["crops"], result["protocol"]["stride"]) == (2, 3, 2.0)
    assert (result["split"], result["model"]) == ("test", str(place / "model"))


def test_tables_name_classes_departures_and_files(place, tmp_path, capsys):
    assert main(settings(place, protocol="ssv2", out=tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert "turning_counterclockwise" in shown
    assert "not the published protocol: frame size is (32, 32), published (224, 224)" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.json", "predictions.csv", "confusion.csv", "confusion.png"
    }  # fmt: skip
    rows = table(tmp_path / "out" / "predictions.csv")
    assert len({row[0] for row in rows[1:]}) == NUM_VIDEOS


def test_a_bad_file_that_counts_as_wrong_shows_in_the_exit_code(place, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    good = place / "videos" / "moving_left" / "0.mp4"
    (tmp_path / "list.csv").write_text(f"path,label\n{good},moving_left\nbad.mp4,moving_up\n")
    options = {
        "split": "all",
        "allow_missing_classes": True,
        "on_bad": "wrong",
        "data": DataSettings(tmp_path / "list.csv"),
    }
    assert main(dataclasses.replace(settings(place), **options)) == 1
    assert "counted as wrong: bad.mp4" in capsys.readouterr().out


def test_two_processes_give_the_figures_of_one(place, tmp_path):
    """13 videos on 2 processes: a sampler that pads would count one twice."""
    command = [
        sys.executable, "-c",
        "import sys, tyro; from videomae.commands.evaluate import *; from videomae.inference.evaluate import *; "
        "sys.exit(main(tyro.cli(EvaluateSettings, args=sys.argv[1:])))",
        str(place / "videos"), "--model", str(place / "model"), "--device", "cpu", "--workers", "0", "--json",
        "--views", "2x3", "--out", str(tmp_path / "two"),
    ]  # fmt: skip
    codes, (first, second), errors = run_two_ranks(command)
    assert codes == [0, 0], errors
    assert second == ""
    two = json.loads(first)
    one = run(settings(place, views="2x3", out=tmp_path / "one")).to_dict()
    assert two["processes"] == 2
    for name in ("top1", "top5", "mean_class_accuracy", "num_videos", "interval", "per_class", "accuracy_by_views"):
        assert two[name] == one[name]
    tables = [table(tmp_path / name / "predictions.csv") for name in ("one", "two")]
    assert [row[:3] for row in tables[0]] == [row[:3] for row in tables[1]]
    scores = [np.array([row[4:] for row in table[1:]], float) for table in tables]
    np.testing.assert_allclose(*scores, atol=1e-6)

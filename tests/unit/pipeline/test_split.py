"""Which videos are trained on, and which the model is tested on."""

from collections import defaultdict
from pathlib import Path

import pytest

from trained import write_classes
from videomae.data.audit.check import CheckReport, check
from videomae.data.audit.findings import Finding, Item
from videomae.data.audit.inspect import VideoFacts
from videomae.data.manifest import Manifest, Sample
from videomae.errors import DataError
from videomae.pipeline.split import split_for_training


def test_unreadable_videos_are_left_out_and_copies_stay_on_one_side(videos):
    for seed in range(5):
        manifest = split_for_training(check(videos), seed=seed)
        names = {sample.file.name: sample.split for sample in manifest}
        assert "broken.mp4" not in names
        assert names["a copy.mp4"] == names["moving_up_000.mp4"]
        assert set(manifest.splits) == {"train", "val", "test"}


def report_of(groups, *copies):
    """What `check` would say of one video per letter: its group, and which are copies of each other."""
    rows = [Sample(f"{name}.mp4", Path(f"{name}.mp4"), i % 2, group=group) for i, (name, group) in enumerate(groups)]
    items = tuple(Item(tuple(f"{name}.mp4" for name in names), "") for names in copies)
    findings = (Finding("near-duplicates", "warning", "", "", items),)
    facts = defaultdict(lambda: VideoFacts(Path(), num_frames=10))
    return CheckReport("", Manifest(tuple(rows), ("x", "y"), Path()), facts, findings)


@pytest.mark.parametrize(
    ("groups", "copies", "together"),
    [
        (dict.fromkeys("abcdefghijklmnopqrst"), ["ab", "cd", "bc"], ["abcd"]),
        (dict.fromkeys("abcdefghijklmnopqrst") | {"a": "one", "b": "two", "c": "two", "d": "one"}, ["ab"], ["abcd"]),
        (dict.fromkeys("abcdefghijklmnopqrst") | {"a": "one", "d": "one"}, ["ab", "de"], ["abde"]),
    ],
)
def test_whatever_copies_and_sources_connect_stays_on_one_side(groups, copies, together):
    for seed in range(8):
        manifest = split_for_training(report_of(groups.items(), *copies), seed=seed)
        side = {Path(sample.path).stem: sample.split for sample in manifest}
        for names in together:
            assert len({side[name] for name in names}) == 1
            assert len({sample.group for sample in manifest if Path(sample.path).stem in names}) == 1
        assert len(set(side.values())) == 3


def test_a_split_without_test_videos_is_refused(videos, tmp_path):
    rows = [f"{file},{file.parent.name},train" for file in videos.rglob("moving_*_000.mp4")]
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    with pytest.raises(DataError, match="needs 'train' and 'test'"):
        split_for_training(check(tmp_path / "data.csv"), seed=0)


@pytest.mark.parametrize(("classes", "per_class"), [(2, 3), (2, 4), (10, 3), (3, 2)])
def test_a_few_videos_a_class_are_split_without_validation(tmp_path, classes, per_class):
    manifest = split_for_training(check(write_classes(tmp_path / "few", classes=classes, per_class=per_class)), seed=0)
    assert set(manifest.splits) == {"train", "test"}
    assert {sample.label for sample in manifest.split("train")} == set(range(classes))


def test_one_class_is_refused_at_the_start(tmp_path):
    with pytest.raises(DataError, match=r"what can be read: 6 videos are all of one class, .* tells at least 2 apart"):
        split_for_training(check(write_classes(tmp_path / "one", classes=1, per_class=6)), seed=0)


def test_data_of_which_nothing_can_be_read_is_refused_at_the_start(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"none of the 1 videos can be read, such as 'a/x.mp4': .*must be a video file"):
        split_for_training(check(tmp_path), seed=0)


def test_videos_without_a_split_beside_others_are_refused(videos, tmp_path):
    files = sorted(videos.rglob("moving_*_00?.mp4"))
    rows = [f"{file},{file.parent.name},{('train', 'test', '')[i % 3]}" for i, file in enumerate(files)]
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    with pytest.raises(DataError, match="videos have no split"):
        split_for_training(check(tmp_path / "data.csv"), seed=0)

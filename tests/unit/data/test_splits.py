"""Splits are even over the classes, depend on their seed only, and keep groups on one side."""

from collections import Counter
from pathlib import Path

import pytest

from support import shared_dir
from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.errors import DataError


def made(labels: list[int], groups: list[str | None] | None = None) -> Manifest:
    groups = groups or [None] * len(labels)
    samples = [
        Sample(f"{i}.mp4", Path(f"{i}.mp4"), label=y, group=g)
        for i, (y, g) in enumerate(zip(labels, groups, strict=True))
    ]
    return Manifest(tuple(samples), tuple(str(i) for i in range(max(labels) + 1)), Path())


def test_a_stratified_split_gives_every_part_its_fraction_of_every_class():
    manifest = made([0] * 100 + [1] * 50 + [2] * 7).stratified_split({"train": 0.8, "val": 0.1, "test": 0.1}, seed=0)
    counts = {name: Counter(s.label for s in manifest.split(name)) for name in manifest.splits}
    assert counts["train"][0] == 80
    assert counts["train"][1] == 40
    assert counts["val"][0] == counts["test"][0] == 10
    assert counts["val"][1] == counts["test"][1] == 5
    assert abs(counts["train"][2] - 5.6) <= 1


@pytest.mark.parametrize(("classes", "each", "fraction"), [(100, 2, 0.2), (50, 4, 0.1), (100, 8, 0.05), (100, 3, 0.2)])
def test_what_small_classes_cannot_divide_evens_out_over_them(classes, each, fraction):
    manifest = made([i % classes for i in range(classes * each)])
    drawn = manifest.stratified_split({"train": 1 - fraction, "val": fraction}, seed=0)
    assert abs(len(drawn.split("val")) - fraction * len(manifest)) <= 1
    assert max(Counter(s.label for s in drawn.split("val")).values()) == 1


def test_a_file_that_links_two_groups_keeps_them_together():
    samples = [
        Sample(f"{i}", Path(f"{file}.mp4"), label=0, start=float(i), group=group)
        for i, (file, group) in enumerate([("a", "g1"), ("a", None), ("b", "g1"), ("b", "g2"), ("c", "g2")])
    ] + [Sample(f"d{i}", Path(f"d{i}.mp4"), label=0) for i in range(5)]
    for seed in range(5):
        drawn = Manifest(tuple(samples), ("x",), Path()).grouped_split({"train": 0.5, "val": 0.5}, seed=seed)
        assert len({s.split for s in drawn.samples[:5]}) == 1


def test_a_split_depends_on_its_seed_only():
    manifest = made([0, 1] * 30)
    first, again, other = (manifest.stratified_split({"a": 0.5, "b": 0.5}, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_group_stays_on_one_side():
    manifest = made([i % 3 for i in range(90)], [f"g{i // 5}" for i in range(90)])
    drawn = manifest.grouped_split({"train": 0.7, "val": 0.3}, seed=3)
    sides = {(s.group, s.split) for s in drawn}
    assert len(sides) == 18
    assert 54 <= len(drawn.split("train")) <= 72


@pytest.mark.parametrize("method", [Manifest.stratified_split, Manifest.grouped_split])
def test_stretches_of_one_file_stay_on_one_side(method):
    samples = [Sample(f"{i // 5}", Path(f"{i // 5}.mp4"), label=0, start=float(i % 5)) for i in range(50)]
    drawn = method(Manifest(tuple(samples), ("x",), Path()), {"train": 0.8, "val": 0.2}, seed=0)
    assert len({(s.file, s.split) for s in drawn}) == 10
    assert len(drawn.split("val")) == 10


def test_a_split_by_video_of_grouped_videos_has_to_be_asked_for():
    manifest = made([0, 0, 1, 1], ["a", "a", "b", "b"])
    with pytest.raises(DataError, match="grouped_split"):
        manifest.stratified_split({"train": 0.5, "val": 0.5}, seed=0)
    drawn = manifest.stratified_split({"train": 0.5, "val": 0.5}, seed=0, ignore_groups=True)
    assert sorted(drawn.splits) == ["train", "val"]


def test_folds_hold_out_every_video_once():
    manifest = made([i % 2 for i in range(40)], [f"g{i // 4}" for i in range(40)])
    folds = manifest.grouped_folds(5, seed=0)
    held_out = Counter(s.path for fold in folds for s in fold.split("val"))
    assert set(held_out.values()) == {1}
    assert len(held_out) == 40
    assert all(not {s.group for s in f.split("val")} & {s.group for s in f.split("train")} for f in folds)


def test_more_splits_than_groups_are_refused():
    with pytest.raises(DataError, match="would be empty"):
        made([0, 0, 1], ["a", "a", "a"]).grouped_split({"train": 0.5, "val": 0.5}, seed=0)


def test_fractions_must_add_up():
    with pytest.raises(ValueError, match="add up to 1"):
        made([0, 0]).stratified_split({"train": 0.5, "val": 0.4}, seed=0)


def test_the_fights_divide_by_group():
    manifest = read_manifest(shared_dir("data") / "fights").grouped_split({"train": 0.8, "val": 0.2}, seed=0)
    train, val = manifest.split("train"), manifest.split("val")
    assert not {s.group for s in train} & {s.group for s in val}
    assert 55 <= len(val) <= 65
    assert abs(Counter(s.label for s in val)[0] - len(val) / 2) <= 4

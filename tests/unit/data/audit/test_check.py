"""The report on a data set: every fault that was put in is found, named and explained."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tyro

from support import shared_dir
from videomae.commands.check import CheckSettings, main
from videomae.data.audit.check import CheckReport, check
from videomae.data.audit.findings import SEVERITIES
from videomae.data.audit.set_rules import expected_leak
from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.data.settings import DataSettings
from videomae.plots.check_report import write_check_report
from videos import moving_square, shift_packets, write_video

NUM_FRAMES = 66


def wandering(seed: int, *, size: tuple[int, int] = (128, 128), num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Blobs on a background, different in every video."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    place = rng.uniform(20, 100, (3, 2)) + np.cumsum(rng.normal(0, 3, (num_frames, 3, 2)), 0)
    top, left = place.transpose(2, 0, 1)[..., None, None]  # (T, 3, 1, 1) each
    light = np.exp(-((y - top) ** 2 + (x - left) ** 2) / 400).sum(1)
    frames = 60 + 40 * np.sin(x / rng.uniform(8, 20)) + 120 * light
    return np.repeat(frames.clip(0, 255).astype(np.uint8)[..., None], 3, -1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each fault, named after it."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("good", "a", "b", "c"):
        write_video(folder / f"{name}.mp4", wandering(ord(name[0])))
    shutil.copy(folder / "a.mp4", folder / "a_again.mp4")
    write_video(folder / "b_smaller.mp4", wandering(ord("b"))[4:60, ::2, ::2], options={"crf": "30"})
    (folder / "empty.mp4").touch()
    (folder / "garbage <b>&.mp4").write_bytes(b"garbage" * 99)
    write_video(folder / "black.mp4", np.zeros((NUM_FRAMES, 128, 128, 3), np.uint8))
    write_video(folder / "frozen.mp4", np.repeat(wandering(1)[:1], NUM_FRAMES, 0))
    write_video(folder / "short.mp4", wandering(2, num_frames=20))
    write_video(folder / "long.mp4", wandering(3, size=(120, 480)))
    write_video(folder / "tiny.mp4", moving_square(NUM_FRAMES, 32, 32))
    write_video(folder / "turned.mp4", wandering(4), rotation=90)
    write_video(folder / "deep.mp4", wandering(5), pixel_format="yuv420p10le")
    write_video(folder / "uneven.mp4", wandering(6), times=np.cumsum([0.04 + 0.1 * (i % 7 == 0) for i in range(66)]))
    cut = write_video(folder / "cut.mkv", wandering(8), gop=6)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write_video(folder / "unlisted.mp4", moving_square(8))
    (folder / "notes.txt").write_text("notes")

    names = sorted(path.name for path in folder.iterdir() if path.stem not in ("unlisted", "notes"))
    rows = [(name, "walk" if name[0] < "d" else "run", "train", "") for name in [*names, "gone.mp4"]]
    change = {
        "a_again.mp4": ("run", "test", ""),
        "b_smaller.mp4": ("walk", "test", ""),
        "good.mp4": ("run", "train", "source"),
        "c.mp4": ("walk", "test", "source"),
    }
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label", "split", "group"), *((row[0], *change.get(row[0], row[1:])) for row in rows)]
        )
    return folder


@pytest.fixture(scope="module")
def report(data: Path) -> CheckReport:
    return check(data, workers=2)


EXPECTED = {
    "missing": {"gone.mp4"},
    "empty": {"empty.mp4"},
    "unreadable": {"garbage <b>&.mp4"},
    "truncated": {"cut.mkv"},
    "black": {"black.mp4"},
    "frozen": {"frozen.mp4"},
    "small": {"tiny.mp4", "b_smaller.mp4"},
    "elongated": {"long.mp4"},
    "variable-rate": {"uneven.mp4"},
    "rotated": {"turned.mp4"},
    "deep-colour": {"deep.mp4"},
    "exact-duplicates": {"a.mp4", "a_again.mp4"},
    "split-leak": {"a.mp4", "a_again.mp4"},
    "label-conflict": {"a.mp4", "a_again.mp4"},
    "near-duplicates": {"b.mp4", "b_smaller.mp4"},
    "near-split-leak": {"b.mp4", "b_smaller.mp4"},
    "group-leak": {"good.mp4", "c.mp4"},
    "unlisted": {"unlisted.mp4"},
    "other-files": {"notes.txt"},
}


def test_every_fault_is_found_and_nothing_else(report: CheckReport):
    found = {finding.kind: set(finding.videos) for finding in report.findings}
    short = found.pop("short")
    assert {"short.mp4", "b_smaller.mp4", "cut.mkv"} == short
    assert found == EXPECTED


def test_findings_say_what_to_do_and_errors_come_first(report: CheckReport):
    ranks = [SEVERITIES.index(finding.severity) for finding in report.findings]
    assert ranks == sorted(ranks)
    assert not report.is_sound
    assert all(finding.title and finding.advice.endswith(".") and finding.items for finding in report.findings)


def test_counts_and_totals(report: CheckReport):
    assert sum(sum(row.values()) for row in report.counts.values()) == len(report.manifest)
    assert report.counts["run"]["test"] == 1
    assert report.summary["unreadable"] == 3
    assert report.summary["codecs"] == {"h264": len(report.manifest) - 3}
    assert set(report.unreadable) == {"gone.mp4", "empty.mp4", "garbage <b>&.mp4"}


def test_the_written_report_is_complete(report: CheckReport, tmp_path: Path):
    write_check_report(report, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [finding["kind"] for finding in stored["findings"]] == [finding.kind for finding in report.findings]
    assert len(stored["videos"]) == len(report.manifest)
    rows = list(csv.reader((tmp_path / "out" / "unreadable.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["path", *sorted(report.unreadable)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "garbage &lt;b&gt;&amp;.mp4" in page
    assert "data:image/jpeg;base64," in page
    sheets = sorted(path.name for path in (tmp_path / "out" / "classes").iterdir())
    assert sheets == ["000_run.jpg", "001_walk.jpg"]
    assert all(f'src="classes/{sheet}"' in page for sheet in sheets)


def test_the_command_prints_one_object_and_its_exit_code_tells_of_errors(
    data: Path, capsys: pytest.CaptureFixture[str]
):
    settings = tyro.cli(CheckSettings, args=[str(data), "--json", "--no-near-duplicates", "--stride", "2"])
    assert main(settings) == 1
    kinds = {finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert "split-leak" in kinds
    assert "near-duplicates" not in kinds


def test_a_sound_set_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(3):
        (tmp_path / f"class {number}").mkdir()
        write_video(tmp_path / f"class {number}" / f"ü {number}.mp4", wandering(number))
    assert main(CheckSettings(DataSettings(tmp_path), out=tmp_path / "out")) == 0
    assert "nothing found" in capsys.readouterr().out


def test_a_set_without_any_readable_video_is_reported_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mp4").touch()
    assert main(CheckSettings(DataSettings(tmp_path), out=tmp_path / "out")) == 1
    assert "0 bytes" in capsys.readouterr().out


def test_stretches_of_one_file_are_one_group(tmp_path: Path):
    file = write_video(tmp_path / "a.mp4", wandering(1))
    stretches = [("train", 0.0, 1.0), ("test", 1.5, 2.5)]
    samples = tuple(Sample("a.mp4", file, split=split, start=start, end=end) for split, start, end in stretches)
    report = check(Manifest(samples, (), tmp_path), stride=1)
    assert [finding.kind for finding in report.findings] == ["group-leak"]


def test_a_stretch_after_the_end_of_its_video_counts_as_unreadable(tmp_path: Path):
    write_video(tmp_path / "a.mp4", moving_square())
    (tmp_path / "manifest.csv").write_text("path,label,start,end\na.mp4,x,99,100\na.mp4,x,0,1\n")
    report = check(tmp_path)
    assert list(report.unreadable) == ["a.mp4 (99 s to 100 s)"]
    assert "no frame between 99 s and 100 s" in report.unreadable["a.mp4 (99 s to 100 s)"]
    assert [sample.end for sample in report.usable] == [1.0]


def test_the_expected_leak_is_that_of_random_splits():
    sizes = [2, 2, 3, 5, 10]
    source = np.repeat(np.arange(len(sizes) + 8), [*sizes, *[1] * 8])
    rng = np.random.default_rng(0)
    both, leaked, tested = [], 0, 0
    for _ in range(3000):
        is_test = rng.random(len(source)) < 0.2
        shared = set(source[is_test]) & set(source[~is_test])
        both.append(len(shared))
        leaked += int(np.isin(source[is_test], list(shared)).sum())
        tested += int(is_test.sum())
    expected = expected_leak(sizes, len(source))
    assert expected == pytest.approx((np.mean(both), leaked / tested), rel=0.03)


def test_settings_that_make_no_sense_are_refused(data: Path):
    with pytest.raises(ValueError, match="stride must be above 0"):
        check(data, stride=0)


def test_the_copies_in_the_gestures_are_found():
    """Only one class of 17, which holds all of them, to be quick."""
    whole = read_manifest(shared_dir("data") / "gestures17")
    samples = tuple(sample for sample in whole if "CCW" in sample.path)
    report = check(Manifest(samples, whole.classes, whole.root), stride=3)
    copies, leak = report.named("exact-duplicates"), report.named("split-leak")
    assert copies is not None
    assert leak is not None
    assert (len(copies.items), len(leak.items)) == (6, 2)
    assert report.named("near-duplicates") is None


def test_the_groups_of_the_fights_leak_in_a_random_split():
    whole = read_manifest(shared_dir("data") / "fights")
    report = check(Manifest(whole.samples[:40], whole.classes, whole.root), near_duplicates=False)
    leak = report.named("random-split-leak")
    assert leak is not None
    assert "on both sides" in leak.items[0].detail


def test_clocks_that_jump_missing_times_and_stretches_that_are_not_there_are_named(tmp_path):
    source = write_video(tmp_path / "source.ts", wandering(0), b_frames=0)
    shift_packets(source, tmp_path / "jumps.ts", lambda number: 36_000 * (number >= NUM_FRAMES // 2))
    source.unlink()
    write_video(tmp_path / "raw.h264", wandering(1), b_frames=0)
    write_video(tmp_path / "short.mp4", wandering(2))
    lines = ["path,label,start,end", "jumps.ts,a,,", "raw.h264,b,,", "short.mp4,a,0,60", "short.mp4,b,500,501"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    report = check(tmp_path / "manifest.csv", near_duplicates=False, workers=1)
    ((jump,),) = [report.named("gaps").items]
    assert (jump.videos, jump.detail[:13]) == (("jumps.ts",), "nothing from ")
    assert report.named("no-times").items[0].detail == "25 frames per second are assumed"
    assert "0 s to 60 s" in report.named("beyond-the-end").items[0].detail
    assert report.named("no-frames").items[0].videos == ("short.mp4",)
    assert report.named("variable-rate") is None
    assert report.named("truncated") is None
    assert report.summary["seconds"] < 60

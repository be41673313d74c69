"""A prepared data set is the same data set: same frames at the same times, smaller, and never half-written."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from support import shared_dir
from videomae.commands.prepare import PrepareSettings, main
from videomae.data import transcode
from videomae.data.copies import CopyJob, CopyReport, estimate, plan, prepare
from videomae.data.manifest import read_manifest
from videomae.data.transcode import Encoding
from videomae.errors import DataError, VideoError
from videomae.video.reader import VideoReader
from videos import moving_square, shift_packets, write_video

SMALL = Encoding(short_side=32, crf=10, preset="ultrafast")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of one video each."""
    folder = tmp_path / "data"
    for name, seed in (("wave/ä b.avi", 0), ("walk/c.mp4", 1)):
        (folder / name).parent.mkdir(parents=True)
        write_video(folder / name, moving_square(24, seed=seed))
    return folder


def contents(folder: Path) -> dict[str, int]:
    """All videos, hidden ones too, with the times at which they were written."""
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in folder.rglob("*.mp4")}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


# ---- a data set


def test_a_folder_becomes_a_manifest_of_the_same_data(data, tmp_path):
    out = tmp_path / "out"
    report = prepare(data, out, encoding=SMALL, workers=2, verify=True)
    assert (report.made, report.kept, report.unreadable) == (2, 0, {})
    assert set(report.psnr) == {"wave/ä b.avi", "walk/c.mp4"}
    before, after = read_manifest(data), read_manifest(out)
    assert [sample.path for sample in after] == ["walk/c.mp4", "wave/ä b.mp4"]
    assert [sample.label for sample in after] == [sample.label for sample in before]
    assert after.classes == before.classes
    assert set(contents(out)) == {sample.path for sample in after}


def test_all_columns_of_a_manifest_are_carried_over(data, tmp_path):
    (data / "manifest.csv").write_text(
        "path,label,split,start,end,group,note\n"
        "wave/ä b.avi,x,train,0.25,0.5,g1,first\n"
        'wave/ä b.avi,y,val,0.5,,g1,"second, later"\n'
        "walk/c.mp4,x,train,,,g2,\n",
        encoding="utf-8",
    )
    report = prepare(data, tmp_path / "out", encoding=SMALL, workers=1)
    assert report.made == 2  # two rows are of one file
    for row, old in zip(rows(tmp_path / "out" / "manifest.csv"), rows(data / "manifest.csv"), strict=True):
        assert row == old | {"path": Path(old["path"]).with_suffix(".mp4").as_posix()}


def test_what_is_done_is_not_done_again(data, tmp_path):
    out = tmp_path / "out"
    prepare(data, out, encoding=SMALL, workers=1)
    made = contents(out)
    (out / "wave" / "ä b.mp4").unlink()
    report = prepare(data, out, encoding=SMALL, workers=1)
    assert (report.made, report.kept) == (1, 1)
    assert contents(out)["walk/c.mp4"] == made["walk/c.mp4"]


def test_other_settings_and_changed_sources_are_redone_only_when_asked(data, tmp_path):
    out = tmp_path / "out"
    prepare(data, out, encoding=SMALL, workers=1)
    with pytest.raises(DataError, match=r"2 of 2 files were made with other settings .*short_side 32, now 48"):
        plan(data, out, encoding=Encoding(short_side=48))
    os.utime(data / "walk" / "c.mp4", (1, 1))
    with pytest.raises(DataError, match=r"1 of 2 files .*source_modified_ns"):
        plan(data, out, encoding=SMALL)
    report = prepare(data, out, encoding=SMALL, redo=True, workers=1)
    assert (report.made, report.kept) == (1, 1)


def test_a_damaged_file_of_an_earlier_run_is_found_and_made_anew(data, tmp_path):
    out = tmp_path / "out"
    prepare(data, out, encoding=SMALL, workers=1)
    victim = out / "walk" / "c.mp4"
    comment = json.dumps(plan(data, out, encoding=SMALL).jobs[0].fingerprint())
    with av.open(str(victim), "w") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8))))
        container.mux(stream.encode())
    report = prepare(data, out, encoding=SMALL, verify=True, workers=1)
    assert (report.made, report.kept, len(report.psnr)) == (1, 1, 2)
    with VideoReader(victim) as reader:
        assert len(reader) == 24


def test_bad_files_are_listed_and_left_out(data, tmp_path):
    (data / "walk" / "bad.mp4").write_bytes(b"not a video")
    out = tmp_path / "out"
    report = prepare(data, out, encoding=SMALL, workers=1)
    assert list(report.unreadable) == ["walk/bad.mp4"]
    assert [row["path"] for row in rows(out / "unreadable.csv")] == ["walk/bad.mp4"]
    assert "walk/bad.mp4" not in {sample.path for sample in read_manifest(out)}
    (data / "walk" / "bad.mp4").unlink()
    prepare(data, out, encoding=SMALL, workers=1)
    assert not (out / "unreadable.csv").exists()


def test_a_file_that_cannot_be_written_is_one_bad_file(data, tmp_path, capfd):
    source = write_video(tmp_path / "source.ts", moving_square(20), b_frames=0)
    shift_packets(source, data / "walk" / "jumps.ts", lambda number: 36_000 * (number >= 10))
    out = tmp_path / "out"
    settings = PrepareSettings(path=data, out=out, encoding=SMALL, workers=1)
    assert main(settings) == 1
    assert "Traceback" not in capfd.readouterr().err
    ((path, reason),) = [(row["path"], row["reason"]) for row in rows(out / "unreadable.csv")]
    assert path == "walk/jumps.ts"
    assert "cannot hold frames 36000 s apart" in reason
    made = {sample.path for sample in read_manifest(out)}
    assert len(made) == len(read_manifest(data)) - 1
    assert made == {name for name in contents(out) if name.endswith(".mp4")}


def test_a_file_that_fails_its_verification_is_not_left_for_the_next_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(transcode, "MIN_PSNR", 1000.0)
    job = CopyJob("c.mp4", data / "walk" / "c.mp4", tmp_path / "out" / "c.mp4", SMALL)
    for is_done in (False, True):
        if is_done:
            job.run(verify=False)
        with pytest.raises(VideoError, match="1000 are the least"):
            dataclasses.replace(job, is_done=is_done).run(verify=True)
        assert contents(tmp_path / "out") == {}


def test_what_was_made_of_a_source_that_is_gone_is_kept(data, tmp_path, caplog):
    prepare(data, tmp_path / "out", encoding=SMALL, workers=1)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,label\ndata/walk/c.mp4,walk\ndata/wave/ä b.avi,wave\n", encoding="utf-8")
    prepare(manifest, tmp_path / "other", encoding=SMALL, workers=1)
    before = contents(tmp_path / "other")
    (data / "walk" / "c.mp4").unlink()
    report = prepare(manifest, tmp_path / "other", encoding=SMALL, workers=1)
    assert (report.made, report.kept, report.unreadable) == (0, 2, {})
    assert contents(tmp_path / "other") == before
    assert len(rows(tmp_path / "other" / "manifest.csv")) == 2
    assert "1 sources are gone" in caplog.text


def test_the_list_of_another_run_into_the_same_folder_is_kept(data, tmp_path):
    for name, line in (("train", "walk/c.mp4"), ("test", "wave/ä b.avi")):
        (data / f"{name}.csv").write_text(f"path,label\n{line},x\n", encoding="utf-8")
        prepare(data / f"{name}.csv", tmp_path / "out", encoding=SMALL, workers=1)
    assert [row["path"] for row in rows(tmp_path / "out" / "manifest-1.csv")] == ["walk/c.mp4"]
    assert [row["path"] for row in rows(tmp_path / "out" / "manifest.csv")] == ["wave/ä b.mp4"]


def test_foreign_files_and_sources_are_never_replaced(data, tmp_path):
    with pytest.raises(DataError, match="Name a folder outside"):
        plan(data, data / "small")
    with pytest.raises(DataError, match="Name a folder outside"):
        plan(data, data)
    (data / "manifest.csv").write_text("path\nwave/ä b.avi\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.csv would be replaced"):
        plan(data / "manifest.csv", data)
    (data / "manifest.csv").unlink()
    (tmp_path / "mine" / "walk").mkdir(parents=True)
    write_video(tmp_path / "mine" / "walk" / "c.mp4", moving_square(4))
    with pytest.raises(DataError, match="was not made by `prepare`"):
        plan(data, tmp_path / "mine", redo=True)


def test_videos_told_apart_by_their_endings_only_stay_apart(tmp_path):
    for name in ("a.mp4", "a.avi", "a.MOV"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"")
    jobs = plan(tmp_path / "data", tmp_path / "out").jobs
    assert [job.target.name for job in jobs] == ["a.MOV.mp4", "a.avi.mp4", "a.mp4"]


def test_videos_outside_the_folder_of_their_manifest_find_a_place(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.csv").write_text("path,label\n../videos/a.mp4,x\n../more/b.mp4,y\n")
    planned = plan(tmp_path / "lists" / "all.csv", tmp_path / "out")
    assert [sample.path for sample in planned.manifest] == ["videos/a.mp4", "more/b.mp4"]


def test_a_killed_run_leaves_no_part_of_a_file_and_no_process_and_goes_on(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for number in range(6):
        write_video(data / f"{number}.mp4", moving_square(100, 128, 192, seed=number))
    script = tmp_path / "run.py"
    script.write_text(
        "from videomae.data.copies import prepare\n"
        "from videomae.data.transcode import Encoding\n"
        "if __name__ == '__main__':\n"
        f"    prepare({str(data)!r}, {str(out)!r}, encoding=Encoding(preset='veryslow'), workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(out.glob("[0-9].mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=30)  # until the last process that could still write there has ended
    whole = [name for name in contents(out) if not name.startswith(".")]
    assert 0 < len(whole) < 6
    for name in whole:
        with VideoReader(out / name) as reader:
            assert len(reader) == 100
    (out / ".0123456789ab.5.mp4").write_bytes(b"as the kill may have left it")
    report = prepare(data, out, encoding=Encoding(preset="veryslow"), workers=1)
    assert report.kept >= len(whole)
    assert set(contents(out)) == {f"{number}.mp4" for number in range(6)}


# ---- size first, and the command


def test_size_and_time_are_estimated_from_a_sample(data, tmp_path):
    planned = plan(data, tmp_path / "out", encoding=SMALL)
    expected = estimate(planned, workers=1)
    assert not (tmp_path / "out").exists()
    assert expected.files == 2
    assert expected.source_bytes == sum(job.source.stat().st_size for job in planned.jobs)
    prepare(data, tmp_path / "out", encoding=SMALL, workers=1)
    size = sum(job.target.stat().st_size for job in planned.jobs)
    assert expected.target_bytes == pytest.approx(size, rel=0.1)
    assert expected.seconds > 0


def test_the_command_estimates_prepares_and_reports(data, tmp_path, capfd):
    (data / "walk" / "bad.mp4").write_bytes(b"not a video")
    out = tmp_path / "out"
    settings = PrepareSettings(path=data, out=out, encoding=SMALL, workers=1, dry_run=True)
    assert main(settings) == 0
    assert not out.exists()
    assert "will become about" in capfd.readouterr().err
    settings.dry_run, settings.verify = False, True
    assert main(settings) == 1
    told = capfd.readouterr().err
    assert "2 made, 0 kept" in told
    assert "2 verified" in told
    assert "1 left out" in told


def test_the_odd_clips_are_prepared_or_listed(tmp_path):
    report = prepare(shared_dir("clips"), tmp_path / "out", encoding=Encoding(short_side=64), verify=True)
    assert set(report.unreadable) == {"corrupted_28_of_50.mp4", "zero_bytes.webm"}
    assert isinstance(report, CopyReport)
    assert report.made == len(report.psnr) == 20

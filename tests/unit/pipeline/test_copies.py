"""Small copies stand in for the videos to learn from."""

import dataclasses

from videomae.data.audit.check import check
from videomae.data.copies import run
from videomae.data.manifest import read_manifest
from videomae.pipeline.copies import copy_videos
from videomae.pipeline.split import split_for_training


def test_what_cannot_be_copied_is_learnt_from_as_it_is(videos, tmp_path, monkeypatch):
    manifest = split_for_training(check(videos, near_duplicates=False), seed=0)
    refused = manifest.split("train").samples[0]

    def run_others(planned, **options):
        jobs = {job.source: job for job in planned.jobs}
        report = run(planned, **options)
        jobs[refused.file].target.unlink()
        return dataclasses.replace(report, unreadable={jobs[refused.file].path: "is damaged at frame 3"})

    monkeypatch.setattr("videomae.data.copies.run", run_others)
    told = []
    listed = copy_videos(manifest, tmp_path, side=16, workers=1, say=told.append)
    learnt_from = read_manifest(listed)
    assert [a.file for a in learnt_from.split("train") if not a.file.is_relative_to(tmp_path)] == [refused.file]
    assert "damaged at frame 3" in told[0]


def test_a_class_that_only_the_test_videos_have_is_kept_with_copies(videos, tmp_path):
    files = sorted(videos.rglob("moving_*_00?.mp4"))
    rows = [f"{file},{file.parent.name},{'test' if 'left' in file.name else 'train'}" for file in files]
    rows.append(f"{videos}/moving_up/a copy.mp4,moving_up,test")
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    manifest = split_for_training(check(tmp_path / "data.csv", near_duplicates=False), seed=0)
    listed = copy_videos(manifest, tmp_path, side=16, workers=1, say=print)
    assert read_manifest(listed).classes == manifest.classes
    assert "moving_left" not in {video.file.parent.name for video in read_manifest(listed).split("train")}

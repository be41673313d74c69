"""Features of many videos: whatever stops a run in between changes nothing."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from feature_folders import embed_videos, make_place, one_video, save_model
from videomae.data.manifest import read_manifest
from videomae.errors import CheckpointError
from videomae.inference.embed import _embed_all
from videomae.inference.embedder import FeatureKind, VideoEmbedder
from videomae.inference.feature_store import FORMAT, part_size, read_features, stored_settings, write_part
from videomae.video.synthetic import MOTIONS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("videomae.inference.embed.part_size", lambda num_videos, per: 2)


def test_a_stretch_without_frames_is_one_bad_video_also_with_windows(place, tmp_path):
    name = one_video(place).relative_to(place / "videos").as_posix()
    (place / "videos" / "stretches.csv").write_text(f"path,start,end\n{name},0.5,1.5\n{name},7,8\n")
    for per, starts in (("clip", None), ("window", [0.5, 1.0])):
        options = {"per": per} | ({"window": 0.5, "hop": 0.5} if starts else {})
        unreadable = embed_videos(place, tmp_path / per, data="videos/stretches.csv", **options)
        assert "no frame between 7" in unreadable[name]
        if starts:
            assert read_features(tmp_path / per)["start"].to_pylist() == starts


def test_a_run_that_was_killed_goes_on_and_ends_as_if_undisturbed(place, monkeypatch):
    embed_videos(place, "whole", npy=True)
    written = []

    def killed(folder, number, *arguments, **options):
        if number == 1:
            raise KeyboardInterrupt
        written.append(number)
        write_part(folder, number, *arguments, **options)

    monkeypatch.setattr("videomae.inference.embed.write_part", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            embed_videos(place, "stopped")
    assert written == [0]
    monkeypatch.setattr("videomae.inference.embed.write_part", write_part)
    embed_videos(place, "stopped")
    whole = read_features(place / "whole")
    assert whole.equals(read_features(place / "stopped"))
    assert whole.num_rows == 6
    assert set(whole["label"].to_pylist()) == set(MOTIONS)
    first = whole["path"][0].as_py()
    stem = first.removesuffix(".mp4")
    assert np.array_equal(np.load(place / "whole" / "npy" / f"{stem}.npy")[0], whole["vector"].to_numpy()[0])


def test_two_ranks_write_what_one_does(place, monkeypatch):
    embed_videos(place, "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        embed_videos(place, "two")
        parts = sorted(int(file.stem) for file in (place / "two" / "parts").iterdir())
        assert parts == ([0, 2] if rank == "0" else [0, 1, 2])
    assert read_features(place / "one").equals(read_features(place / "two"))


def test_ray_writes_what_a_local_run_does(place):
    pytest.importorskip("ray")
    common = [sys.executable, "-m", "videomae", "embed", "videos", "--model", "model", "--device", "cpu"]
    quiet = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    for out, more in (("local", []), ("ray", ["--engine", "ray"])):
        done = subprocess.run([*common, "--out", out, *more], cwd=place, env=quiet, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    local, ray = read_features(place / "local"), read_features(place / "ray")
    assert local.drop("vector").equals(ray.drop("vector"))
    np.testing.assert_allclose(np.stack(local["vector"].to_numpy()), np.stack(ray["vector"].to_numpy()), atol=1e-6)


def test_features_of_another_model_or_other_settings_are_not_mixed(place, tmp_path):
    embed_videos(place, "mixed")
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="fingerprint was"):
        embed_videos(place, "mixed", model=tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"stride was 4\.0, is 2"):
        embed_videos(place, "mixed", stride=2)
    save_model(tmp_path / "moved")  # the same weights elsewhere
    embed_videos(place, "mixed", model=tmp_path / "moved")


@pytest.mark.parametrize("per", ["clip", "window"])
def test_a_folder_that_notes_windows_of_clips_too_is_continued(place, tmp_path, per):
    embed_videos(place, tmp_path / "out", per=per)
    file = tmp_path / "out" / "features.json"
    about = json.loads(file.read_text())
    assert ("window" in about) == (per == "window")
    file.write_text(json.dumps(about | {"window": 2.0, "hop": 1.0}))
    embed_videos(place, tmp_path / "out", per=per)
    if per == "window":
        with pytest.raises(CheckpointError, match=r"hop was 1\.0, is 0\.5"):
            embed_videos(place, tmp_path / "out", per=per, hop=0.5)


def test_settings_without_sense_leave_nothing_behind(place, tmp_path):
    for options in ({"layer": 9}, {"batch_size": 0}, {"hop": 0}, {"actors": 0}):
        with pytest.raises(ValueError, match="must be"):
            embed_videos(place, tmp_path / "refused", **options)
    assert not (tmp_path / "refused").exists()


def test_a_resume_with_npy_or_other_labels_is_refused(place, tmp_path):
    videos = place / "videos"
    name = one_video(place).relative_to(videos).as_posix()
    (videos / "labels.csv").write_text(f"path,label\n{name},a\n")
    first = {"data": "videos/labels.csv", "out": tmp_path / "out"}
    embed_videos(place, **first)
    with pytest.raises(CheckpointError, match="npy was False, is True"):
        embed_videos(place, **first, npy=True)
    (videos / "labels.csv").write_text(f"path,label\n{name},b\n")
    with pytest.raises(CheckpointError, match="labels, splits or groups"):
        embed_videos(place, **first)


def test_a_file_that_was_repaired_is_read_on_the_next_run(place, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    both = {"data": tmp_path / "videos", "out": tmp_path / "out"}
    assert list(embed_videos(place, **both)) == ["a.mp4"]
    (tmp_path / "videos" / "a.mp4").write_bytes(one_video(place).read_bytes())
    assert embed_videos(place, **both) == {}
    assert read_features(tmp_path / "out").num_rows == 1
    assert not (tmp_path / "out" / "unreadable.csv").exists()


def test_parts_are_small_enough_to_share_whoever_writes_them(place, monkeypatch, tmp_path):
    monkeypatch.undo()
    assert [part_size(n, "clip") for n in (1, 6, 100, 512, 10_000)] == [1, 1, 6, 32, 32]
    assert [part_size(n, "window") for n in (1, 100, 512, 10_000)] == [1, 1, 8, 8]
    embed_videos(place, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "features.json").read_text())
    assert (about["part_videos"], about["parts"], about["format"]) == (1, 6, FORMAT)
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 6


def test_npy_of_a_manifest_with_absolute_paths_stays_in_its_folder(place, tmp_path):
    shutil.copy(one_video(place), tmp_path / "video.mp4")
    (tmp_path / "list.csv").write_text(f"path\n{tmp_path / 'video.mp4'}\n")
    embed_videos(place, tmp_path / "out", data=tmp_path / "list.csv", npy=True)
    expected = (tmp_path / "out" / "npy").joinpath(*tmp_path.parts[1:]) / "video.npy"
    assert list(tmp_path.rglob("*.npy")) == [expected]


def test_features_of_another_precision_are_others(place, monkeypatch):
    """Those of float32 are as ever; the encoder's inner layers are computed in it, too."""
    embed_videos(place, "exact")
    assert "dtype" not in stored_settings(place / "exact")
    monkeypatch.setattr("videomae.inference.engines.pytorch.compute_dtype", lambda *given: torch.bfloat16)
    with pytest.raises(CheckpointError, match="dtype was None, is 'bfloat16'"):
        embed_videos(place, "exact")
    for layer in (-1, 1):
        embed_videos(place, f"half{layer}", layer=layer)
        embed_videos(place, f"whole{layer}", layer=layer, dtype="float32")
        half, whole = (np.stack(read_features(place / f"{n}{layer}")["vector"].to_numpy()) for n in ("half", "whole"))
        assert not np.array_equal(half, whole)
        np.testing.assert_allclose(half, whole, atol=0.1)


def test_the_next_batch_is_decoded_while_the_model_looks_at_one(place, monkeypatch):
    manifest = read_manifest(place / "videos")
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    read, reads_third = embedder.clips, threading.Event()

    def clips(reader, sample, kind):
        if sample is manifest.samples[2]:
            reads_third.set()
        return read(reader, sample, kind)

    def encode(pixels, layer):
        assert reads_third.wait(60), "nothing is decoded meanwhile"
        return np.zeros((len(pixels), 8, 4))

    monkeypatch.setattr(embedder, "clips", clips)
    monkeypatch.setattr(embedder, "encode", encode)
    assert len(list(_embed_all(manifest.samples[:4], embedder, FeatureKind(), 2))) == 4

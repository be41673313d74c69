"""Features: they are the model's tokens, whatever stops a run in between changes nothing, and they can be asked."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support import run_two_ranks
from videomae import VideoMAEConfig, VideoMAEForPreTraining
from videomae.cli import run as videomae
from videomae.data.manifest import Manifest, Sample
from videomae.data.settings import DataSettings
from videomae.errors import CheckpointError, DataError
from videomae.inference import feature_store as embedding
from videomae.inference.embedder import VideoEmbedder
from videomae.inference.feature_store import EmbedSettings, embed, npy_names, part_size, read_features
from videomae.inference.probe import ProbeSettings, probe
from videomae.inference.probe import load as load_features
from videomae.inference.search import SearchSettings, search
from videomae.plots.contact_sheet import _frames
from videomae.training.runs import make_processor
from videomae.video.reader import VideoReader, _PyAV
from videomae.video.synthetic import MOTIONS, write_motion_videos
from videos import write_video as write_stamped

SIZES = {
    "image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
}  # fmt: skip
STATISTICS = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)


def save_model(path, *, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = VideoMAEForPreTraining(VideoMAEConfig(use_mean_pooling=False, **SIZES))
    model.save_pretrained(path)
    make_processor(model.config, STATISTICS).save_pretrained(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and a video of each of the 6 motions, 32 frames at 16 fps."""
    place = tmp_path_factory.mktemp("embed")
    write_motion_videos(place / "videos", per_class=1, size=32)
    save_model(place / "model")
    return place


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embedding, "part_size", lambda num_videos, per: 2)


def settings(place, out, **options) -> EmbedSettings:
    return EmbedSettings(DataSettings(place / "videos"), place / out, str(place / "model"), device="cpu", **options)


def one_video(place):
    return next((place / "videos").rglob("*.mp4"))


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


def test_times_of_a_file_whose_stamps_begin_later_are_its_own(place, tmp_path):
    frames = np.full((64, 32, 32, 3), 20, np.uint8)
    frames[32:] = 235
    late = write_stamped(tmp_path / "late.mkv", frames, fps=16, times=[100 + i / 16 for i in range(64)])
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    assert embedder(late, per="window", window=1.0, hop=1.0).starts.tolist() == [100, 101, 102, 103]
    strip = np.asarray(_frames(str(late), 101.0, 103.0))
    assert strip[:, :90].mean() < 60
    assert strip[:, -90:].mean() > 200


def test_windows_hold_the_pixels_of_a_batch_and_the_next_only(place, monkeypatch):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    made, held, encode = [], [], embedder.encode
    prepare = embedder._prepare
    monkeypatch.setattr(embedder, "_prepare", lambda clip: made.append(1) or prepare(clip))
    monkeypatch.setattr(embedder, "encode", lambda clips, layer: held.append(len(made)) or encode(clips, layer))
    assert len(embedder(one_video(place), per="window", window=0.5, hop=0.25, batch_size=2).vectors) == 7
    assert len(held) == 4
    assert all(2 * (i + 1) <= made_by_then <= 2 * (i + 2) for i, made_by_then in enumerate(held[:3]))


def test_a_stretch_without_frames_is_one_bad_video_also_with_windows(place, tmp_path):
    name = one_video(place).relative_to(place / "videos").as_posix()
    (place / "videos" / "stretches.csv").write_text(f"path,start,end\n{name},0.5,1.5\n{name},7,8\n")
    for per, starts in (("clip", None), ("window", [0.5, 1.0])):
        options = {"per": per, "window": 0.5, "hop": 0.5}
        s = EmbedSettings(
            DataSettings(place / "videos" / "stretches.csv"),
            tmp_path / per,
            str(place / "model"),
            device="cpu",
            **options,
        )
        assert "no frame between 7" in embed(s)[name]
        if starts:
            assert read_features(tmp_path / per)["start"].to_pylist() == starts


@pytest.mark.parametrize("options", [{"hop": 0}, {"hop": -1}, {"window": 0}, {"window": float("nan")}])
def test_windows_without_sense_are_refused(place, options):
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    with pytest.raises(ValueError, match="above 0"):
        embedder(one_video(place), per="window", **options)


def test_a_run_that_was_killed_goes_on_and_ends_as_if_undisturbed(place, monkeypatch):
    embed(settings(place, "whole", npy=True))
    write, written = embedding.write_part, []

    def killed(number, *arguments):
        if number == 1:
            raise KeyboardInterrupt
        written.append(number)
        write(number, *arguments)

    monkeypatch.setattr(embedding, "write_part", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            embed(settings(place, "stopped"))
    assert written == [0]
    monkeypatch.setattr(embedding, "write_part", write)
    embed(settings(place, "stopped"))
    whole = read_features(place / "whole")
    assert whole.equals(read_features(place / "stopped"))
    assert whole.num_rows == 6
    assert set(whole["label"].to_pylist()) == set(MOTIONS)
    first = whole["path"][0].as_py()
    stem = first.removesuffix(".mp4")
    assert np.array_equal(np.load(place / "whole" / "npy" / f"{stem}.npy")[0], whole["vector"].to_numpy()[0])


def test_two_ranks_write_what_one_does(place, monkeypatch):
    embed(settings(place, "one"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        embed(settings(place, "two"))
        parts = sorted(int(file.stem) for file in (place / "two" / "parts").iterdir())
        assert parts == ([0, 2] if rank == "0" else [0, 1, 2])
    assert read_features(place / "one").equals(read_features(place / "two"))


def test_ray_writes_what_a_local_run_does(place):
    pytest.importorskip("ray")
    script = (
        "import sys; from videomae.commands import embed as e; import tyro; "
        "sys.exit(e.main(tyro.cli(e.EmbedSettings, args=sys.argv[1:])))"
    )
    common = [sys.executable, "-c", script, "videos", "--model", "model", "--device", "cpu"]
    quiet = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    for out, more in (("local", []), ("ray", ["--engine", "ray"])):
        done = subprocess.run([*common, "--out", out, *more], cwd=place, env=quiet, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    local, ray = read_features(place / "local"), read_features(place / "ray")
    assert local.drop("vector").equals(ray.drop("vector"))
    np.testing.assert_allclose(np.stack(local["vector"].to_numpy()), np.stack(ray["vector"].to_numpy()), atol=1e-6)


def test_bad_files_are_listed_and_show_in_the_exit_code(place, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (videos / name).write_bytes(b"" if name == "b.mp4" else one_video(place).read_bytes())
    arguments = ("embed", str(videos), "--model", str(place / "model"), "--out", str(tmp_path / "out"))
    assert videomae((*arguments, "--json")) == 1
    printed = capsys.readouterr()
    assert "1 videos could not be read" in printed.err
    assert list(json.loads(printed.out)["unreadable"]) == ["b.mp4"]
    assert (tmp_path / "out" / "unreadable.csv").read_text().splitlines()[1].startswith("b.mp4,")
    assert read_features(tmp_path / "out")["path"].to_pylist() == ["a.mp4", "c.mp4"]


def test_features_of_another_model_or_other_settings_are_not_mixed(place, tmp_path):
    embed(settings(place, "mixed"))
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="fingerprint was"):
        embed(dataclasses.replace(settings(place, "mixed"), model=str(tmp_path / "other")))
    with pytest.raises(CheckpointError, match=r"stride was 4\.0, is 2"):
        embed(settings(place, "mixed", stride=2))
    save_model(tmp_path / "moved")  # the same weights elsewhere
    embed(dataclasses.replace(settings(place, "mixed"), model=str(tmp_path / "moved")))


def test_settings_without_sense_leave_nothing_behind(place, tmp_path):
    for options in ({"layer": 9}, {"batch_size": 0}, {"hop": 0}, {"actors": 0}):
        with pytest.raises(ValueError, match="must be"):
            embed(dataclasses.replace(settings(place, "refused"), out=tmp_path / "refused", **options))
    assert not (tmp_path / "refused").exists()


def test_a_resume_with_npy_or_other_labels_is_refused(place, tmp_path):
    videos = place / "videos"
    name = one_video(place).relative_to(videos).as_posix()
    (videos / "labels.csv").write_text(f"path,label\n{name},a\n")
    first = EmbedSettings(DataSettings(videos / "labels.csv"), tmp_path / "out", str(place / "model"), device="cpu")
    embed(first)
    with pytest.raises(CheckpointError, match="npy was False, is True"):
        embed(dataclasses.replace(first, npy=True))
    (videos / "labels.csv").write_text(f"path,label\n{name},b\n")
    with pytest.raises(CheckpointError, match="labels, splits or groups"):
        embed(first)


def test_a_file_that_was_repaired_is_read_on_the_next_run(place, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    s = EmbedSettings(DataSettings(tmp_path / "videos"), tmp_path / "out", str(place / "model"), device="cpu")
    assert list(embed(s)) == ["a.mp4"]
    (tmp_path / "videos" / "a.mp4").write_bytes(one_video(place).read_bytes())
    assert embed(s) == {}
    assert read_features(tmp_path / "out").num_rows == 1
    assert not (tmp_path / "out" / "unreadable.csv").exists()


def test_what_a_killed_write_left_is_not_read(place):
    embed(settings(place, "killed"))
    (place / "killed" / "parts" / ".0123456789ab.000001.parquet").write_bytes(b"PAR1 half")
    assert embed(settings(place, "killed")) == {}
    assert read_features(place / "killed").num_rows == 6


def test_search_finds_the_video_itself_first_and_draws_it(place, tmp_path, capsys):
    embed(settings(place, "index"))
    video = one_video(place)
    sheet = tmp_path / "sheet.png"
    common = ("--index", str(place / "index"), "--device", "cpu", "--sheet", str(sheet))
    assert videomae(("search", str(video), *common, "--top-k", "3", "--json")) == 0
    matches = json.loads(capsys.readouterr().out)["matches"]
    assert len(matches) == 3
    assert matches[0]["file"] == str(video.resolve())
    assert matches[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert matches[0]["similarity"] >= matches[1]["similarity"] >= matches[2]["similarity"]
    with Image.open(sheet) as picture:
        assert picture.height > 4 * 96
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="not the model"):
        search(SearchSettings(video, place / "index", model=str(tmp_path / "other"), device="cpu"))
    with pytest.raises(DataError, match="make them with"):
        search(SearchSettings(video, tmp_path / "nothing", device="cpu"))


def test_a_window_is_looked_for_as_a_window(place):
    embed(settings(place, "windows", per="window", window=0.5, hop=0.25))
    video = one_video(place)
    s = SearchSettings(video, place / "windows", device="cpu")
    best = search(s)[0]
    assert (best.file, best.start, best.end) == (str(video.resolve()), 0.75, 1.25)  # the middle of 2 s
    assert best.similarity == pytest.approx(1, abs=1e-6)


def test_an_index_that_is_not_complete_or_has_changed_is_not_searched(place):
    embed(settings(place, "changing"))
    video, last = one_video(place), place / "changing" / "parts" / "000002.parquet"
    s = SearchSettings(video, place / "changing", top_k=50, device="cpu")
    assert len(search(s)) == 6
    last.unlink()
    with pytest.raises(DataError, match="2 of 3 parts"):
        search(s)
    embed(settings(place, "changing"))
    assert len(search(s)) == 6


def test_stretches_of_one_video_keep_their_own_labels_and_files(place, tmp_path):
    videos = place / "videos"
    names = [file.relative_to(videos).as_posix() for file in sorted(videos.rglob("*.mp4"))]
    rows = [f"{name},{label},{start},{start + 1}" for name in names for start, label in enumerate("ab")]
    (videos / "halves.csv").write_text("\n".join(["path,label,start,end", *rows]) + "\n")
    embed(
        EmbedSettings(
            DataSettings(videos / "halves.csv"), tmp_path / "out", str(place / "model"), device="cpu", npy=True
        )
    )
    vectors, labels, _, groups = load_features(tmp_path / "out", None)
    assert labels.tolist() == ["a", "b"] * 6
    assert len(vectors) == 12
    assert len(set(groups.tolist())) == 6
    first = np.load(tmp_path / "out" / "npy" / f"{names[0].removesuffix('.mp4')}@0.0-1.0.npy")
    assert np.array_equal(first[0], vectors[0])
    with pytest.raises(DataError, match="matched by path"):
        probe(ProbeSettings(tmp_path / "out", videos / "halves.csv"))


def test_a_class_of_one_group_cannot_be_cross_validated(tmp_path):
    features = write_labelled(tmp_path, False)
    rows = [f"{i}.mp4,{'ab'[i % 2]},{'gh'[i % 2]}" for i in range(30)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    with pytest.raises(DataError, match="at least 2 groups"):
        probe(ProbeSettings(features, tmp_path / "labels.csv"))


def write_labelled(tmp_path, splits: bool, *, unreadable=()):
    """Write features of 30 videos whose vectors tell 3 classes apart, and which ones could not be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    kinds = sorted(MOTIONS)[:3]
    columns = {name: [] for name in ("path", "start", "end", "label", "split", "group", "sample", "vector")}
    for i in range(30):
        label = kinds[i % 3]
        vector = np.eye(3)[i % 3] * 4 + rng.normal(0, 0.1, 3)
        split = ("test" if i < 9 else "train") if splits else None
        for name, value in zip(columns, (f"{i}.mp4", 0.0, 1.0, label, split, f"g{i // 6}", i, vector), strict=True):
            columns[name].append(value)
    (tmp_path / "parts").mkdir()
    table = pa.table(columns).replace_schema_metadata({"unreadable": json.dumps(list(unreadable))})
    pq.write_table(table, tmp_path / "parts" / "000000.parquet")
    return tmp_path


@pytest.mark.parametrize(("splits", "protocol", "number"), [(True, "train and test", 9), (False, "5-fold", 30)])
def test_probes_learn_what_is_there(tmp_path, splits, protocol, number):
    result = probe(ProbeSettings(write_labelled(tmp_path, splits), k=3))
    assert result["knn"].top1 == result["linear"].top1 == 1.0
    assert result["protocol"].startswith(protocol)
    assert result["num_videos"] == number


def test_a_probe_takes_labels_from_a_manifest_and_misses_none(tmp_path, capsys):
    features = write_labelled(tmp_path, False)
    rows = [f"{i}.mp4,{'ab'[i % 2]}" for i in range(30)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    assert videomae(("probe", str(features), str(tmp_path / "labels.csv"), "--json")) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["a", "b"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows[:-1]]) + "\n")
    with pytest.raises(DataError, match=r"lacks 1 .*29\.mp4"):
        probe(ProbeSettings(features, tmp_path / "labels.csv"))


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


def test_parts_are_small_enough_to_share_whoever_writes_them(place, monkeypatch, tmp_path):
    monkeypatch.undo()
    assert [part_size(n, "clip") for n in (1, 6, 100, 512, 10_000)] == [1, 1, 6, 32, 32]
    assert [part_size(n, "window") for n in (1, 100, 512, 10_000)] == [1, 1, 8, 8]
    embed(settings(place, tmp_path / "out"))
    about = json.loads((tmp_path / "out" / "features.json").read_text())
    assert (about["part_videos"], about["parts"], about["format"]) == (1, 6, embedding.FORMAT)
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 6


@pytest.mark.parametrize(
    ("videos", "names"),
    [
        (["a/b.mp4"], ["a/b"]),
        (["v.2021", "v.MOV"], ["v.2021", "v"]),
        (["a.mp4", "a.avi", "b.mp4"], ["a.mp4", "a.avi", "b"]),
        (["/data/a.mp4", "../a.mp4", "x/../../a.mp4"], ["data/a", "_/a", "x/_/_/a"]),
        (["/data/a.mp4", "data/a.mp4"], ["data/a.mp4", "data/a.mp4#1"]),
        (["a.mp4", "a.avi", "a.mp4.mkv"], ["a.mp4", "a.avi", "a.mp4#2"]),
        ([("a.mp4", None, 1.5), ("a.mp4", 1.5, None)], ["a@0.0-1.5", "a@1.5-end"]),
        ([("a.mp4", 0.1234567, 2), ("a.mp4", 0.1234568, 2)], ["a@0.1234567-2", "a@0.1234568-2"]),
        ([("a.mp4", None, 2.0), ("a.mp4", 0.0, 2.0)], ["a@0.0-2.0", "a@0.0-2.0#1"]),
    ],
)
def test_every_video_has_an_npy_file_of_its_own_below_npy(videos, names):
    rows = [(video, None, None) if isinstance(video, str) else video for video in videos]
    samples = tuple(Sample(path, Path(path), start=start, end=end) for path, start, end in rows)
    assert npy_names(Manifest(samples, (), Path())) == [f"{name}.npy" for name in names]


def test_npy_of_a_manifest_with_absolute_paths_stays_in_its_folder(place, tmp_path):
    shutil.copy(one_video(place), tmp_path / "video.mp4")
    (tmp_path / "list.csv").write_text(f"path\n{tmp_path / 'video.mp4'}\n")
    embed(
        EmbedSettings(
            DataSettings(tmp_path / "list.csv"), tmp_path / "out", str(place / "model"), device="cpu", npy=True
        )
    )
    expected = (tmp_path / "out" / "npy").joinpath(*tmp_path.parts[1:]) / "video.npy"
    assert list(tmp_path.rglob("*.npy")) == [expected]


def test_windows_of_a_stretch_are_decoded_from_near_its_start(place, tmp_path, monkeypatch):
    file = write_stamped(tmp_path / "long.mp4", np.zeros((200, 32, 32, 3), np.uint8), fps=20, gop=10, b_frames=0)
    embedder = VideoEmbedder.from_pretrained(place / "model", device="cpu")
    entries, decode_from = [], _PyAV._decode_from
    monkeypatch.setattr(_PyAV, "_decode_from", lambda self, entry: entries.append(entry) or decode_from(self, entry))
    found = embedder(Sample("long.mp4", file, start=8.0, end=9.0), per="window", window=0.5, hop=0.5)
    assert found.starts.tolist() == [8.0, 8.5]
    assert entries[-1] >= 150


def test_seconds_may_be_written_with_their_unit(place, tmp_path, capsys):
    common = ("embed", str(place / "videos"), "--model", str(place / "model"), "--device", "cpu", "--per", "window")
    for name, times in (("plain", ("1", "0.5")), ("unit", ("1s", "0.5s"))):
        out = ("--out", str(tmp_path / name), "--window", times[0], "--hop", times[1])
        assert videomae((*common, *out)) == 0
    assert read_features(tmp_path / "plain").equals(read_features(tmp_path / "unit"))
    with pytest.raises(SystemExit):
        videomae((*common, "--out", str(tmp_path / "bad"), "--window", "two"))
    assert "write it as 2s or 2" in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_parts_is_taken_for_other_settings(place, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "features.json").write_text('{"per": "token"}')
    embed(settings(place, tmp_path / "out"))
    assert read_features(tmp_path / "out").num_rows == 6


def test_the_first_of_two_processes_prints_all_that_could_not_be_read(place, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(4):
        (videos / f"{i}.mp4").write_bytes(one_video(place).read_bytes() if i % 3 else b"")
    command = [sys.executable, "-m", "videomae", "embed", str(videos), "--model", str(place / "model")]
    command += ["--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    codes, (first, second), errors = run_two_ranks(command)
    assert codes == [1, 0], errors
    assert second == ""
    assert list(json.loads(first)["unreadable"]) == ["0.mp4", "3.mp4"]


LOST = [
    {"path": f"lost-{split}.mp4", "label": sorted(MOTIONS)[0], "split": split, "group": None, "reason": "damaged"}
    for split in ("test", "train")
]


def test_videos_that_could_not_be_read_stop_a_probe_or_count_as_wrong(tmp_path, capsys):
    features = write_labelled(tmp_path, True, unreadable=LOST)
    with pytest.raises(
        DataError, match=r"2 videos could not be read .*lost-test\.mp4, lost-train\.mp4.*--on-bad wrong"
    ):
        probe(ProbeSettings(features, k=3))
    assert videomae(("probe", str(features), "--k", "3", "--on-bad", "wrong", "--json")) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["num_videos"], result["num_unreadable"]) == (10, 2)
    assert result["knn"]["top1"] == result["linear"]["top1"] == 0.9


def test_in_cross_validation_every_video_that_could_not_be_read_is_wrong(tmp_path):
    features = write_labelled(tmp_path, False, unreadable=[video | {"split": None} for video in LOST])
    result = probe(ProbeSettings(features, k=3, on_bad="wrong"))
    assert (result["num_videos"], result["linear"].top1) == (32, 30 / 32)


def test_videos_of_an_index_may_have_moved(place, tmp_path, capsys):
    shutil.copytree(place / "videos", tmp_path / "videos")
    embed(EmbedSettings(DataSettings(tmp_path / "videos"), tmp_path / "index", str(place / "model"), device="cpu"))
    (tmp_path / "videos").rename(tmp_path / "moved")
    common = ("search", str(one_video(place)), "--index", str(tmp_path / "index"), "--device", "cpu", "--json")
    sheet = ("--sheet", str(tmp_path / "sheet.png"))
    assert videomae((*common, *sheet)) == 1
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["matches"]) == 6
    assert "no sheet was drawn" in printed.err
    assert "--root" in printed.err
    assert not (tmp_path / "sheet.png").exists()
    assert videomae((*common, *sheet, "--root", str(tmp_path / "moved"))) == 0
    assert json.loads(capsys.readouterr().out)["matches"][0]["file"].startswith(str(tmp_path / "moved"))
    assert (tmp_path / "sheet.png").exists()


def test_an_index_of_another_version_is_not_searched(place, tmp_path):
    embed(settings(place, tmp_path / "index"))
    stored = tmp_path / "index" / "features.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"format": 1}))
    with pytest.raises(DataError, match="another version"):
        search(SearchSettings(one_video(place), tmp_path / "index", device="cpu"))

"""Features: they are the model's tokens, whatever stops a run in between changes nothing, and they can be asked."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from videomae import VideoMAEConfig, VideoMAEForPreTraining
from videomae.cli import run as videomae
from videomae.errors import CheckpointError, DataError
from videomae.tasks import embed as embedding
from videomae.tasks.embed import EmbedSettings, VideoEmbedder, embed, read_features
from videomae.tasks.probe import ProbeSettings, probe
from videomae.tasks.runs import make_processor
from videomae.tasks.search import SearchSettings, search
from videomae.video.reader import VideoReader
from videomae.video.synthetic import MOTIONS, write_motion_videos

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
    monkeypatch.setattr(embedding, "PART_VIDEOS", 2)


def settings(place, out, **options) -> EmbedSettings:
    return EmbedSettings(place / "videos", place / out, str(place / "model"), device="cpu", **options)


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
    monkeypatch.undo()
    monkeypatch.setattr(embedding, "PART_VIDEOS", 2)
    embed(settings(place, "stopped"))
    whole = read_features(place / "whole")
    assert whole.equals(read_features(place / "stopped"))
    assert whole.num_rows == 6
    assert set(whole["label"].to_pylist()) == set(MOTIONS)
    first = whole["path"][0].as_py()
    assert np.array_equal(np.load(place / "whole" / "npy" / f"{first}.npy")[0], whole["vector"].to_numpy()[0])


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
        "import sys; from videomae.tasks import embed as e; import tyro; "
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


def write_labelled(tmp_path, splits: bool):
    """Write features of 30 videos whose vectors tell 3 classes apart."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    kinds = sorted(MOTIONS)[:3]
    columns = {name: [] for name in ("path", "start", "end", "label", "split", "group", "vector")}
    for i in range(30):
        label = kinds[i % 3]
        vector = np.eye(3)[i % 3] * 4 + rng.normal(0, 0.1, 3)
        split = ("test" if i < 9 else "train") if splits else None
        for name, value in zip(columns, (f"{i}.mp4", 0.0, 1.0, label, split, f"g{i // 6}", vector), strict=True):
            columns[name].append(value)
    (tmp_path / "parts").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "parts" / "000000.parquet")
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

"""Search: the video itself comes first, and only a whole index of the same model is searched."""

import json

import pytest

from feature_folders import embed_videos, make_place, one_video
from videomae.errors import DataError
from videomae.inference.search import search


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("videomae.inference.embed.part_size", lambda num_videos, per: 2)


def test_a_window_is_looked_for_as_a_window(place):
    embed_videos(place, "windows", per="window", window=0.5, hop=0.25)
    video = one_video(place)
    best = search(video, place / "windows", device="cpu")[0]
    assert (best.file, best.start, best.end) == (str(video.resolve()), 0.75, 1.25)  # the middle of 2 s
    assert best.similarity == pytest.approx(1, abs=1e-6)


def test_an_index_that_is_not_complete_or_has_changed_is_not_searched(place):
    embed_videos(place, "changing")
    video, last = one_video(place), place / "changing" / "parts" / "000002.parquet"
    asked = {"query": video, "index": place / "changing", "top_k": 50, "device": "cpu"}
    assert len(search(**asked)) == 6
    last.unlink()
    with pytest.raises(DataError, match="2 of 3 parts"):
        search(**asked)
    embed_videos(place, "changing")
    assert len(search(**asked)) == 6


def test_an_index_of_another_version_is_not_searched(place, tmp_path):
    embed_videos(place, tmp_path / "index")
    stored = tmp_path / "index" / "features.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"format": 1}))
    with pytest.raises(DataError, match="another version"):
        search(one_video(place), tmp_path / "index", device="cpu")

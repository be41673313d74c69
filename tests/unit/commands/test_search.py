"""``videomae search``: what it prints and draws."""

import json
import shutil

import pytest
from PIL import Image

from feature_folders import embed_videos, make_place, one_video, save_model
from videomae.cli import run as videomae
from videomae.errors import CheckpointError, DataError
from videomae.inference.search import search


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


def test_videos_of_an_index_may_have_moved(place, tmp_path, capsys):
    shutil.copytree(place / "videos", tmp_path / "videos")
    embed_videos(place, tmp_path / "index", data=tmp_path / "videos")
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


def test_search_finds_the_video_itself_first_and_draws_it(place, tmp_path, capsys):
    embed_videos(place, "index")
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
        search(video, place / "index", model=tmp_path / "other", device="cpu")
    with pytest.raises(DataError, match="make them with"):
        search(video, tmp_path / "nothing", device="cpu")

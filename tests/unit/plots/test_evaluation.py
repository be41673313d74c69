import csv
import json

import numpy as np
import pytest

from videomae.inference.metrics import VideoScores, summarize
from videomae.plots.evaluation import plot_confusion, write_evaluation, write_predictions

CLASSES = ("cat", "dog", "emu")
SCORES = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
LABELS = [0, 0, 1, 2]


def video(i, scores, label, **options):
    scores = np.array(scores, np.float32)
    return VideoScores(f"{i}.mp4", label, scores, np.array([2, scores.argmax()]), **options)


def table(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def four():
    return [video(i, s, label) for i, (s, label) in enumerate(zip(SCORES, LABELS, strict=True))]


def test_saved_files_hold_the_figures_and_every_prediction(tmp_path):
    bad = VideoScores("bad, with comma.mp4", 2, None, None, error="empty")
    result = summarize([*four(), bad], CLASSES, about={"model": "m"})
    assert {file.name for file in write_evaluation(result, tmp_path)} == {file.name for file in tmp_path.iterdir()}
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored == json.loads(json.dumps(result.to_dict()))
    assert (stored["model"], stored["num_videos"]) == ("m", 5)
    rows = table(tmp_path / "predictions.csv")
    assert rows[1]["path"] == "1.mp4"
    assert (rows[1]["label"], rows[1]["predicted"], rows[1]["score:dog"]) == ("cat", "dog", "0.7")
    assert (rows[4]["path"], rows[4]["predicted"], rows[4]["error"]) == ("bad, with comma.mp4", "", "empty")
    confusion = table(tmp_path / "confusion.csv")
    assert confusion[0] == {"true \\ predicted": "cat", "cat": "1", "dog": "1", "emu": "0"}
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_stretches_of_one_file_are_told_apart(tmp_path):
    videos = [video("long", SCORES[0], 0, start=0.0, end=2.0), video("long", SCORES[1], 1, start=2.0)]
    write_predictions(summarize(videos, CLASSES), tmp_path / "p.csv")
    rows = table(tmp_path / "p.csv")
    assert [(row["path"], row["start"], row["end"]) for row in rows] == [
        ("long.mp4", "0.0", "2.0"),
        ("long.mp4", "2.0", ""),
    ]


@pytest.mark.parametrize("number", [2, 30, 70])
def test_a_confusion_matrix_of_any_size_is_drawn(number, tmp_path):
    figure = plot_confusion(np.eye(number, dtype=np.int64), [f"class ${i}" for i in range(number)])
    figure.savefig(tmp_path / "figure.png", dpi=30)
    assert len(figure.axes[0].texts) == (2 if number == 2 else 0)

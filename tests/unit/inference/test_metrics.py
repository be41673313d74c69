import numpy as np
import pytest

from videomae.errors import DataError
from videomae.inference.metrics import VideoScores, accuracy_interval, summarize

CLASSES = ("cat", "dog", "emu")
SCORES = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
LABELS = [0, 0, 1, 2]


def video(i, scores, label, **options):
    scores = np.array(scores, np.float32)
    return VideoScores(f"{i}.mp4", label, scores, np.array([2, scores.argmax()]), **options)


def four():
    return [video(i, s, label) for i, (s, label) in enumerate(zip(SCORES, LABELS, strict=True))]


def test_figures_are_those_computed_by_hand():
    result = summarize(four(), CLASSES)
    assert result.top1 == 0.75
    assert result.top5 == 1.0
    assert result.mean_class_accuracy == pytest.approx((0.5 + 1 + 1) / 3)
    assert result.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert result.accuracy_by_views == (0.25, 0.75)
    cat, dog, _ = result.per_class
    assert (cat.videos, cat.correct, cat.accuracy, cat.precision) == (2, 1, 0.5, 1.0)
    assert (dog.videos, dog.correct, dog.accuracy, dog.precision) == (1, 1, 1.0, 0.5)
    # Each confidence, .6 .7 .8 .4, lies in a bin of its own but for rounding at the edges: |.6-1| |.7-0| |.8-1| |.4-1|.
    assert result.ece == pytest.approx((0.4 + 0.7 + 0.2 + 0.6) / 4, abs=1e-6)


def test_the_true_class_counts_among_the_best_five():
    scores = [[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]] * 2
    videos = [video(i, s, label) for i, (s, label) in enumerate(zip(scores, (4, 5), strict=True))]
    assert summarize(videos, tuple("abcdef")).top5 == 0.5


def test_an_unreadable_video_counts_as_wrong_in_every_share():
    bad = VideoScores("bad.mp4", 2, None, None, error="empty")
    result = summarize([*four(), bad], CLASSES)
    assert (result.num_videos, result.num_unreadable) == (5, 1)
    assert (result.top1, result.top5) == (pytest.approx(0.6), pytest.approx(0.8))
    assert result.accuracy_by_views == (pytest.approx(0.2), pytest.approx(0.6))
    assert result.mean_class_accuracy == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert result.per_class[2].videos == 2
    assert result.confusion.sum() == 4
    assert result.to_dict()["unreadable"] == {"bad.mp4": "empty"}


def test_nothing_readable_is_an_error():
    with pytest.raises(DataError, match="none of 1 videos could be read"):
        summarize([VideoScores("bad.mp4", 0, None, None, error="empty")], CLASSES)


def test_a_class_without_videos_does_not_count():
    result = summarize(four()[:3], CLASSES)
    assert result.mean_class_accuracy == pytest.approx(0.75)
    assert result.per_class[2].accuracy is None
    assert result.per_class[2].precision is None


def test_scores_that_round_above_one_are_still_probabilities():
    """They would lie in a bin of their own."""
    videos = [video(i, s, 0) for i, s in enumerate([[1.0000001, 0, 0], [0.9, 0.1, 0]])]
    assert summarize(videos, CLASSES).ece == pytest.approx(0.05, abs=1e-6)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"scores of '1\.mp4' are not finite"):
        summarize([*four()[:1], video(1, [np.nan, 0, 0], 0)], CLASSES)


def test_the_interval_is_that_of_the_binomial_distribution():
    """Resampling independent videos draws the number of right ones from Binomial(N, p)."""
    right = np.arange(400) < 300
    (low, high), method = accuracy_interval(right, range(400), confidence=0.95, seed=0)
    width = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == (pytest.approx(0.75 - width, abs=0.006), pytest.approx(0.75 + width, abs=0.006))
    assert method == "bootstrap, 2000 resamples of 400 videos, seed 0"
    assert accuracy_interval(right, range(400), confidence=0.95, seed=0)[0] == (low, high)
    assert accuracy_interval(right, range(400), confidence=0.5, seed=0)[0] > (low, 0)


def test_clips_of_one_source_are_not_independent():
    right = np.arange(400) < 300
    alone, _ = accuracy_interval(right, range(400), confidence=0.95, seed=0)
    together, method = accuracy_interval(right, [i // 20 for i in range(400)], confidence=0.95, seed=0)
    assert "20 groups" in method
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_all_right_does_not_mean_certain():
    (low, high), method = accuracy_interval(np.ones(10, bool), range(10), confidence=0.95, seed=0)
    assert (low, high) == (pytest.approx(0.025**0.1), 1.0)
    assert method == "exact, 10 videos"
    assert accuracy_interval(np.zeros(10, bool), range(10), confidence=0.95, seed=0)[0] == (0.0, pytest.approx(1 - low))


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_outside_0_to_1_is_refused(confidence):
    with pytest.raises(ValueError, match=r"between 0 and 1, e\.g\. 0\.95"):
        accuracy_interval(np.ones(3, bool), range(3), confidence=confidence, seed=0)

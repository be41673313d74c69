"""Pictures of explanations."""

import numpy as np

from videomae.inference.explain import Explanation
from videomae.plots.explanation import animate, draw, heat_maps


def test_one_scale_of_colours_holds_for_the_clip_and_an_even_map_is_dull():
    shares = np.zeros((2, 4, 4), np.float32)
    shares[1, 2, 2] = 1
    black = np.zeros((4, 32, 32, 3), np.uint8)
    sharp = heat_maps(Explanation("a", 0.5, "a", "relevance", shares, black))
    even = heat_maps(Explanation("a", 0.5, "a", "relevance", np.full((2, 4, 4), 1 / 32, np.float32), black))
    assert sharp.shape == even.shape == (4, 32, 32, 3)
    assert sharp[:2].max() < 10
    assert sharp[3].argmax() // 3 in (32 * row + column for row in range(16, 24) for column in range(16, 24))
    assert np.ptp(even.reshape(-1, 3), axis=0).max() == 0
    assert even.max() < sharp.max()


def test_pictures_show_every_slot():
    shares = np.full((9, 2, 2), 1 / 36, np.float32)
    found = Explanation("a", 0.5, "b", "relevance", shares, np.zeros((9, 16, 24, 3), np.uint8))
    figure = draw(found, title="x.mp4")
    assert len(figure.axes) == 2 * 9 + 2
    assert figure.get_suptitle() == "x.mp4\na (50.0%); predicted is b"
    frames = animate(found)
    assert len(frames) == 9
    assert all(side % 2 == 0 for side in frames.shape[1:3])

"""Pictures of reconstructions."""

import numpy as np

from videomae.inference.reconstruct import Reconstruction
from videomae.plots.reconstruction import draw, side_by_side


def test_pictures_have_a_row_for_each_view():
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    result = Reconstruction(frames, frames, frames, frames, np.array([0.1, 0.2]), 0.3)
    assert len(draw(result).axes) == 4 * 4 + 1
    assert side_by_side(result).shape[0] == 4


def test_dollar_signs_in_a_file_name_are_no_formula(tmp_path):
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    result = Reconstruction(frames, frames, frames, None, np.array([0.1, 0.2]), 0.3)
    draw(result, title="a$b_$.mp4").savefig(tmp_path / "a.png")

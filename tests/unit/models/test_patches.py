"""Tubelets: what is cut can be put together again."""

import torch

from videomae.models.patches import cut_tubelets, unpatchify


def test_tubelets_put_together_are_the_clips_they_were_cut_from():
    clips = torch.arange(2 * 4 * 3 * 6 * 8).view(2, 4, 3, 6, 8)
    tubelets = cut_tubelets(clips, (2, 3, 2))
    assert tubelets.shape == (2, 16, 3, 2, 3, 2)
    assert torch.equal(unpatchify(tubelets, (2, 2, 4)), clips)

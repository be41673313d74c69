import pytest
import torch

from videomae.models.masking import (
    MASKS,
    check_mask,
    count_masked,
    frame_mask,
    random_mask,
    running_cell_mask,
    split_indices,
    tube_mask,
)

GRID = (8, 14, 14)


def test_a_tube_mask_hides_the_same_places_in_every_slot():
    mask = tube_mask(GRID, 0.9, batch_size=3)
    slots = mask.view(3, 8, 196)
    assert (slots == slots[:, :1]).all()
    assert mask.sum(1).tolist() == [1408] * 3
    assert not torch.equal(mask[0], mask[1])


def test_a_random_mask_hides_the_floor_of_its_ratio():
    assert random_mask(GRID, 0.75, batch_size=2).sum(1).tolist() == [1176, 1176]


def test_a_frame_mask_hides_whole_slots():
    slots = frame_mask(GRID, 0.5, batch_size=2).view(2, 8, 196)
    assert (slots.all(2) | ~slots.any(2)).all()
    assert slots.all(2).sum(1).tolist() == [4, 4]


def test_a_running_cell_mask_hides_half_of_every_cell_and_moves_on():
    mask = running_cell_mask(GRID, batch_size=5).view(5, 8, 7, 2, 7, 2)
    assert (mask.sum((3, 5)) == 2).all()
    assert (mask[:, 1:] != mask[:, :-1]).any()


@pytest.mark.parametrize("name", MASKS)
def test_a_seed_repeats_a_mask(name):
    draw = [MASKS[name](GRID, 0.5, batch_size=4, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draw)
    assert draw[0].dtype == torch.bool


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.0001, -0.5, 1.5])
@pytest.mark.parametrize("mask", [tube_mask, random_mask, frame_mask])
def test_a_ratio_that_hides_nothing_or_everything_is_refused(mask, ratio):
    with pytest.raises(ValueError, match=f"mask ratio of {ratio} hides"):
        mask(GRID, ratio)


def test_a_running_cell_needs_an_even_grid_and_quarters():
    with pytest.raises(ValueError, match="even height and width"):
        running_cell_mask((8, 7, 14))
    with pytest.raises(ValueError, match=r"0\.25, 0\.5 or 0\.75"):
        running_cell_mask(GRID, 0.6)


def test_a_ragged_mask_is_refused():
    """Reshaping a ragged mask would silently move tokens between clips."""
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[0, :5] = mask[1, :3] = True
    with pytest.raises(ValueError, match=r"the same number of tubelets, got \[5, 3\]"):
        count_masked(mask)


def test_int_masks_wrong_shapes_and_full_masks_are_refused():
    with pytest.raises(TypeError, match=r"must be a bool tensor.*int64"):
        check_mask(torch.ones(1, 8, dtype=torch.int64), batch_size=1, num_tubelets=8)
    with pytest.raises(ValueError, match=r"\(1, 8\), got \(1, 9\)"):
        check_mask(torch.zeros(1, 9, dtype=torch.bool), batch_size=1, num_tubelets=8)
    with pytest.raises(ValueError, match="nothing is left to see"):
        count_masked(torch.ones(1, 8, dtype=torch.bool))


def test_indices_are_those_of_the_mask_in_order():
    mask = random_mask((4, 4, 4), 0.7, batch_size=3)
    visible, masked = split_indices(mask, 44)
    for row, (seen, hidden) in enumerate(zip(visible, masked, strict=True)):
        assert torch.equal(seen, (~mask[row]).nonzero()[:, 0])
        assert torch.equal(hidden, mask[row].nonzero()[:, 0])

import pytest
import torch
from torch.nn import functional as F

from videomae.config import VideoMAEConfig
from videomae.models.losses import classification_loss, weighted_cross_entropy


def test_label_smoothing_is_spread_over_all_classes():
    logits, target = torch.tensor([[0.3, -1.0, 2.0, 0.5]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    loss = weighted_cross_entropy(logits, target, torch.ones(4), label_smoothing=0.1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor([[0.025, 0.925, 0.025, 0.025]])))


def test_labels_are_taken_in_whatever_form_they_tell_one_class_per_clip():
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    config = VideoMAEConfig(num_labels=2)
    expected = classification_loss(logits, torch.tensor([0, 1, 1]), config)
    for labels in (torch.tensor([[0], [1], [1]]), torch.tensor([False, True, True])):
        assert classification_loss(logits, labels, config) == expected
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert classification_loss(logits, torch.tensor([0, 1, 1], dtype=dtype), config) == expected


def test_a_problem_type_that_was_assigned_is_checked_where_it_counts():
    """It would silently be taken for classes."""
    config = VideoMAEConfig(num_labels=2)
    config.problem_type = "multi_label"
    with pytest.raises(ValueError, match=r"problem_type must be None or one of .*, got 'multi_label'"):
        classification_loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]), config)


def test_class_weights_do_not_move_what_a_clip_is_taken_for():
    """Smoothing times a weight of 50 would be 2.5 for the rare class, against 0.5 for the one that is seen."""
    logits = torch.zeros(1, 2, requires_grad=True)
    targets, weights = torch.tensor([[1.0, 0.0]]), torch.tensor([0.5, 50.0])
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        weighted_cross_entropy(logits, targets, weights, label_smoothing=0.1).backward()
        optimizer.step()
    torch.testing.assert_close(logits.softmax(-1)[0].detach(), torch.tensor([0.95, 0.05]), atol=1e-3, rtol=0)

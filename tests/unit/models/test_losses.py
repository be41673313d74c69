import torch
from torch.nn import functional as F

from videomae.models.losses import weighted_cross_entropy


def test_label_smoothing_is_spread_over_all_classes():
    logits, target = torch.tensor([[0.3, -1.0, 2.0, 0.5]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    loss = weighted_cross_entropy(logits, target, torch.ones(4), label_smoothing=0.1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor([[0.025, 0.925, 0.025, 0.025]])))


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

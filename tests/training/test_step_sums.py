"""What a step of training adds up, mixes and clips."""

import pytest
import torch

from pcequi.training.fit import FitSettings
from pcequi.training.mixing import Mixing
from pcequi.training.step import BatchLoss, Totals, train_step


class Toy(torch.nn.Module):
    """A head on rows that are given in place of a graph."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def pooled(self, graph):
        return graph


def test_mixed_with_clouds_of_the_same_class_the_loss_is_that_of_the_class():
    toy = BatchLoss(Toy(), FitSettings(label_smoothing=0.3))
    target = torch.tensor([0, 0, 2, 2])
    mixing = Mixing(torch.tensor([1, 0, 3, 2]), torch.tensor(0.3))
    loss, logits = toy(torch.randn(4, 4), target, mixing)
    wanted = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.3)
    torch.testing.assert_close(loss, wanted)


def test_the_mean_loss_is_over_clouds_not_batches():
    totals = Totals("cpu")
    for loss, num in ((1.0, 4), (6.0, 1)):
        target = torch.zeros(num, dtype=torch.long)
        totals.add(torch.tensor(loss), torch.eye(2)[target], target, torch.tensor(1.0))
        totals.seen += num
    assert totals.read() == (2.0, 1.0, True)


@pytest.mark.parametrize("clip", [1e-3, 0.1])
def test_a_step_is_no_longer_than_the_clip(clip):
    toy = BatchLoss(Toy(), FitSettings())
    before = [p.detach().clone() for p in toy.parameters()]
    optimizer = torch.optim.SGD(toy.parameters(), lr=1.0)
    rows, target = 100 * torch.randn(6, 4), torch.arange(6) % 3
    train_step(toy, optimizer, rows, target, None, Totals("cpu"), clip=clip)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(toy.parameters(), before)])
    assert float(moved.norm()) == pytest.approx(clip, rel=1e-3)

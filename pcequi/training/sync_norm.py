"""Batch norms whose batch is spread over several processes.

Torch's own ``SyncBatchNorm`` runs on GPUs only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pcequi.ranks import Ranks

__all__ = ["SyncNorm", "synchronized_norms"]


class SyncNorm(nn.BatchNorm1d):
    """A ``BatchNorm1d`` that sees the rows of all processes while it trains.

    Each process sends its number of rows, its mean and its sum of squares about
    that mean; the formula for joining them (Chan, Golub and LeVeque, 1979) loses
    no digits to large means, as plain sums of squares would.

    Args:
        norm: whose weights and statistics are used, not copied.
        ranks: the processes.

    Shapes:
        x [n, C] -> [n, C]; n may differ from process to process.

    **Equivariance:** acts on each channel, whatever the order of the rows.
    """

    def __init__(self, norm: nn.BatchNorm1d, ranks: Ranks):
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False)
        self.affine, self.ranks = norm.affine, ranks
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        center = wide.mean(0)
        own = torch.cat([wide.new_tensor([len(x)]), center, (wide - center).square().sum(0)])
        num, centers, spreads = self.ranks.gather(own[None], even=True).split(
            [1, self.num_features, self.num_features], 1
        )
        total = num.sum()
        mean = (num * centers).sum(0) / total
        spread = (spreads + num * (centers - mean).square()).sum(0)
        self._track(mean.detach(), spread.detach() / (total - 1))
        scale = self.weight * (spread / total + self.eps).rsqrt()
        return ((wide - mean) * scale + self.bias).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        part = self.momentum
        if part is None:  # the plain mean of all batches
            part = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        self.running_var.lerp_(var.to(self.running_var.dtype), part)


@contextmanager
def synchronized_norms(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Batch norms outside the head see the batch of all processes inside the block.

    Weights, statistics and their names stay; the plain norms come back
    afterwards. The head sees the whole batch on every process as it is. One
    process by itself changes nothing.

    Args:
        model: a ``GroupConvClassifier``.
        ranks: the processes.

    **Equivariance:** leaves the network's own in place.
    """
    swapped = []
    if ranks.size > 1:
        head = set(model.head.modules())
        for parent in [module for module in model.modules() if module not in head]:
            for name, norm in parent.named_children():
                if isinstance(norm, nn.BatchNorm1d) and norm not in head:
                    swapped.append((parent, name, norm))
    for parent, name, norm in swapped:
        setattr(parent, name, SyncNorm(norm, ranks))
    try:
        yield
    finally:
        for parent, name, norm in swapped:
            norm.train(getattr(parent, name).training)
            setattr(parent, name, norm)

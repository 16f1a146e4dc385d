"""Clouds mixed in pairs while training: no graph is built again for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Mixing", "draw_mixing", "mix"]


class Mixing(NamedTuple):
    """How a batch's clouds are mixed in pairs.

    Attributes:
        other: the second cloud of each pair [G].
        share: of the first, one number [].

    **Equivariance:** does not apply.
    """

    other: Tensor
    share: Tensor


def draw_mixing(parameter: float, size: int, device: torch.device | str = "cpu") -> Mixing | None:
    """One share s of Beta(a, a) and one permutation p for a batch.

    Args:
        parameter: a; 0 mixes nothing.
        size: clouds.
        device: where p and s go.

    Returns:
        p and s; None where nothing is mixed.

    **Equivariance:** does not apply.
    """
    if parameter == 0:
        return None
    one = torch.tensor(float(parameter))
    share = torch.distributions.Beta(one, one).sample()
    other = torch.randperm(size, device=device)
    return Mixing(other, share.to(device, non_blocking=True))


def mix(pooled: Tensor, mixing: Mixing) -> Tensor:
    """Mix the invariant features of a batch's clouds in pairs.

    Row i [G, C] becomes s * row i + (1 - s) * row p(i); the loss is mixed likewise.

    Source: Verma et al., "Manifold mixup", ICML 2019.

    **Equivariance:** mixes invariant features: nothing about rotation changes.
    """
    share = mixing.share
    return pooled * share + pooled.index_select(0, mixing.other) * (1 - share)

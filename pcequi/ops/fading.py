"""Small values left out such that nothing jumps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["faded"]


def faded(value: Tensor, least: float, dim: int | tuple[int, ...]) -> Tensor:
    """Values without those up to a share ``least`` of the largest beside them; those up to twice
    that are let fade, so that the result is continuous.

    A value v becomes ``v * clamp(|v| / limit - 1, 0, 1)``. Left out at once, values that differ
    by rounding, as of a cloud and the same cloud turned, would differ by the limit.

    Args:
        value: any shape.
        least: from 0, which leaves all as it is.
        dim: along which the largest is looked for.

    Returns:
        The shape of ``value``.

    **Equivariance:** none involved; commutes with permutations along ``dim``.
    """
    if not least:
        return value
    size = value.abs()
    limit = (least * size.amax(dim, keepdim=True)).clamp_min(torch.finfo(size.dtype).tiny)
    return (value * (size / limit - 1).clamp(max=1)).masked_fill(size <= limit, 0)

"""Small values left out such that nothing jumps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["faded"]


def faded(value: Tensor, least: float, dim: int | tuple[int, ...]) -> Tensor:
    """Values without those up to a share ``least`` of the largest beside them; those up to a
    quarter more fade, so that the result is continuous.

    A value v becomes ``v * clamp(4 |v| / limit - 4, 0, 1)``. Left out at once, values that differ
    by rounding, as of a cloud and the same cloud turned, would differ by the limit.

    Args:
        value: any shape, of a floating type.
        least: from 0, which leaves all as it is.
        dim: along which the largest is looked for.

    Returns:
        The shape of ``value``.

    **Equivariance:** none involved; commutes with permutations along ``dim``.
    """
    if not least or not value.numel():
        return value
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    size = wide.abs()
    limit = least * size.amax(dim, keepdim=True)
    fading = (size > limit) & (size < 1.25 * limit)
    # No quotient where none is needed: its derivative may not be finite.
    share = torch.where(fading, 4 * (size / torch.where(fading, limit, 1)) - 4, 1)
    return (wide * share).masked_fill(size <= limit, 0).to(value.dtype)

"""How far an output moved, and how it should move."""

from __future__ import annotations

import math

from torch import Tensor

from pcequi.errors import ShapeError

__all__ = ["as_points", "as_vectors", "relative_change"]


def relative_change(before: Tensor, after: Tensor, *, center: bool = True) -> float:
    """How far an output moved, against how far its entries lie apart.

    The norm of ``after - before`` over the norm of ``before`` less its mean.
    The mean is taken off because a constant in all logits means nothing: it
    would make any change look small.

    Args:
        before: any tensor of at least two entries that differ.
        after: of the same shape.
        center: whether to take off the mean; not for vectors, which it would bend.

    Returns:
        The ratio; 0 if nothing moved, infinite if a constant output moved.

    Raises:
        ShapeError: the shapes differ.

    **Equivariance:** a figure about it.
    """
    if before.shape != after.shape:
        raise ShapeError(
            f"`after` (={list(after.shape)}) must have the shape of `before` "
            f"(={list(before.shape)})"
        )
    before, after = before.detach().double(), after.detach().double()
    moved = float((after - before).norm())
    spread = float((before - before.mean() if center else before).norm())
    if moved == 0:
        return 0.0
    return moved / spread if spread > 0 else math.inf


def as_vectors(out: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
    """The action on directions [..., 3]: they turn, and do not shift.

    **Equivariance:** the action itself.
    """
    return out @ rotation.T


def as_points(out: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
    """The action on positions [..., 3]: they turn and shift.

    **Equivariance:** the action itself.
    """
    return out @ rotation.T + shift

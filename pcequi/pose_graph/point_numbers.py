"""What points bring beside their places (``Level.in_channels``): whether it is there and usable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcequi.clouds import all_finite
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.pose_graph.level import Level

__all__ = ["check_numbers", "check_points_alone"]

# They go to networks in single precision, and are squared there.
_MOST = 1e15


def check_numbers(x: Tensor | None, pos: Tensor, levels: Sequence[Level]) -> Tensor | None:
    """What points bring beside their places, in float64; None where no level takes it.

    Raises:
        ArgumentError: levels take other numbers each; ``x`` is missing, or not asked for.
        ShapeError: ``x`` has not a row for each point, or other columns, or is complex or sparse.
        DataError: an entry is NaN, infinite or beyond ``_MOST``.

    **Equivariance:** does not apply.
    """
    taken = sorted({level.in_channels for level in levels} - {0})
    if len(taken) > 1:
        raise ArgumentError(
            f"`levels` take {taken} numbers of each point (`in_channels`); all that take any "
            "take the same"
        )
    if not taken and x is None:
        return None
    if not taken:
        raise ArgumentError(
            "`x` (=given) is taken by no level; make the first with in_channels=x.shape[1], or "
            "leave it out"
        )
    if x is None:
        raise ArgumentError(
            f"`x` (=None) is needed: the levels take {taken[0]} numbers of each point "
            f"(`in_channels`); give a tensor [N, {taken[0]}], of a Data its `x`"
        )
    if not isinstance(x, Tensor) or x.shape != (len(pos), taken[0]):
        shape = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(
            f"`x` (={shape}) must be a tensor [{len(pos)}, {taken[0]}]: a row for each point, and "
            "as many columns as the levels' `in_channels`"
        )
    if x.is_complex() or x.layout != torch.strided:
        raise ShapeError(f"`x` (={x.dtype}, {x.layout}) must be a dense tensor of real numbers")
    x = x.detach().to(pos.device, torch.float64)
    if not all_finite(x):
        raise DataError("`x` has entries that are NaN or infinite; remove these points")
    if x.abs().max() > _MOST:
        raise DataError(
            f"`x` reaches {float(x.abs().max()):.2g}, too far for squares of differences; scale it "
            "to about one"
        )
    return x


def check_points_alone(levels: Sequence[Level], name: str = "levels") -> None:
    """Whether levels ask for nothing but points, where nothing else is brought.

    Args:
        levels: of a network.
        name: of the argument that has them.

    Raises:
        ArgumentError: one has ``in_channels``.

    **Equivariance:** does not apply.
    """
    taken = max((level.in_channels for level in levels), default=0)
    if taken:
        raise ArgumentError(
            f"`{name}` (=with in_channels={taken}) takes {taken} numbers of each point, and here "
            "points bring none; take BuildPoseGraph, forward_online or extract_features, which "
            "read them of a Data or as `x`"
        )

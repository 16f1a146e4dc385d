"""How far a function is from equivariant: one figure a kind of motion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.errors import ArgumentError, ShapeError, check_count
from pcequi.rotations import random_rotations

__all__ = [
    "EquivarianceError",
    "as_points",
    "as_vectors",
    "equivariance_error",
    "relative_change",
]


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


@dataclass(frozen=True)
class EquivarianceError:
    """Relative changes that should be zero, one list a kind of motion.

    Attributes:
        rotation: by Haar rotations about the origin.
        translation: by shifts.
        permutation: by new orders of the points.
    """

    rotation: tuple[float, ...]
    translation: tuple[float, ...]
    permutation: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest change of all; NaN counts as infinite."""
        return max(_numbers(self.rotation + self.translation + self.permutation), default=0.0)

    def summary(self) -> dict[str, float]:
        """Worst and median of each kind, as plain values for JSON; NaN counts as infinite."""
        figures = {}
        for kind, values in vars(self).items():
            if values := _numbers(values):
                figures[f"{kind}_worst"] = max(values)
                figures[f"{kind}_median"] = statistics.median(values)
        return figures


def _numbers(values: tuple[float, ...]) -> list[float]:
    return [math.inf if math.isnan(value) else value for value in values]


def equivariance_error(
    function: Callable[[Tensor], Tensor],
    pos: Tensor | Sequence[Tensor],
    *,
    action: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    per_point: bool = False,
    num: int = 4,
    shift: float = 1.0,
    permute: bool = True,
    generator: torch.Generator | None = None,
) -> EquivarianceError:
    """Measure how far a function is from equivariant, in float64.

    The function sees each cloud as it is and moved ``num`` times in each way,
    one way at a time, so that a failure names its kind. Whatever it precomputes
    (neighbours, frames, graphs) must be made anew inside the function, or the
    check is of nothing.

    Args:
        function: from points [N, 3], float64, to a tensor; a module must have
            been moved to float64 and to ``eval()``.
        pos: a cloud [N, 3], or several.
        action: how the output should move: ``action(out, rotation, shift)`` with
            [3, 3] and [3], such as ``as_vectors``; None: not at all.
        per_point: whether the output has one row a point, which a new order of
            the points reorders.
        num: motions of each kind and cloud.
        shift: standard deviation of the shifts, in units of the cloud; 0: none.
        permute: whether to try new orders.
        generator: of the motions.

    Returns:
        The relative changes, see ``relative_change``; with an ``action``, over the
        norm of the output itself, which must not be near zero.

    Raises:
        ArgumentError: ``num`` is below 1, ``shift`` negative, or ``pos`` no cloud at all.
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** a figure about it.
    """
    check_count("num", num)
    if not shift >= 0:
        raise ArgumentError(f"`shift` (={shift}) must be 0 or more")
    eye, origin = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found: dict[str, list[float]] = {"rotation": [], "translation": [], "permutation": []}
    clouds = [pos] if isinstance(pos, Tensor) else list(pos)
    if not clouds:
        raise ArgumentError("`pos` (=[]) must be at least one cloud")
    for cloud in clouds:
        cloud = check_cloud(cloud).detach().double()
        size = float((cloud - cloud.mean(0)).norm(dim=1).max()) or 1.0
        before = function(cloud)

        def change(after, rotation=eye, moved=origin, before=before):
            if action is None:
                return relative_change(before, after)
            return relative_change(action(before, rotation, moved), after, center=False)

        for rotation in random_rotations(num, generator=generator, dtype=torch.float64):
            found["rotation"].append(change(function(cloud @ rotation.T), rotation))
        for _ in range(num if shift > 0 else 0):
            moved = torch.randn(3, generator=generator, dtype=torch.float64) * shift * size
            found["translation"].append(change(function(cloud + moved), moved=moved))
        for _ in range(num if permute else 0):
            order = torch.randperm(len(cloud), generator=generator)
            wanted = before[order] if per_point else before
            found["permutation"].append(change(function(cloud[order]), before=wanted))
    return EquivarianceError(**{kind: tuple(values) for kind, values in found.items()})

"""Levels whose sparse matrix follows from the rows of one pose a point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcequi.constants import constant
from pcequi.ops import Characters
from pcequi.orbits import basis_turns, group_products
from pcequi.pose_graph.graph import LevelGraph
from pcequi.pose_graph.level import Level
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.rotations import finite_group

__all__ = ["block_characters", "first_rows", "orbit_turns", "stored_turns"]


def orbit_turns(below: Level | None, level: Level) -> tuple[Tensor, Tensor] | None:
    """How the rows of all poses of a point follow from those of its first pose.

    They do where both levels have the same frames at all points, one base frame times
    a commutative group that permutes the kernel's points, keep whole orbits, and read
    the pose of the same rotation at each neighbour.

    Args:
        below: the level that is read; None: there is none.
        level: the level whose rows are wanted.

    Returns:
        ``turns`` [K, B] and ``products`` [K, K], as ``ops.turned_rows`` takes them; None
        where the rows of each pose have to be made.

    **Equivariance:** a constant of the settings.
    """
    if below is None or level.pairs is not None or level.kernel_rotations > 1:
        return None
    if not isinstance(below.poses, GridPoses) or not isinstance(
        level.poses, (GridPoses, CentroidPoses)
    ):
        return None
    same = (below.poses.rotations, below.poses.align) == (level.poses.rotations, level.poses.align)
    if not same or not isinstance(level.poses.rotations, str):
        return None
    for sampling in (below.sampling, level.sampling):
        if not sampling.is_dense and not sampling.orbits:
            return None
    return _commuting_turns(level.poses.rotations, level.kernel_points)


@constant
def _commuting_turns(rotations: str, num_points: int) -> tuple[Tensor, Tensor] | None:
    group = finite_group(rotations, dtype=torch.float64)
    products, turns = group_products(group), basis_turns(group, num_points)
    if turns is None or len(group) == 1 or not torch.equal(products, products.T):
        return None
    return turns, products


def stored_turns(levels: Sequence[Level]) -> list[tuple[Tensor, Tensor] | None]:
    """``orbit_turns`` of each level of which a store keeps the first poses' rows alone.

    Levels above one that does not ask for orbits are stored whole.

    **Equivariance:** a constant of the settings.
    """
    return [
        orbit_turns(below, level) if below is not None and below.sampling.orbits else None
        for below, level in zip([None, *levels], levels)
    ]


def block_characters(levels: Sequence[Level]) -> list[Characters | None]:
    """By what A is taken apart as dense blocks; None where it is kept whole.

    **Equivariance:** a constant of the settings.
    """
    return [None if turns is None else Characters.of(*turns) for turns in stored_turns(levels)]


def first_rows(level: LevelGraph, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``entries``, ``col`` and ``val`` of the first pose of each point alone.

    **Equivariance:** none involved.
    """
    first = torch.zeros(len(turns), dtype=torch.bool, device=level.weight.device)
    first[0] = True
    kept = first[:, None].expand(level.num // len(turns), -1, level.basis).flatten()
    entry = torch.repeat_interleave(kept, level.entries.long())
    return level.entries[kept], level.col[entry], level.val[entry]

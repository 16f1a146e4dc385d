"""Augmentation of pose graphs while training: no graph is built again for it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.pose_graph import LevelGraph, PoseGraph
from pcequi.ranks import ALONE, Ranks

__all__ = ["Mixing", "augment", "draw_mixing", "drop_entries", "keep_poses", "mix"]


def drop_entries(level: LevelGraph, share: float, ranks: Ranks = ALONE) -> LevelGraph:
    """Drop a random share of the entries of A and scale up the rest.

    An entry is what a pose sees of one representative in one place, so this is
    to the graph what dropping points is to the cloud.

    Args:
        level: with a sparse matrix A.
        share: in [0, 1).
        ranks: processes that share the batch, and draw for all of it.

    Raises:
        ArgumentError: ``share`` is outside its range.

    **Equivariance:** entries are drawn independently of geometry; the expected
    output is unchanged.
    """
    if not 0 <= share < 1:
        raise ArgumentError(f"`share` (={share}) must be in [0, 1)")
    if share == 0 or level.val is None:
        return level
    kept = ranks.rand_like(level.val) >= share
    return replace(level, val=level.val * kept / (1 - share))


def keep_poses(level: LevelGraph, num: int, ranks: Ranks = ALONE) -> LevelGraph:
    """Keep ``num`` random poses of each cloud, with their rows of A.

    On the last level, whose poses are global frames, a cloud must then be told
    from whichever few frames are left.

    Args:
        level: with a sparse matrix A and equally many poses in every cloud;
            any other level is returned as it is.
        num: at least 1.
        ranks: processes that share the batch, and draw for all of it.

    Raises:
        ArgumentError: ``num`` is below 1.

    **Equivariance:** poses are drawn independently of geometry.
    """
    if num < 1:
        raise ArgumentError(f"`num` (={num}) must be at least 1")
    count = level.count
    if level.entries is None:
        return level
    clouds, size = len(count), int(count[0])
    if (ranks.gather(count) != size).any() or num >= size:
        return level
    draws = ranks.rand_like(torch.empty(clouds, size, device=count.device))
    order = draws.argsort(1)[:, :num].sort(1).values
    first = torch.arange(clouds, device=count.device)[:, None] * size
    rows = (order + first).flatten()
    entries = level.entries.view(-1, level.basis)
    kept = torch.zeros(len(entries), dtype=torch.bool, device=count.device)
    kept[rows] = True
    inside = torch.repeat_interleave(kept, entries.sum(1))
    return LevelGraph(
        count=torch.full_like(count, num),
        weight=level.weight[rows],
        pos=level.pos[rows],
        rot=level.rot[rows],
        basis=level.basis,
        entries=entries[rows].flatten(),
        col=level.col[inside],
        val=level.val[inside],
    )


def augment(
    graph: PoseGraph,
    entry_dropout: float = 0.0,
    keep_frames: int | None = None,
    ranks: Ranks = ALONE,
) -> PoseGraph:
    """``drop_entries`` on every level above the first, ``keep_poses`` on the last.

    **Equivariance:** as its two parts: blind to geometry.
    """
    levels = [graph.levels[0], *(drop_entries(lv, entry_dropout, ranks) for lv in graph.levels[1:])]
    if keep_frames is not None and len(levels) > 1:
        levels[-1] = keep_poses(levels[-1], keep_frames, ranks)
    return PoseGraph(levels)


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

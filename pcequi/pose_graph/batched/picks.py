"""Farthest-point sampling of many clouds at once, by the rules of ``pcequi.ops.fps``."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.ops.fps import TIE, ZERO
from pcequi.pose_graph.batched.canonical import PaddedClouds
from pcequi.pose_graph.batched.near import squared_distances

__all__ = ["farthest_orbits", "farthest_points"]


def farthest_points(clouds: PaddedClouds, num: int) -> Tensor:
    """The first ``num`` points of each cloud in spatial FPS order [B, num].

    **Equivariance:** unchanged by rigid motion.
    """
    square, _ = squared_distances(clouds.pos, clouds.pos)
    spread = (clouds.pos - clouds.mean()).square().sum(2)
    spread = spread.masked_fill(~clouds.valid, -torch.inf)
    return _picks(square[:, :, None], spread, num)[0]


def farthest_orbits(turned: Tensor, key: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """FPS over the first rows of orbits, of which a pick covers all rows.

    Args:
        turned: [B, P, K, D], see ``orbits.Orbits.rows``.
        key: tie-breaker [B, P].
        num: picks, at most P.

    Returns:
        Picks [B, num] and the assignment of each first row [B, P], in [0, num * K).

    **Equivariance:** unchanged by an isometry of the rows that leaves ``key`` in place.
    """
    x = turned[:, :, 0]
    square, _ = squared_distances(turned.flatten(1, 2), x)
    spread = (x - x.mean(1, keepdim=True)).square().sum(2)
    return _picks(square.unflatten(1, turned.shape[1:3]), spread, num, key)


def _picks(square: Tensor, spread: Tensor, num: int, key: Tensor | None = None):
    """Picks and assignment by squared distances [B, P, K, P] of turned rows to first rows,
    and those of first rows to their mean [B, P], minus infinity where there is no row."""
    tie, lowest = TIE[square.dtype], torch.finfo(square.dtype).min
    clouds, size, turns = square.shape[:3]
    far = spread.amax(1, keepdim=True)
    zero = far * ZERO[square.dtype]
    slack = None if key is None else tie * key.abs().amax(1, keepdim=True)
    start = torch.arange(clouds, device=square.device) * size
    flat = square.flatten(0, 1)
    # Rows that were picked, and those that only fill up, are below all others.
    left = torch.where(spread > -torch.inf, torch.inf, spread)
    assignment = torch.zeros(spread.shape, dtype=torch.long, device=square.device)
    pick, picks = _largest(spread, far * (1 - tie), key, slack), []
    for number in range(0, num * turns, turns):
        picks.append(pick)
        left.scatter_(1, pick, -torch.inf)
        assignment.scatter_(1, pick, number)
        rows = flat.index_select(0, pick[:, 0] + start)
        for turn in range(turns):
            # A tie belongs to the earlier pick, and copies count as ties.
            closer = rows[:, turn] < torch.add(-zero, left, alpha=1 - tie)
            left = torch.where(closer, rows[:, turn], left)
            if key is not None:
                assignment.masked_fill_(closer, number + turn)
        worst = left.amax(1, keepdim=True)
        copies = worst <= zero  # only copies of the picks remain: take any new row
        limit = torch.where(copies, lowest, worst * (1 - tie))
        any_key = None if key is None else torch.where(copies, torch.inf, slack)
        pick = _largest(left, limit, key, any_key)
    return torch.cat(picks, 1), assignment


def _largest(value: Tensor, limit: Tensor, key: Tensor | None, slack: Tensor | None) -> Tensor:
    """The first row [B, 1] of a value of at least ``limit``; with keys of the largest key."""
    tied = value >= limit
    if key is not None:
        least = torch.where(tied, key, -torch.inf).amax(1, keepdim=True) - slack
        tied &= key >= least
    return tied.view(torch.uint8).argmax(1, keepdim=True)

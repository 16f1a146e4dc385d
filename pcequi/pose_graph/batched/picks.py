"""Farthest-point sampling of many clouds at once, by the rules of ``pcequi.ops.fps``."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.ops.fps import NOISE, TIE, ZERO
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
    norm = clouds.pos.square().sum(2).amax(1, keepdim=True)
    return _picks(square[:, :, None], spread, norm, num)[0]


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
    norm = x.square().sum(2).amax(1, keepdim=True)
    return _picks(square.unflatten(1, turned.shape[1:3]), spread, norm, num, key)


def _picks(square: Tensor, spread: Tensor, norm: Tensor, num: int, key: Tensor | None = None):
    """Picks and assignment (none without keys) by squared distances [B, P, K, P] of turned rows
    to first rows, and those of first rows to their mean [B, P], minus infinity where there is
    no row; ``norm`` [B, 1] is the largest squared one. A call on a GPU costs more than its work
    here, so a pick takes few."""
    keep, size = 1 - TIE, square.shape[2:]
    far = spread.amax(1, keepdim=True)
    lowest = torch.full_like(far, -torch.inf)
    zero = -torch.maximum(far * ZERO, norm * NOISE)
    slack = None if key is None else TIE * key.abs().amax(1, keepdim=True)
    # Rows that were picked, and those that only fill up, are below all others.
    left = torch.where(spread > -torch.inf, torch.inf, spread)
    # A tie belongs to the earlier pick, and copies count as ties.
    limit = torch.add(zero, left, alpha=keep)
    assignment = None if key is None else torch.zeros_like(spread, dtype=torch.long)
    pick, picks = _first(spread >= (far + zero).clamp_min(0) * keep, key, lowest, slack), []
    for number in range(0, num * size[0], size[0]):
        picks.append(pick)
        left.scatter_(1, pick, -torch.inf)
        limit.scatter_(1, pick, -torch.inf)
        rows = square.gather(1, pick[:, :, None, None].expand(-1, 1, *size))[:, 0]
        if key is not None:
            assignment.scatter_(1, pick, number)
        for turn, row in enumerate(rows.unbind(1)):
            closer = row < limit
            left = torch.where(closer, row, left)
            limit = torch.add(zero, left, alpha=keep)
            if key is not None:
                assignment.masked_fill_(closer, number + turn)
        # Where only copies of the picks remain, all of them are tied, whatever their keys.
        worst = limit.amax(1, keepdim=True)
        same = None if key is None else slack.masked_fill(worst <= 0, torch.inf)
        pick = _first(left >= worst, key, lowest, same)
    return torch.cat(picks, 1), assignment


def _first(tied: Tensor, key: Tensor | None, lowest: Tensor, slack: Tensor | None) -> Tensor:
    """The first row [B, 1] that is tied; with keys, of those with the largest."""
    if key is not None:
        best = torch.where(tied, key, lowest)
        tied = tied & (best >= best.amax(1, keepdim=True) - slack)
    return tied.view(torch.uint8).argmax(1, keepdim=True)

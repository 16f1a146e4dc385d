"""Lloyd's steps on orbits of poses, and the medoids that they end with."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.ops import cluster_means, least_members, nearest_center
from pcequi.ops.fps import NOISE
from pcequi.orbits import Orbits

__all__ = ["SLACK", "lloyd", "make_distinct"]

# Share of the spread, and of the largest key, to which distances and keys are rounded.
SLACK = 1e-4


def lloyd(
    turned: Tensor, index: Tensor, assignment: Tensor, key: Tensor, steps: int, orbits: Orbits
) -> Tensor:
    """Lloyd steps from given clusters, then the medoid of each.

    Args:
        turned: rows of orbits [N, K, D], see ``Orbits.rows``.
        index: orbits that stand for all [M].
        assignment: of the first pose of each orbit [N], in [0, M * K).
        key: of each orbit, for ties [N].
        steps: at least one.
        orbits: what they are.

    Returns:
        [M] different orbits.

    Source: Lloyd, "Least squares quantization in PCM", 1982.

    **Equivariance:** unchanged by an isometry of the rows that leaves ``key`` in place.
    """
    x, every = turned[:, 0], turned.flatten(0, 1)
    center = turned[index].flatten(0, 1)
    for _ in range(steps):
        center = cluster_means(every, orbits.spread(assignment), center)
        assignment, distance = nearest_center(x, center)
    # The member nearest to its centre; among equals the first in key order.
    # Both are rounded, so that rows that are equal but for noise keep their order.
    spread = float((x - x.mean(0)).square().sum(1).max()) ** 0.5
    noise = (NOISE * float(x.square().sum(1).max())) ** 0.5
    cluster = assignment // orbits.size
    medoid = least_members(
        cluster,
        _rounded(distance, max(SLACK * spread, noise)),
        _rounded(-key, SLACK * float(key.abs().max())),
        index,
    )
    # A cluster that lost all members keeps its seed, unless another took it.
    return make_distinct(medoid, len(x))


def _rounded(value: Tensor, step: float) -> Tensor:
    return value if step == 0 else (value / step).round()


def make_distinct(index: Tensor, size: int) -> Tensor:
    """Replace repeated picks [M] by rows not picked yet, of ``size``, so that the count holds.

    **Equivariance:** none involved.
    """
    seen = torch.zeros(size, dtype=torch.bool, device=index.device)
    unique, inverse = torch.unique(index, return_inverse=True)
    if len(unique) == len(index):
        return index
    first = torch.full((len(unique),), len(index), device=index.device)
    place = torch.arange(len(index), device=index.device)
    first = first.scatter_reduce(0, inverse, place, "amin")
    repeat = torch.ones_like(index, dtype=torch.bool)
    repeat[first] = False
    seen[unique] = True
    spare = (~seen).nonzero()[:, 0][: int(repeat.sum())]
    index = index.clone()
    index[repeat] = spare
    return index

"""Which representative stands for which row, and how far away it is."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.ops import blend_centers, cluster_means, nearest_center
from pcequi.ops.fps import TIE, largest
from pcequi.orbits import Orbits

__all__ = ["assign", "blend", "covering", "distance_to_means"]


def assign(turned: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest representative of every first row; a representative is its own.

    Args:
        turned: rows of orbits [N, K, D], see ``Orbits.rows``.
        index: orbits that stand for all [M].

    Returns:
        Representative [N], in [0, M * K), and distance [N].

    **Equivariance:** unchanged by an isometry of the rows.
    """
    assignment, distance = nearest_center(turned[:, 0], turned[index].flatten(0, 1))
    assignment[index] = _first_poses(index, turned.shape[1])
    distance[index] = 0
    return assignment, distance


def blend(turned: Tensor, index: Tensor, num: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest representatives of every first row and their shares; a representative is its own.

    Args:
        turned, index: as ``assign`` takes.
        num: representatives that a row shares.

    Returns:
        As ``assign``; then representatives and their shares [N, num].

    **Equivariance:** unchanged by an isometry of the rows.
    """
    center = turned[index].flatten(0, 1)
    assignment, distance, shared, share = blend_centers(turned[:, 0], center, num)
    own = _first_poses(index, turned.shape[1])
    assignment[index] = own
    distance[index] = 0
    shared[index] = own[:, None]
    share[index] = 0
    share[index, 0] = 1
    return assignment, distance, shared, share


def distance_to_means(x: Tensor, assignment: Tensor, index: Tensor) -> Tensor:
    """Distance of each pose [P] to the mean of its cluster.

    **Equivariance:** unchanged by an isometry of the rows.
    """
    return (x - cluster_means(x, assignment, x[index])[assignment]).norm(dim=1)


def covering(
    turned: Tensor, index: Tensor, key: Tensor, tolerance: float, most: int, orbits: Orbits
) -> Tensor:
    """Representatives, and the farthest row of all again and again until none is farther
    than the tolerance: medoids, and picks among some rows, need not cover all.

    Args:
        turned: [N, K, D].
        index: orbits that stand for all [M].
        key: of each orbit, for ties [N].
        tolerance: in the units of the rows.
        most: orbits at most.
        orbits: what they are.

    Returns:
        At least M orbits, those of ``index`` first.

    **Equivariance:** unchanged by an isometry of the rows that leaves ``key`` in place.
    """
    x = turned[:, 0]
    while True:
        center = turned[index].flatten(0, 1)
        assignment, near = assign(turned, index)
        # A row is given to the nearest; of the poses of its point the farthest is what counts.
        far = orbits.farthest(x - center[assignment])
        far[index] = 0
        if far.max() <= tolerance or len(index) >= most:
            return index
        while far.max() > tolerance and len(index) < most:
            pick = largest(far.square(), key, TIE)
            index = torch.cat([index, pick[None]])
            for row in turned[pick]:
                offset = x - row
                distance = offset.norm(dim=1)
                closer = distance < near
                far = torch.where(closer, orbits.farthest(offset), far)
                near = torch.where(closer, distance, near)
            near[pick] = far[pick] = 0
        # Once more: among centres that are equally near the first counts, and may be farther.


def _first_poses(index: Tensor, size: int) -> Tensor:
    return torch.arange(len(index), device=index.device) * size

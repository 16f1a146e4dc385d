"""Feature-space sampling of one cloud on a CPU by the kernels alone, with NumPy between them: the
small calls of torch that ``FeatureSampler`` is composed of take longer than the search itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcequi.lloyd import SLACK, make_distinct
from pcequi.ops import HAS_NUMBA, blending, clusters, fps
from pcequi.orbits import Orbits

__all__ = ["has_kernels", "sampled"]

_LIMITS = clusters.SCREEN + fps.TIE, fps.TIE, clusters.NOISE_SHARE


def has_kernels(x: Tensor, centers: int) -> bool:
    """Whether the kernels take such rows, and so many of them that stand for the others.

    **Equivariance:** does not apply.
    """
    known = x.dtype in (torch.float32, torch.float64)
    return HAS_NUMBA and x.device.type == "cpu" and known and centers <= blending.MOST_CENTERS


def sampled(
    turned: Tensor,
    rows: Tensor | None,
    generic: Tensor,
    num: int,
    refine: int,
    blend: int,
    orbits: Orbits,
) -> tuple[Tensor, ...] | None:
    """Farthest-point sampling, Lloyd's steps, and what all poses share.

    Args:
        turned: rows of orbits [N, K, D], see ``Orbits.rows``.
        rows: orbits among which is sampled [R], at least ``num``; None: all.
        generic: of ``sampling.sampling_key`` [D].
        num: orbits to take.
        refine, blend: as ``FeatureSampler`` has them.
        orbits: what they are.

    Returns:
        Poses [M], assignment and distance [P], shared and share [P, blend], as ``Representatives``
        has them; None where numbers are too large for squares of distances.

    **Equivariance:** as ``FeatureSampler``.
    """
    from pcequi.ops.compiled import fps as kernels

    size, products = orbits.size, None if orbits.size == 1 else orbits.products.numpy()
    pool = turned if rows is None else turned[rows]
    # By torch, on its threads and as elsewhere.
    key = (pool.flatten(0, 1) @ generic.to(pool)).view(-1, size).amax(1).numpy()
    turned, pool = turned.contiguous().numpy(), pool.contiguous().numpy()
    if not _squares(pool.reshape(-1, pool.shape[2])).max() <= np.finfo(turned.dtype).max / 4:
        return None
    first = np.ascontiguousarray(pool[:, 0])
    limits = fps.TIE, fps.ZERO, fps.NOISE, 0.0
    index, assignment, square = kernels.fps(first, pool, num, key, *limits)
    if refine:
        index = _medoids(pool, first, index, assignment, key, refine, products)
    if rows is not None:
        index = rows.numpy()[index]
    if refine or rows is not None or orbits.mixed or blend > 1:
        found = _nearest(turned, index, blend)
    else:
        found = assignment, np.sqrt(square), *_whole(assignment, turned)
    return tuple(map(torch.from_numpy, _all_poses(index, size, products, *found)))


def _nearest(turned, index, blend):
    """Assignment, distance, shared and share of the first poses."""
    x, center = np.ascontiguousarray(turned[:, 0]), turned[index].reshape(-1, turned.shape[2])
    if blend > 1:
        from pcequi.ops.compiled import blending as kernels

        few = min(blend, len(center) - 1)
        return kernels.blend(x, center, blend, few, *_LIMITS, *blending.weight_limits(blend))
    from pcequi.ops.compiled import clusters as kernels

    assignment, distance = kernels.nearest(x, center, *_LIMITS)
    return assignment, distance, *_whole(assignment, x)


def _whole(assignment, like):
    """Shared and share where each takes one representative alone."""
    return assignment[:, None].copy(), np.ones((len(assignment), 1), like.dtype)


def _all_poses(index, size, products, assignment, distance, shared, share):
    """What ``sampled`` returns, from what the first poses have."""
    own = np.arange(len(index)) * size
    assignment[index], distance[index] = own, 0  # a representative is its own
    shared[index], share[index] = own[:, None], 0
    share[index, 0] = 1
    poses = (index[:, None] * size + np.arange(size)).ravel()
    assignment, shared = _spread(assignment, products), _spread(shared, products)
    return poses, assignment, np.repeat(distance, size), shared, np.repeat(share, size, 0)


def _medoids(pool, x, index, assignment, key, steps, products):
    """``lloyd.lloyd`` of the orbits of the pool, whose first rows are ``x``."""
    from pcequi.ops.compiled import clusters as kernels

    center, every = pool[index].reshape(-1, x.shape[1]), pool.reshape(-1, x.shape[1])
    for _ in range(steps):
        center = kernels.means(every, _spread(assignment, products), center)
        assignment, distance = kernels.nearest(x, center, *_LIMITS)
    far, norm = (float(_squares(part).max()) for part in (x - x.mean(0), x))
    distance = _rounded(distance, max(SLACK * far**0.5, (fps.NOISE * norm) ** 0.5))
    second = _rounded(-key, SLACK * float(np.abs(key).max()))
    index = kernels.least_members(assignment // pool.shape[1], distance, second, index)
    if len(np.unique(index)) < len(index):
        index = make_distinct(torch.from_numpy(index), len(x)).numpy()
    return index


def _squares(x):
    return np.einsum("pd,pd->p", x, x)


def _rounded(value, step):
    return value if step == 0 else np.rint(value / step)


def _spread(code, products):
    """``Orbits.spread``."""
    if products is None:
        return code
    from pcequi.ops.compiled import orbits as kernels

    every = kernels.spread(code.reshape(len(code), -1), products)
    return every.reshape(-1, *code.shape[1:])

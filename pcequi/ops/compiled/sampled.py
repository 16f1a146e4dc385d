"""Feature-space sampling of one cloud in one kernel: what ``FeatureSampler`` is composed of."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.blending import blend
from pcequi.ops.compiled.clusters import least_members, means, nearest
from pcequi.ops.compiled.flags import REORDER
from pcequi.ops.compiled.fps import fps

__all__ = ["sampled"]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _keys(pool, generic):
    """The largest value of a linear function among the K rows of each orbit [R]; and the square
    of the largest norm."""
    key, reach = np.empty(len(pool), pool.dtype), 0.0
    for p in range(len(pool)):
        best = -np.inf
        for k in range(pool.shape[1]):
            total, square = 0.0, 0.0
            for c in range(pool.shape[2]):
                total += pool[p, k, c] * generic[c]
                square += pool[p, k, c] * pool[p, k, c]
            best, reach = max(best, total), max(reach, square)
        key[p] = best
    return key, reach


@njit(cache=True, nogil=True, forceinline=True)
def _spread(code, products):
    """What all K poses of each point are given, from what the first is given; [N * K]."""
    size = len(products)
    out = np.empty(len(code) * size, np.int64)
    for p in range(len(code)):
        turn = code[p] % size
        for k in range(size):
            out[p * size + k] = code[p] - turn + products[turn, k]
    return out


@njit(cache=True, nogil=True, forceinline=True)
def _of_orbits(turned, index):
    """All rows of some orbits [M * K, D]."""
    size = turned.shape[1]
    out = np.empty((len(index) * size, turned.shape[2]), turned.dtype)
    for m in range(len(index)):
        for k in range(size):
            out[m * size + k] = turned[index[m], k]
    return out


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _lengths(x):
    """The largest squared distance of rows from their mean, and their largest squared norm."""
    size, dim = x.shape
    mean, far, norm = np.zeros(dim, x.dtype), 0.0, 0.0
    for p in range(size):
        for c in range(dim):
            mean[c] += x[p, c] / size
    for p in range(size):
        off, own = 0.0, 0.0
        for c in range(dim):
            off += (x[p, c] - mean[c]) * (x[p, c] - mean[c])
            own += x[p, c] * x[p, c]
        far, norm = max(far, off), max(norm, own)
    return far, norm


@njit(cache=True, nogil=True, forceinline=True)
def _round(value, sign, step):
    """Each entry times ``sign``, as a whole number of steps."""
    for p in range(len(value)):
        value[p] *= sign
        if step > 0:
            value[p] = np.rint(value[p] / step)


@njit(cache=True, nogil=True, forceinline=True)
def _make_distinct(index, size):
    """Repeated picks become rows not picked yet, in their order."""
    taken, repeat = np.zeros(size, np.bool_), np.zeros(len(index), np.bool_)
    for m in range(len(index)):
        repeat[m] = taken[index[m]]
        taken[index[m]] = True
    spare = 0
    for m in range(len(index)):
        if repeat[m]:
            while taken[spare]:
                spare += 1
            index[m] = spare
            taken[spare] = True


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _lloyd(pool, x, index, assignment, key, steps, products, limits):
    """``lloyd.lloyd``: orbits of the pool that are the medoids."""
    screen, tie, noise_share, noise, slack = limits
    center, distance = _of_orbits(pool, index), np.empty(0, x.dtype)
    every = pool.reshape(-1, x.shape[1])
    for _ in range(steps):
        center = means(every, _spread(assignment, products), center)
        assignment, distance = nearest(x, center, screen, tie, noise_share)
    far, norm = _lengths(x)
    largest = 0.0
    for p in range(len(key)):
        largest = max(largest, abs(key[p]))
    # Rounded, so that rows that are equal but for noise keep their order.
    _round(distance, 1.0, max(slack * math.sqrt(far), math.sqrt(noise * norm)))
    second = key.copy()
    _round(second, -1.0, slack * largest)
    medoid = least_members(assignment // len(products), distance, second, index)
    _make_distinct(medoid, len(x))
    return medoid


@njit(cache=True, nogil=True, forceinline=True)
def _every_pose(index, assignment, distance, shared, share, products):
    """From what orbits [M] and the first pose of each point have, what all poses have."""
    size, few = len(products), shared.shape[1]
    poses = np.empty(len(index) * size, np.int64)
    for m in range(len(index)):
        for k in range(size):
            poses[m * size + k] = index[m] * size + k
    far = np.empty(len(distance) * size, distance.dtype)
    which = np.empty((len(distance) * size, few), np.int64)
    much = np.empty((len(distance) * size, few), share.dtype)
    for p in range(len(distance)):
        for k in range(size):
            far[p * size + k] = distance[p]
            for j in range(few):
                turn = shared[p, j] % size
                which[p * size + k, j] = shared[p, j] - turn + products[turn, k]
                much[p * size + k, j] = share[p, j]
    return poses, _spread(assignment, products), far, which, much


@njit(cache=True, nogil=True, fastmath=REORDER)
def sampled(
    turned, rows, generic, num, refine, blended, afresh, products, limits, slack, weights
):
    """Farthest-point sampling of orbits, Lloyd's steps, and what all poses share.

    ``turned`` [N, K, D] are the rows of orbits, ``rows`` [R] those among which is sampled (all
    where there are none), ``generic`` [D] makes the keys, with ``afresh`` the nearest are searched for
    in the end, ``products`` [K, K] is the table of the frames' group; ``limits`` are those of ``ops.fps`` and ``ops.clusters``, ``slack`` is that of
    ``lloyd`` and ``weights`` are what ``blend`` takes after them.

    Poses [M * K], assignment and distance [N * K], shared and share [N * K, blended], as
    ``Representatives`` has them; no poses where numbers are too large to be compared.
    """
    screen, tie, zero, noise, noise_share = limits
    size, dim = turned.shape[1:]
    pool = turned[rows] if len(rows) > 0 else turned
    x, first = turned[:, 0].copy(), pool[:, 0].copy()
    key, reach = _keys(pool, generic)
    index, assignment = np.empty(0, np.int64), np.empty(0, np.int64)
    distance = np.empty(0, turned.dtype)
    shared, share = np.empty((0, blended), np.int64), np.empty((0, blended), turned.dtype)
    if not 4 * reach <= np.finfo(turned.dtype).max:
        return index, assignment, distance, shared, share
    index, assignment, square = fps(first, pool, num, key, tie, zero, noise, 0.0)
    distance = np.sqrt(square)
    if refine > 0:
        more = screen, tie, noise_share, noise, slack
        index = _lloyd(pool, first, index, assignment, key, refine, products, more)
    if len(rows) > 0:
        index = rows[index]
    center = _of_orbits(turned, index)
    if blended > 1:
        few = min(blended, len(center) - 1)
        assignment, distance, shared, share = blend(
            x, center, blended, few, screen, tie, noise_share, *weights
        )
    else:
        if afresh:
            assignment, distance = nearest(x, center, screen, tie, noise_share)
        shared, share = assignment.copy().reshape(-1, 1), np.ones((len(x), 1), x.dtype)
    for m in range(len(index)):  # a representative is its own
        p = index[m]
        assignment[p], distance[p] = m * size, 0
        shared[p], share[p] = m * size, 0
        share[p, 0] = 1
    return _every_pose(index, assignment, distance, shared, share, products)

"""Farthest-point sampling over columns: one pass over all rows a pick.

Rows are kept in blocks of ``_BLOCK``, transposed, so that the inner loops run
over rows: their distances fill vector registers, and no sum crosses lanes.
"""

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER

__all__ = ["fps"]

_BLOCK = 128
# Rows p, p + _LANES, ... share a lane, whose largest distance is known.
_LANES = 32


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _in_blocks(x):
    """The rows of ``x`` as columns [blocks, D', _BLOCK], D' a multiple of four."""
    size, dim = x.shape
    out = np.zeros((-(-size // _BLOCK), -(-dim // 4) * 4, _BLOCK), x.dtype)
    for p in range(size):
        for c in range(dim):
            out[p // _BLOCK, c, p % _BLOCK] = x[p, c]
    return out


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _squares(columns, block, there, total):
    """Squared distances of a block's columns to ``there``, into ``total``."""
    for i in range(_BLOCK):
        total[i] = 0
    for c in range(0, columns.shape[1], 4):
        t0, t1, t2, t3 = there[c], there[c + 1], there[c + 2], there[c + 3]
        for i in range(_BLOCK):
            d0, d1 = columns[block, c, i] - t0, columns[block, c + 1, i] - t1
            d2, d3 = columns[block, c + 2, i] - t2, columns[block, c + 3, i] - t3
            total[i] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _fold(top):
    """The first ``_LANES`` entries become the largest of their lanes; the largest of all."""
    width = _BLOCK
    while width > _LANES:
        width //= 2
        for i in range(width):
            top[i] = max(top[i], top[i + width])
    worst = top[0]
    for i in range(1, _LANES):
        worst = max(worst, top[i])
    return worst


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _best_key(d2, top, limit, key, slack):
    """First of the largest keys among rows with ``d2`` of at least ``limit``; row 0 where numbers
    do not compare, as with NaN."""
    best = -np.inf
    for lane in range(_LANES):
        if top[lane] >= limit:
            for p in range(lane, len(d2), _LANES):
                if d2[p] >= limit:
                    best = max(best, key[p])
    pick = len(d2)
    for lane in range(_LANES):
        if top[lane] >= limit:
            for p in range(lane, len(d2), _LANES):
                if d2[p] >= limit and key[p] >= best - slack:
                    pick = min(pick, p)
                    break
    return pick if pick < len(d2) else 0


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _farthest(x, keep, zero, noise, key, slack):
    """Squares that are zero, and the first of the largest keys among the rows farthest from
    the mean."""
    size, dim = x.shape
    mean, square = np.zeros(dim, x.dtype), np.zeros(size, x.dtype)
    for p in range(size):
        for c in range(dim):
            mean[c] += x[p, c] / size
    far = norm = square[0]
    for p in range(size):
        total = square[p]
        for c in range(dim):
            square[p] += (x[p, c] - mean[c]) * (x[p, c] - mean[c])
            total += x[p, c] * x[p, c]
        far, norm = max(far, square[p]), max(norm, total)
    least = max(zero * far, noise * norm)
    every = np.empty(_LANES, x.dtype)
    for lane in range(_LANES):
        every[lane] = far
    return least, _best_key(square, every, max(far - least, 0.0) * keep, key, slack)


@njit(cache=True, nogil=True, fastmath=REORDER)
def fps(x, turned, num, key, tie, zero, noise, stop):
    """FPS by the rules of ``ops.fps``: picks, assignment, squared distances.

    A pick stands for the rows ``turned[pick]`` [K, D], the first of which is its own.

    Squares below ``zero`` of the largest from the mean, or ``noise`` of the largest norm's, are
    zero, and ``stop`` is a square.
    """
    size = x.shape[0]
    columns = _in_blocks(x)
    slack = 0.0
    for p in range(size):
        slack = max(slack, tie * abs(key[p]))
    keep = x.dtype.type(1 - tie)
    zero, pick = _farthest(x, keep, zero, noise, key, slack)
    blocks, dim, _ = columns.shape
    # Rows that were picked, and those that only fill a block, are below all others.
    d2 = np.empty((blocks, _BLOCK), x.dtype)
    flat = d2.reshape(-1)
    for p in range(len(flat)):
        flat[p] = np.inf if p < size else -1
    assignment = np.zeros((blocks, _BLOCK), np.int64)
    index = np.empty(num, np.int64)
    total, top, there = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype), np.zeros(dim, x.dtype)
    turns = turned.shape[1]
    count = 0
    for m in range(num):
        index[m] = pick
        count = m + 1
        home, place = pick // _BLOCK, pick % _BLOCK
        d2[home, place] = -1
        assignment[home, place] = m * turns
        for number in range(m * turns, (m + 1) * turns):
            for c in range(x.shape[1]):
                there[c] = turned[pick, number - m * turns, c]
            for i in range(_BLOCK):
                top[i] = -1
            for block in range(blocks):
                _squares(columns, block, there, total)
                for i in range(_BLOCK):
                    # A tie belongs to the earlier pick, and copies count as ties.
                    old = d2[block, i]
                    closer = total[i] < old * keep - zero
                    assignment[block, i] = number if closer else assignment[block, i]
                    old = total[i] if closer else old
                    d2[block, i] = old
                    top[i] = max(top[i], old)
        worst = _fold(top)
        if stop > 0 and worst <= stop:
            break
        if worst <= zero:
            for p in range(size):
                if flat[p] >= 0:
                    pick = p
                    break
        else:
            pick = _best_key(flat, top, worst * keep, key, slack)
    for m in range(count):
        flat[index[m]] = 0
    return index[:count], assignment.reshape(-1)[:size], flat[:size]

"""Farthest-point sampling over columns: one pass over the rows near a pick.

Rows are kept in blocks of ``_BLOCK``, transposed, so that the inner loops run
over rows: their distances fill vector registers, and no sum crosses lanes. The
box around a block's first columns tells whether a pick is nearer to any of its
rows than the picks before: in three columns, and sorted by one, few blocks are.
"""

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER

__all__ = ["fps"]

_BLOCK = 64


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _in_blocks(x):
    """The rows of ``x`` as columns [blocks, D', _BLOCK], D' a multiple of four, and the
    least and largest entries of the first four columns of each block [2, 4, blocks]."""
    size, dim = x.shape
    blocks = -(-size // _BLOCK)
    out = np.zeros((blocks, -(-dim // 4) * 4, _BLOCK), x.dtype)
    box = np.zeros((2, 4, blocks), x.dtype)
    for p in range(size):
        b, i = p // _BLOCK, p % _BLOCK
        for c in range(dim):
            out[b, c, i] = x[p, c]
        for c in range(min(dim, 4)):
            box[0, c, b] = x[p, c] if i == 0 else min(box[0, c, b], x[p, c])
            box[1, c, b] = x[p, c] if i == 0 else max(box[1, c, b], x[p, c])
    return out, box


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _to_boxes(box, there, square):
    """Squared distances of ``there`` to the boxes of blocks, into ``square``."""
    for b in range(len(square)):
        total = there[0] * 0
        for c in range(4):
            outside = max(max(box[0, c, b] - there[c], there[c] - box[1, c, b]), 0.0)
            total += outside * outside
        square[b] = total


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
def _largest(values, top):
    """The largest of a block's values; ``top`` [_BLOCK] is scratch."""
    width = _BLOCK // 2
    for i in range(width):
        top[i] = max(values[i], values[i + width])
    while width > 4:
        width //= 2
        for i in range(width):
            top[i] = max(top[i], top[i + width])
    return max(max(top[0], top[1]), max(top[2], top[3]))


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _best_key(d2, peak, limit, key, slack):
    """First of the largest keys among rows with ``d2`` of at least ``limit``, where ``peak`` is
    the largest of each block; row 0 where numbers do not compare, as with NaN."""
    best = -np.inf
    for b in range(len(peak)):
        if peak[b] >= limit:
            for p in range(b * _BLOCK, min((b + 1) * _BLOCK, len(key))):
                if d2[p] >= limit:
                    best = max(best, key[p])
    for b in range(len(peak)):
        if peak[b] >= limit:
            for p in range(b * _BLOCK, min((b + 1) * _BLOCK, len(key))):
                if d2[p] >= limit and key[p] >= best - slack:
                    return p
    return 0


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
    every = np.empty(-(-size // _BLOCK), x.dtype)
    for b in range(len(every)):
        every[b] = far
    return least, _best_key(square, every, max(far - least, 0.0) * keep, key, slack)


@njit(cache=True, nogil=True, fastmath=REORDER)
def fps(x, turned, num, key, tie, zero, noise, stop):
    """FPS by the rules of ``ops.fps``: picks, assignment, squared distances.

    A pick stands for the rows ``turned[pick]`` [K, D], the first of which is its own.

    Squares below ``zero`` of the largest from the mean, or ``noise`` of the largest norm's, are
    zero, and ``stop`` is a square.
    """
    size = x.shape[0]
    columns, box = _in_blocks(x)
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
    peak, square = np.empty(blocks, x.dtype), np.empty(blocks, x.dtype)
    for block in range(blocks):
        peak[block] = np.inf
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
            _to_boxes(box, there, square)
            for block in range(blocks):
                if square[block] >= peak[block]:
                    continue
                _squares(columns, block, there, total)
                for i in range(_BLOCK):
                    # A tie belongs to the earlier pick, and copies count as ties.
                    old = d2[block, i]
                    closer = total[i] < old * keep - zero
                    assignment[block, i] = number if closer else assignment[block, i]
                    d2[block, i] = total[i] if closer else old
                peak[block] = _largest(d2[block], top)
        worst = peak[0]
        for block in range(1, blocks):
            worst = max(worst, peak[block])
        if stop > 0 and worst <= stop:
            break
        if worst <= zero:
            for p in range(size):
                if flat[p] >= 0:
                    pick = p
                    break
        else:
            pick = _best_key(flat, peak, worst * keep, key, slack)
    for m in range(count):
        flat[index[m]] = 0
    return index[:count], assignment.reshape(-1)[:size], flat[:size]

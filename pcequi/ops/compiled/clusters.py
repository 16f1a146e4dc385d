"""Nearest centres, means and medoids: what Lloyd's steps are made of."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER

__all__ = [
    "LANES",
    "fold",
    "for_scores",
    "half_square",
    "least_members",
    "means",
    "nearest",
    "scores",
]

# Columns c, c + LANES, ... share a lane, whose lowest score is known.
LANES = 16
# Squared norms whose products single precision can hold, far from its ends.
_LEAST, _MOST = 1e-25, 1e25


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _centred_rows(x, shift, factor):
    """Rows less ``shift``, times ``factor``, as float32, filled up with zeros to an even number
    of rows and a multiple of four columns; the largest of their squared norms before that,
    and of those of ``x``."""
    size, dim = x.shape
    out, largest = np.zeros((size + size % 2, -(-dim // 4) * 4), np.float32), 0.0
    norm = 0.0
    for p in range(size):
        total, raw = 0.0, 0.0
        for c in range(dim):
            value = x[p, c] - shift[c]
            out[p, c] = value * factor
            total += value * value
            raw += x[p, c] * x[p, c]
        largest, norm = max(largest, total), max(norm, raw)
    return out, largest, norm


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _half_columns(rows, num):
    """Centres as columns [D', M'], and half their squared norms [M'].

    M' is a multiple of ``LANES``; what only fills up is far away.
    """
    dim = rows.shape[1]
    width = -(-num // LANES) * LANES
    columns = np.zeros((dim, width), np.float32)
    half = np.full(width, 1e30, np.float32)
    for m in range(num):
        total = 0.0
        for c in range(dim):
            columns[c, m] = rows[m, c]
            total += rows[m, c] * rows[m, c]
        half[m] = total / 2
    return columns, half


@njit(cache=True, nogil=True, fastmath=REORDER)
def scores(rows, p, columns, half, score):
    """|x - c|^2 / 2 - |x|^2 / 2 of two rows and all centres, float32, into [2, M']."""
    for m in range(len(half)):
        score[0, m] = half[m]
        score[1, m] = half[m]
    for c in range(0, columns.shape[0], 4):
        a0, a1, a2, a3 = rows[p, c], rows[p, c + 1], rows[p, c + 2], rows[p, c + 3]
        b0, b1, b2, b3 = rows[p + 1, c], rows[p + 1, c + 1], rows[p + 1, c + 2], rows[p + 1, c + 3]
        for m in range(len(half)):
            c0, c1, c2, c3 = columns[c, m], columns[c + 1, m], columns[c + 2, m], columns[c + 3, m]
            score[0, m] -= (a0 * c0 + a1 * c1) + (a2 * c2 + a3 * c3)
            score[1, m] -= (b0 * c0 + b1 * c1) + (b2 * c2 + b3 * c3)


@njit(cache=True, nogil=True, fastmath=REORDER)
def fold(score, row, low):
    """Lowest score of each lane, into the first ``LANES`` of ``low``; the lowest of all."""
    width = score.shape[1]
    part = -(-width // (2 * LANES)) * LANES
    for m in range(width - part):
        low[m] = min(score[row, m], score[row, m + part])
    for m in range(width - part, part):
        low[m] = score[row, m]
    while part > LANES:
        # The upper part goes onto the lower; both start at a multiple of the lanes.
        width, part = part, -(-part // (2 * LANES)) * LANES
        for m in range(width - part):
            low[m] = min(low[m], low[m + part])
    least = low[0]
    for lane in range(1, LANES):
        least = min(least, low[lane])
    return least


@njit(cache=True, nogil=True, fastmath=REORDER)
def for_scores(x, center, noise):
    """What ``scores`` takes: rows, columns and half their squared norms, all centred first,
    as the expanded square then cancels less, and scaled where single precision could not hold
    their squares; the largest squared norms' sum, at least ``noise`` of that of ``x``; and that
    of what was scaled."""
    shift = np.zeros(x.shape[1], x.dtype)
    for m in range(len(center)):
        for c in range(x.shape[1]):
            shift[c] += center[m, c] / len(center)
    rows, scale, norm = _centred_rows(x, shift, 1.0)
    centred, largest, _ = _centred_rows(center, shift, 1.0)
    scale = scaled = max(scale + largest, noise * norm)
    if scale > _MOST or 0 < scale < _LEAST:
        factor = 1 / math.sqrt(scale)
        rows, _, _ = _centred_rows(x, shift, factor)
        centred, _, _ = _centred_rows(center, shift, factor)
        scaled = 1.0
    columns, half = _half_columns(centred, len(center))
    return rows, columns, half, scale, scaled


@njit(cache=True, nogil=True, fastmath=REORDER)
def half_square(x, p, center, m):
    total = x[p, 0] * 0
    for c in range(x.shape[1]):
        total += (x[p, c] - center[m, c]) * (x[p, c] - center[m, c])
    return total / 2


@njit(cache=True, nogil=True, fastmath=REORDER)
def nearest(x, center, screen, tie, noise):
    """Per row, the first centre whose half squared distance is within ``tie`` of
    the smallest, and the distance to it.

    Scores in float32 rule out all centres but those within ``screen`` of the
    lowest; these few are compared in the type of ``x``. Both are shares of the
    largest squared norms, of which a share ``noise`` is rounding.
    """
    size = len(x)
    rows, columns, half, scale, scaled = for_scores(x, center, noise)
    score, low = np.empty((2, len(half)), np.float32), np.empty_like(half)
    index, distance = np.empty(size, np.int64), np.empty(size, x.dtype)
    near, exact = np.empty(len(center), np.int64), np.empty(len(center), x.dtype)
    for p in range(size):
        if p % 2 == 0:
            scores(rows, p, columns, half, score)
        row = p % 2
        limit = fold(score, row, low) + np.float32(screen * scaled)
        count, best = 0, np.inf
        for lane in range(LANES):
            if low[lane] <= limit:
                for m in range(lane, len(center), LANES):
                    if score[row, m] <= limit:
                        near[count], exact[count] = m, half_square(x, p, center, m)
                        best = min(best, exact[count])
                        count += 1
        first = -1
        for i in range(count):
            if exact[i] <= best + tie * scale and (first < 0 or near[i] < near[first]):
                first = i
        index[p], distance[p] = 0, np.inf  # where no number compares, as with NaN
        if first >= 0:
            index[p], distance[p] = near[first], math.sqrt(2 * exact[first])
    return index, distance


@njit(cache=True, nogil=True, fastmath=REORDER)
def means(x, assignment, center):
    """Mean of the rows of each cluster; ``center`` where there are none."""
    out, count = np.zeros_like(center), np.zeros(len(center), np.int64)
    for p in range(x.shape[0]):
        m = assignment[p]
        count[m] += 1
        for c in range(x.shape[1]):
            out[m, c] += x[p, c]
    for m in range(center.shape[0]):
        for c in range(x.shape[1]):
            out[m, c] = out[m, c] / count[m] if count[m] > 0 else center[m, c]
    return out


@njit(cache=True, nogil=True)
def least_members(assignment, first, second, index):
    """The row of each cluster with the least (first, second), the first of equals;
    ``index`` where there are none."""
    found = np.full(len(index), -1, np.int64)
    for p in range(len(assignment)):
        best = found[assignment[p]]
        if best < 0 or first[p] < first[best]:
            found[assignment[p]] = p
        elif first[p] == first[best] and second[p] < second[best]:
            found[assignment[p]] = p
    for m in range(len(index)):
        if found[m] < 0:
            found[m] = index[m]
    return found

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


@njit(cache=True, nogil=True, fastmath=REORDER)
def _centred_rows(x, shift):
    """Rows less ``shift`` as float32, filled up with zeros to an even number of rows
    and a multiple of four columns, and the largest of their squared norms."""
    size, dim = x.shape
    out, largest = np.zeros((size + size % 2, -(-dim // 4) * 4), np.float32), 0.0
    for p in range(size):
        total = 0.0
        for c in range(dim):
            value = x[p, c] - shift[c]
            out[p, c] = value
            total += value * value
        largest = max(largest, total)
    return out, largest


@njit(cache=True, nogil=True, fastmath=REORDER)
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
def for_scores(x, center):
    """What ``scores`` takes: rows, columns and half their squared norms, all centred first,
    as the expanded square then cancels less; and the largest squared norms' sum."""
    shift = np.zeros(x.shape[1], x.dtype)
    for m in range(len(center)):
        for c in range(x.shape[1]):
            shift[c] += center[m, c] / len(center)
    rows, scale = _centred_rows(x, shift)
    centred, largest = _centred_rows(center, shift)
    columns, half = _half_columns(centred, len(center))
    return rows, columns, half, scale + largest


@njit(cache=True, nogil=True, fastmath=REORDER)
def half_square(x, p, center, m):
    total = x[p, 0] * 0
    for c in range(x.shape[1]):
        total += (x[p, c] - center[m, c]) * (x[p, c] - center[m, c])
    return total / 2


@njit(cache=True, nogil=True, fastmath=REORDER)
def nearest(x, center, screen, tie):
    """Per row, the first centre whose half squared distance is within ``tie`` of
    the smallest, and the distance to it.

    Scores in float32 rule out all centres but those within ``screen`` of the
    lowest; these few are compared in the type of ``x``. Both are shares of the
    largest squared norms.
    """
    size = len(x)
    rows, columns, half, scale = for_scores(x, center)
    score, low = np.empty((2, len(half)), np.float32), np.empty_like(half)
    index, distance = np.empty(size, np.int64), np.empty(size, x.dtype)
    near, exact = np.empty(len(center), np.int64), np.empty(len(center), x.dtype)
    for p in range(size):
        if p % 2 == 0:
            scores(rows, p, columns, half, score)
        row = p % 2
        limit = fold(score, row, low) + np.float32(screen * scale)
        count, best = 0, np.inf
        for lane in range(LANES):
            if low[lane] <= limit:
                for m in range(lane, len(center), LANES):
                    if score[row, m] <= limit:
                        near[count], exact[count] = m, half_square(x, p, center, m)
                        best = min(best, exact[count])
                        count += 1
        index[p] = len(center)
        for i in range(count):
            if exact[i] <= best + tie * scale and near[i] < index[p]:
                index[p], distance[p] = near[i], math.sqrt(2 * exact[i])
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

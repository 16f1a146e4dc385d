"""Nearest centres, means and medoids: what Lloyd's steps are made of."""

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER

__all__ = ["least_members", "means", "nearest"]

# Columns c, c + _LANES, ... share a lane, whose lowest score is known.
_LANES = 16


@njit(cache=True, nogil=True, fastmath=REORDER)
def _half_columns(center):
    """Centres as float32 columns [D', M'], and half their squared norms [M'].

    D' is a multiple of four and M' of ``_LANES``; what only fills up is far away.
    """
    num, dim = center.shape
    width = -(-num // _LANES) * _LANES
    columns = np.zeros((-(-dim // 4) * 4, width), np.float32)
    half = np.full(width, 1e30, np.float32)
    for m in range(num):
        total = 0.0
        for c in range(dim):
            columns[c, m] = center[m, c]
            total += center[m, c] * center[m, c]
        half[m] = total / 2
    return columns, half


@njit(cache=True, nogil=True, fastmath=REORDER)
def _scores(row, columns, half, score):
    """|x - c|^2 / 2 - |x|^2 / 2 of one row and all centres, float32."""
    for m in range(len(half)):
        score[m] = half[m]
    for c in range(0, columns.shape[0], 4):
        a, b, d, e = row[c], row[c + 1], row[c + 2], row[c + 3]
        for m in range(len(half)):
            score[m] -= (a * columns[c, m] + b * columns[c + 1, m]) + (
                d * columns[c + 2, m] + e * columns[c + 3, m]
            )


@njit(cache=True, nogil=True, fastmath=REORDER)
def _fold(score, low):
    """Lowest score of each lane, into the first ``_LANES`` of ``low``; the lowest of all."""
    width = len(score)
    for m in range(width):
        low[m] = score[m]
    while width > _LANES:
        # The upper part goes onto the lower; both start at a multiple of the lanes.
        part = -(-width // (2 * _LANES)) * _LANES
        for m in range(width - part):
            low[m] = min(low[m], low[m + part])
        width = part
    least = low[0]
    for lane in range(1, _LANES):
        least = min(least, low[lane])
    return least


@njit(cache=True, nogil=True, fastmath=REORDER)
def _half_square(a, b):
    total = a[0] * 0
    for c in range(len(a)):
        total += (a[c] - b[c]) * (a[c] - b[c])
    return total / 2


@njit(cache=True, nogil=True, fastmath=REORDER)
def nearest(x, center, screen, slack):
    """Per row, the first centre whose half squared distance is within ``slack`` of
    the smallest, and its squared distance.

    Scores in float32 rule out all centres but those within ``screen`` of the
    lowest; these few are compared in the type of ``x``.
    """
    size, dim = x.shape
    columns, half = _half_columns(center)
    score, low = np.empty_like(half), np.empty_like(half)
    row = np.zeros(columns.shape[0], np.float32)
    index, square = np.empty(size, np.int64), np.empty(size, x.dtype)
    near, exact = np.empty(len(center), np.int64), np.empty(len(center), x.dtype)
    for p in range(size):
        for c in range(dim):
            row[c] = x[p, c]
        _scores(row, columns, half, score)
        limit = _fold(score, low) + np.float32(screen)
        count, best = 0, np.inf
        for lane in range(_LANES):
            if low[lane] <= limit:
                for m in range(lane, len(center), _LANES):
                    if score[m] <= limit:
                        near[count], exact[count] = m, _half_square(x[p], center[m])
                        best = min(best, exact[count])
                        count += 1
        index[p] = len(center)
        for i in range(count):
            if exact[i] <= best + slack and near[i] < index[p]:
                index[p], square[p] = near[i], 2 * exact[i]
    return index, square


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

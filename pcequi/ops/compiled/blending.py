"""Which representatives a row blends, and how much of each."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.clusters import (
    LANES,
    fold,
    for_scores,
    half_square,
    scores,
)
from pcequi.ops.compiled.flags import REORDER

__all__ = ["blend"]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _bound(low, count, sorted_low):
    """A score that at least ``count`` centres do not exceed: the ``count``-th lowest
    of the lanes' lowest; all scores are under it where there are fewer lanes."""
    if count > LANES:
        return np.float32(np.inf)
    for lane in range(LANES):
        value, i = low[lane], lane
        while i > 0 and sorted_low[i - 1] > value:
            sorted_low[i] = sorted_low[i - 1]
            i -= 1
        sorted_low[i] = value
    return sorted_low[count - 1]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _apart(center):
    """Half squared distances between centres [M, M]."""
    num = len(center)
    out = np.zeros((num, num), center.dtype)
    for m in range(num):
        for n in range(m):
            out[m, n] = out[n, m] = half_square(center, m, center, n)
    return out


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _solve(system, order, out):
    """Solve ``system`` out = 1 for a positive definite [order, order] matrix, of
    which the lower half is read, by its factors L D L^T, in place."""
    for j in range(order):
        pivot = 1 / system[j, j]
        for i in range(j + 1, order):
            share = system[i, j] * pivot
            for k in range(j + 1, i + 1):
                system[i, k] -= share * system[k, j]
        for i in range(j + 1, order):
            system[i, j] *= pivot
        system[j, j] = pivot
    for j in range(order):
        value = system[0, 0] * 0 + 1
        for k in range(j):
            value -= system[j, k] * out[k]
        out[j] = value
    for j in range(order - 1, -1, -1):
        value = out[j] * system[j, j]
        for k in range(j + 1, order):
            value -= system[k, j] * out[k]
        out[j] = value


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _weights(half, which, apart, few, penalty, threshold, floor, system, out):
    """Weights of the ``few`` nearest centres, whose half squared distances are
    sorted, the next one's after them; into ``out``."""
    edge, order = half[few], 0
    while order < few and half[order] < edge:
        order += 1
    for i in range(order):
        for j in range(i + 1):
            # The product of two differences, from three squared distances.
            system[i, j] = half[i] + half[j] - apart[which[i], which[j]]
        # Below the edge by rounding alone, 1 - half / edge would be zero.
        ridge = penalty * half[i] * (edge / (edge - half[i]))
        system[i, i] = 2 * (half[i] + ridge + floor * edge)
    _solve(system, order, out)
    total = out[0] * 0
    for i in range(order):
        out[i] = max(out[i], 0.0)
        total += out[i]
    left = out[0] * 0
    for i in range(order):
        out[i] = max(out[i] / total - threshold, 0.0)
        left += out[i]
    for i in range(order):
        out[i] /= left
    for i in range(order, few):
        out[i] = 0


@njit(cache=True, nogil=True, fastmath=REORDER)
def blend(x, center, num, few, screen, tie, noise, penalty, threshold, floor, alike):
    """Assignment, distance, and index and weight of the blended centres, per row.

    Scores in float32 rule out all centres but those within ``screen`` of the
    ``few + 1`` nearest; the rest is done in the type of ``x``.
    """
    size = len(x)
    rows, columns, squares, scale, scaled = for_scores(x, center, noise)
    score, low = np.empty((2, len(squares)), np.float32), np.empty_like(squares)
    sorted_low = np.empty(LANES, np.float32)
    apart = _apart(center)
    assignment, distance = np.empty(size, np.int64), np.empty(size, x.dtype)
    index, weight = np.empty((size, num), np.int64), np.zeros((size, num), x.dtype)
    near, exact = np.empty(len(center), np.int64), np.empty(len(center), x.dtype)
    system, out = np.empty((num, num), x.dtype), np.empty(num, x.dtype)
    for p in range(size):
        if p % 2 == 0:
            scores(rows, p, columns, squares, score)
        row = p % 2
        fold(score, row, low)
        limit = _bound(low, few + 1, sorted_low) + np.float32(screen * scaled)
        count, best = 0, np.inf
        for lane in range(LANES):
            if low[lane] <= limit:
                for m in range(lane, len(center), LANES):
                    if score[row, m] <= limit:
                        value = half_square(x, p, center, m)
                        best = min(best, value)
                        i = count
                        while i > 0 and exact[i - 1] > value:
                            exact[i], near[i] = exact[i - 1], near[i - 1]
                            i -= 1
                        exact[i], near[i] = value, m
                        count += 1
        if count <= few:  # where numbers do not compare, as with NaN
            assignment[p], distance[p] = 0, np.inf
            index[p], weight[p, 0] = 0, 1
            continue
        first = 0
        for i in range(1, count):
            if exact[i] <= best + tie * scale and near[i] < near[first]:
                first = i
        assignment[p], distance[p] = near[first], math.sqrt(2 * exact[first])
        index[p] = near[first]
        if few < 1 or exact[few] <= tie * scale or exact[0] >= (1 - alike) * exact[few]:
            weight[p, 0] = 1
            continue
        _weights(exact, near, apart, few, penalty, threshold, floor, system, out)
        for i in range(few):
            weight[p, i] = out[i]
            if out[i] > 0:
                index[p, i] = near[i]
    return assignment, distance, index, weight

"""The rows from which all poses are had back with the least error; see ``pcequi.centers``."""

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER

__all__ = ["fitted_rows", "fitted_weights"]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _signed(share, turn, sign, signed):
    """For one character the shares [N, k] with its signs, into ``signed``."""
    for n in range(len(share)):
        for i in range(share.shape[1]):
            signed[n, i] = share[n, i] * sign[turn[n, i]]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _factor(orbit, signed, gram):
    """The Cholesky factor of S^T S, below the diagonal of ``gram``, from the shares [N, k] of some
    orbits."""
    num = len(gram)
    gram[:] = 0
    for n in range(len(orbit)):
        for i in range(orbit.shape[1]):
            row = gram[orbit[n, i]]
            for j in range(orbit.shape[1]):
                row[orbit[n, j]] += signed[n, i] * signed[n, j]
    for i in range(num):
        if gram[i, i] == 0:  # what stands for nothing
            gram[i, i] = 1
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= gram[i, k] * gram[j, k]
            gram[i, j] = np.sqrt(total) if i == j else total / gram[j, j]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _solve(factor, right):
    """``right`` [M, D] becomes what the matrix of a Cholesky factor [M, M] makes it of."""
    num, dim = right.shape
    for i in range(num):
        for j in range(i):
            for c in range(dim):
                right[i, c] -= factor[i, j] * right[j, c]
        for c in range(dim):
            right[i, c] /= factor[i, i]
    for i in range(num - 1, -1, -1):
        for j in range(i + 1, num):
            for c in range(dim):
                right[i, c] -= factor[j, i] * right[j, c]
        for c in range(dim):
            right[i, c] /= factor[i, i]


@njit(cache=True, nogil=True, fastmath=REORDER)
def fitted_weights(shared, share, signs, num, least):
    """How much of the rows of all poses of N points is in those of the first poses of ``num``
    orbits [num, N, K], from what the first pose of each point shares [N, k] of which and the
    characters [K, K]; the small ones ``ops.faded``."""
    size, points = len(signs), len(shared)
    gram, right = np.empty((num, num)), np.empty((num, points))
    orbit, turn, signed = shared // size, shared % size, np.empty_like(share)
    out = np.zeros((num, points, size))
    for a in range(size):
        _signed(share, turn, signs[a], signed)
        _factor(orbit, signed, gram)
        right[:] = 0
        for n in range(points):
            for i in range(shared.shape[1]):
                right[orbit[n, i], n] += signed[n, i] / size
        _solve(gram, right)
        for m in range(num):
            for n in range(points):
                for k in range(size):
                    out[m, n, k] += signs[a, k] * right[m, n]
    for m in range(num):
        limit = 0.0
        for n in range(points):
            for k in range(size):
                limit = max(limit, least * abs(out[m, n, k]))
        for n in range(points):
            for k in range(size):
                value = abs(out[m, n, k])
                if value <= limit:
                    out[m, n, k] = 0
                elif value < 1.25 * limit:
                    out[m, n, k] *= 4 * (value / limit) - 4
    return out


@njit(cache=True, nogil=True, fastmath=REORDER)
def fitted_rows(shared, share, signs, rows, num):
    """The rows [num * K, D] of all poses of ``num`` orbits, from those of all poses of N points
    [N, K, D]; the rest is as ``fitted_weights`` takes it."""
    size, dim = len(signs), rows.shape[2]
    gram, right, seen = np.empty((num, num)), np.empty((num, dim)), np.empty(dim)
    orbit, turn, signed = shared // size, shared % size, np.empty_like(share)
    out = np.zeros((num * size, dim))
    for a in range(size):
        _signed(share, turn, signs[a], signed)
        _factor(orbit, signed, gram)
        right[:] = 0
        for n in range(len(shared)):
            seen[:] = 0
            for k in range(size):
                for c in range(dim):
                    seen[c] += signs[a, k] * rows[n, k, c]
            for i in range(shared.shape[1]):
                value, total = signed[n, i] / size, right[orbit[n, i]]
                if value != 0:
                    for c in range(dim):
                        total[c] += value * seen[c]
        _solve(gram, right)
        for m in range(num):
            for k in range(size):
                for c in range(dim):
                    out[m * size + k, c] += signs[a, k] * right[m, c]
    return out

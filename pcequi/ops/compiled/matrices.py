"""Symmetric eigenvectors, polar parts and small turns of 3 x 3 matrices."""

import math

import numpy as np
from numba import njit

__all__ = ["eigen", "eigen_each", "polar", "small_turn"]

# Sweeps and steps converge quadratically: these are never reached.
_MOST_SWEEPS = 30
_MOST_STEPS = 50


@njit(cache=True, nogil=True)
def eigen(a, value, axes):
    """Eigenvalues of a symmetric matrix, least first, and eigenvectors, as columns.

    By Jacobi's rotations (Golub and Van Loan, section 8.5), which keep small
    differences of eigenvalues to rounding; ``a`` is lost.
    """
    for i in range(3):
        for j in range(3):
            axes[i, j] = 1.0 if i == j else 0.0
    for _ in range(_MOST_SWEEPS):
        scale = abs(a[0, 0]) + abs(a[1, 1]) + abs(a[2, 2])
        if abs(a[0, 1]) + abs(a[0, 2]) + abs(a[1, 2]) <= 1e-24 * scale:
            break
        for p in range(2):
            for q in range(p + 1, 3):
                if a[p, q] == 0:
                    continue
                r = 3 - p - q
                theta = (a[q, q] - a[p, p]) / (2 * a[p, q])
                t = 1 / (abs(theta) + math.sqrt(theta * theta + 1))
                t = t if theta >= 0 else -t
                c = 1 / math.sqrt(t * t + 1)
                s = t * c
                a[p, p] -= t * a[p, q]
                a[q, q] += t * a[p, q]
                a[p, q] = a[q, p] = 0
                rp, rq = a[r, p], a[r, q]
                a[r, p] = a[p, r] = c * rp - s * rq
                a[r, q] = a[q, r] = s * rp + c * rq
                for i in range(3):
                    ip, iq = axes[i, p], axes[i, q]
                    axes[i, p] = c * ip - s * iq
                    axes[i, q] = s * ip + c * iq
    for i in range(3):
        value[i] = a[i, i]
    for i, j in ((0, 1), (1, 2), (0, 1)):
        if value[j] < value[i]:
            value[i], value[j] = value[j], value[i]
            for k in range(3):
                axes[k, i], axes[k, j] = axes[k, j], axes[k, i]


@njit(cache=True, nogil=True)
def eigen_each(matrices):
    """``eigen`` of each of many matrices [N, 3, 3], which are kept: [N, 3] and [N, 3, 3]."""
    value, axes = np.empty(matrices.shape[:2], matrices.dtype), np.empty_like(matrices)
    a = np.empty((3, 3), matrices.dtype)
    for n in range(len(matrices)):
        a[:] = matrices[n]
        eigen(a, value[n], axes[n])
    return value, axes


@njit(cache=True, nogil=True)
def polar(a):
    """The orthogonal matrix nearest to ``a``, in place; a singular one is left.

    Newton's iteration with scaling: Higham, "Computing the polar decomposition -
    with applications", 1986.
    """
    other = np.empty((3, 3), a.dtype)
    for _ in range(_MOST_STEPS):
        here = there = 0.0
        for i in range(3):
            for j in range(3):
                p, q, r, s = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
                other[i, j] = a[p, r] * a[q, s] - a[p, s] * a[q, r]
        det = a[0, 0] * other[0, 0] + a[0, 1] * other[0, 1] + a[0, 2] * other[0, 2]
        if det == 0:
            return
        for i in range(3):
            for j in range(3):
                other[i, j] /= det
                here += a[i, j] * a[i, j]
                there += other[i, j] * other[i, j]
        scale = math.sqrt(math.sqrt(there / here))
        change = 0.0
        for i in range(3):
            for j in range(3):
                value = (scale * a[i, j] + other[i, j] / scale) / 2
                change += (value - a[i, j]) * (value - a[i, j])
                a[i, j] = value
        if change <= 1e-28:
            return


@njit(cache=True, nogil=True)
def small_turn(w, turn):
    """exp of the cross product with ``w``, at most 0.1 long, by its series."""
    square = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
    sine = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    cosine = (1 - square / 12 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90)))) / 2
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        turn[i, i] = 1 - cosine * (w[j] * w[j] + w[k] * w[k])
        turn[i, j] = cosine * w[i] * w[j] - sine * w[k]
        turn[i, k] = cosine * w[i] * w[k] + sine * w[j]

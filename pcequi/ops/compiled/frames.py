"""The Manhattan frame: fourth moments of the normals, and the climb to their top."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER
from pcequi.ops.compiled.matrices import eigen, polar, small_turn
from pcequi.ops.compiled.neighborhoods import local_moments

__all__ = ["climb", "face_moments"]


@njit(cache=True, nogil=True, fastmath=REORDER)
def face_moments(pos, center, share, radius, degenerate):
    """Fourth moments [9, 9] of the normals at some points, which count for shares [C] of their
    flatness, and the weights' sum."""
    covariance = local_moments(pos, center, radius)
    value, axes = np.empty(3, pos.dtype), np.empty((3, 3), pos.dtype)
    outer = np.empty(9, pos.dtype)
    moments, total = np.zeros((9, 9), pos.dtype), 0.0
    least, tiny = 1e-12 * radius * radius, np.finfo(pos.dtype).tiny
    for t in range(len(center)):
        eigen(covariance[t], value, axes)
        gap = value[1] - value[0]
        if gap / max(value[2], tiny) <= degenerate:
            continue
        flat = min(max(gap / max(value[1], least), 0.0), 1.0)
        flat *= flat * share[t]
        total += flat
        for i in range(3):
            for j in range(3):
                outer[3 * i + j] = axes[i, 0] * axes[j, 0]
        for i in range(9):
            for j in range(9):
                moments[i, j] += flat * outer[i] * outer[j]
    for i in range(9):
        for j in range(9):
            moments[i, j] /= total if total > 0 else 1.0
    return moments, total


@njit(cache=True, nogil=True, forceinline=True)
def _step(moments, R, slope):
    """One step of the ascent: R becomes the polar part of the gradient."""
    for a in range(3):
        for k in range(3):
            total = 0.0
            for b in range(3):
                along = 0.0
                for c in range(3):
                    for d in range(3):
                        along += moments[3 * a + b, 3 * c + d] * R[c, k] * R[d, k]
                total += along * R[b, k]
            slope[a, k] = total + 1e-6 * R[a, k]
    polar(slope)
    for a in range(3):
        for k in range(3):
            R[a, k] = slope[a, k]


@njit(cache=True, nogil=True, forceinline=True)
def _turned(moments, R, both, half, seen):
    """The moments as seen from a frame, into ``seen`` [9, 9]."""
    for a in range(3):
        for b in range(3):
            for i in range(3):
                for j in range(3):
                    both[3 * a + b, 3 * i + j] = R[a, i] * R[b, j]
    for i in range(9):
        for j in range(9):
            half[i, j] = 0
            for k in range(9):
                half[i, j] += moments[i, k] * both[k, j]
    for i in range(9):
        for j in range(9):
            seen[i, j] = 0
            for k in range(9):
                seen[i, j] += both[k, i] * half[k, j]


@njit(cache=True, nogil=True, forceinline=True)
def _newton_turn(seen, least, bend, value, axes, turn):
    """The turn to the top of the second-order model; see ``frames._newton_turn``."""
    total = 4 * (seen[0, 0] + seen[4, 4] + seen[8, 8])
    slope, w = np.empty(3), np.zeros(3)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        # Of a_j a_k, a_k a_i, a_i a_j: their places among the nine products.
        jk, ki, ij = 3 * j + k, 3 * k + i, 3 * i + j
        slope[i] = -4 * (seen[4 * k, 3 * k + j] - seen[4 * j, 3 * j + k])
        bend[i, i] = 24 * seen[jk, jk] + 4 * seen[4 * i, 4 * i] - total
        mixed = -12 * seen[jk, ki] + 2 * (seen[4 * i, ij] + seen[4 * j, ij])
        bend[i, j] = bend[j, i] = mixed
    eigen(bend, value, axes)
    for i in range(3):
        along = axes[0, i] * slope[0] + axes[1, i] * slope[1] + axes[2, i] * slope[2]
        for k in range(3):
            w[k] -= axes[k, i] * along / min(value[i], -least)
    size = math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    for k in range(3):
        w[k] /= max(size / 0.1, 1.0)
    small_turn(w, turn)


@njit(cache=True, nogil=True)
def climb(moments, turns, steps, newton, least):
    """Where the ascent from each frame [S, 3, 3] ends, and how high that is [S]."""
    ends, score = turns.copy(), np.empty(len(turns), turns.dtype)
    a, b, turn = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    both, half, seen = np.empty((9, 9)), np.empty((9, 9)), np.empty((9, 9))
    value = np.empty(3)
    for s in range(len(turns)):
        R = ends[s]
        for _ in range(steps):
            _step(moments, R, a)
        for _ in range(newton):
            _turned(moments, R, both, half, seen)
            _newton_turn(seen, least, a, value, b, turn)
            for i in range(3):
                x, y, z = R[i, 0], R[i, 1], R[i, 2]
                for k in range(3):
                    R[i, k] = x * turn[0, k] + y * turn[1, k] + z * turn[2, k]
        _turned(moments, R, both, half, seen)
        score[s] = seen[0, 0] + seen[4, 4] + seen[8, 8]
    return ends, score

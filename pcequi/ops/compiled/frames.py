"""Frames of clouds: principal axes that differ, fourth moments of the normals, and the climb to
their top."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.axes import plain_axes
from pcequi.ops.compiled.flags import REORDER
from pcequi.ops.compiled.matrices import eigen, polar, small_turn
from pcequi.ops.compiled.neighborhoods import local_moments

__all__ = ["climb", "face_moments", "highest", "plain_frame"]

# Newton's steps below this are rounding.
_STILL = 1e-15


@njit(cache=True, nogil=True, forceinline=True)
def _right_handed(axes):
    """The third axis turned around where they are left-handed."""
    side = 0.0
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        side += (axes[j, 0] * axes[k, 1] - axes[k, 0] * axes[j, 1]) * axes[i, 2]
    for i in range(3):
        axes[i, 2] = -axes[i, 2] if side < 0 else axes[i, 2]


@njit(cache=True, nogil=True)
def plain_frame(pos, generic, one_space):
    """Whether the variances of a cloud [N, 3] in float64 differ; its principal frame [3, 3], with
    signs by a generic vector [3]; and the cloud around its mean [N, 3], in units of its size."""
    n = len(pos)
    center, axes, frame = np.zeros(3), np.empty((3, 3)), np.empty((3, 3))
    for i in range(n):
        for c in range(3):
            center[c] += pos[i, c]
    for c in range(3):
        center[c] /= n
    if not plain_axes(pos, center, one_space, axes):
        return False, frame, axes
    for c in range(3):
        k = 2 - c
        along = generic[0] * axes[0, k] + generic[1] * axes[1, k] + generic[2] * axes[2, k]
        for i in range(3):
            frame[i, c] = -axes[i, k] if along < 0 else axes[i, k]
    _right_handed(frame)
    unit, size = np.empty((n, 3)), 0.0
    for i in range(n):
        square = 0.0
        for c in range(3):
            unit[i, c] = pos[i, c] - center[c]
            square += unit[i, c] * unit[i, c]
        size = max(size, square)
    size = math.sqrt(size)
    for i in range(n):
        for c in range(3):
            unit[i, c] /= size
    return True, frame, unit


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
    """The turn to the top of the second-order model; see ``frames._newton_turn``. Returns its
    angle."""
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
    return size


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
            size = _newton_turn(seen, least, a, value, b, turn)
            for i in range(3):
                x, y, z = R[i, 0], R[i, 1], R[i, 2]
                for k in range(3):
                    R[i, k] = x * turn[0, k] + y * turn[1, k] + z * turn[2, k]
            if size < _STILL:
                break
        _turned(moments, R, both, half, seen)
        score[s] = seen[0, 0] + seen[4, 4] + seen[8, 8]
    return ends, score


@njit(cache=True, nogil=True)
def highest(moments, turns, pos, steps, newton, least, tie):
    """The highest end [3, 3] of the ascents from some frames [S, 3, 3], the first of equals, its
    axes in the order of a cloud's variances; see ``frames._highest``."""
    ends, score = climb(moments, turns, steps, newton, least)
    top, best = score[0], 0
    for s in range(1, len(score)):
        top = max(top, score[s])
    while best < len(score) - 1 and not score[best] >= top * (1 - tie):
        best += 1
    axes, variance = ends[best], np.zeros(3)
    for i in range(len(pos)):
        for k in range(3):
            along = pos[i, 0] * axes[0, k] + pos[i, 1] * axes[1, k] + pos[i, 2] * axes[2, k]
            variance[k] += along * along
    unit = tie * (variance[0] + variance[1] + variance[2])
    frame = np.empty((3, 3))
    for k in range(3):
        own, place = np.rint(variance[k] / unit), 0
        for other in range(3):
            rank = np.rint(variance[other] / unit)
            place += rank > own or (rank == own and other < k)
        for i in range(3):
            frame[i, place] = axes[i, k]
    _right_handed(frame)
    return frame

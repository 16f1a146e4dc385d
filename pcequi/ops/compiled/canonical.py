"""The canonical pose and order of a cloud in which nothing ties."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.axes import plain_axes
from pcequi.ops.compiled.flags import REORDER

__all__ = ["plain_pose"]

# Taylor's coefficients of sin(2 pi t), up to the 17th power: to 3e-8 within half a turn.
_TURNS = tuple(
    np.float32((-1.0) ** n * (2 * math.pi) ** (2 * n + 1) / math.factorial(2 * n + 1))
    for n in range(9)
)
# Points whose sines are added in single precision.
_BLOCK = 1024
# Bits of a rounded coordinate, and of what is sorted by at once.
_BITS, _DIGIT = 16, 8


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _score(pos, frame, waves, phase):
    """``canonical._score`` of columns [3, N] as seen from a frame, in single precision, in which
    vector registers hold twice as many points."""
    x, y, z = pos[0], pos[1], pos[2]
    total, turn = 0.0, 1 / (2 * math.pi)
    for w in range(3):
        p, q, r = turn * waves[w, 0], turn * waves[w, 1], turn * waves[w, 2]
        a = np.float32(frame[0, 0] * p + frame[0, 1] * q + frame[0, 2] * r)
        b = np.float32(frame[1, 0] * p + frame[1, 1] * q + frame[1, 2] * r)
        c = np.float32(frame[2, 0] * p + frame[2, 1] * q + frame[2, 2] * r)
        shift = np.float32(turn * phase[w])
        for start in range(0, len(x), _BLOCK):
            part = np.float32(0)
            for i in range(start, min(start + _BLOCK, len(x))):
                t = shift + a * x[i] + b * y[i] + c * z[i]
                t -= np.rint(t)
                square = t * t
                sine = _TURNS[8]
                for n in range(7, -1, -1):
                    sine = sine * square + _TURNS[n]
                part += t * sine
            total += part
    return total / (3 * len(x))


@njit(cache=True, nogil=True, forceinline=True)
def _ascending(key):
    """Rows of whole numbers of three coordinates' bits in ascending order, the first of equals
    first: digit by digit, the last one first."""
    rows, other = np.empty(len(key), np.int64), np.empty(len(key), np.int64)
    for i in range(len(key)):
        rows[i] = i
    for shift in range(0, 3 * _BITS, _DIGIT):
        place = np.zeros((1 << _DIGIT) + 1, np.int64)
        for i in range(len(key)):
            place[((key[i] >> shift) & ((1 << _DIGIT) - 1)) + 1] += 1
        for digit in range(1, len(place)):
            place[digit] += place[digit - 1]
        for i in range(len(key)):
            row = rows[i]
            digit = (key[row] >> shift) & ((1 << _DIGIT) - 1)
            other[place[digit]] = row
            place[digit] += 1
        rows, other = other, rows
    return rows


@njit(cache=True, nogil=True)
def plain_pose(pos, orders, waves, phase, one_space, sure, order):
    """The canonical frame, order and turned cloud of a centred cloud [N, 3] in float64.

    ``orders`` [F, 3, 3] of the principal axes, with signs; ``waves`` [3, 3] and ``phase`` [3] of
    the score that chooses one; ``one_space``, the least difference of variances; ``sure``, that
    of the two largest scores; ``order``, to which coordinates are rounded for the order, in units
    of the cloud's size, 2^-14 or more. Whether all differ comes first: if not, the rest is void.
    """
    n = len(pos)
    axes, frame, found = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    if not plain_axes(pos, np.zeros(3), one_space, axes):
        return False, found, np.empty(0, np.int64), axes
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        axes[i, 2] = axes[j, 0] * axes[k, 1] - axes[k, 0] * axes[j, 1]
    size = 0.0
    for i in range(n):
        size = max(size, pos[i, 0] * pos[i, 0] + pos[i, 1] * pos[i, 1] + pos[i, 2] * pos[i, 2])
    size = math.sqrt(size)
    unit = np.empty((3, n), np.float32)
    for i in range(n):
        for c in range(3):
            unit[c, i] = pos[i, c] / size
    first = second = -math.inf
    for f in range(len(orders)):
        for i in range(3):
            for k in range(3):
                frame[i, k] = 0
                for j in range(3):
                    frame[i, k] += axes[i, j] * orders[f, j, k]
        score = _score(unit, frame, waves, phase)
        if score > first:
            first, second = score, first
            frame, found = found, frame
        elif score > second:
            second = score
    if first - second <= sure:
        return False, found, np.empty(0, np.int64), axes
    step, middle = size * order, 1 << (_BITS - 1)
    turned, key = np.empty((n, 3)), np.zeros(n, np.int64)
    for i in range(n):
        x, y, z = pos[i, 0], pos[i, 1], pos[i, 2]
        for c in range(3):
            value = x * found[0, c] + y * found[1, c] + z * found[2, c]
            turned[i, c] = value
            key[i] = (key[i] << _BITS) + int(np.rint(value / step)) + middle
    rows, ordered = _ascending(key), np.empty((n, 3))
    for i in range(n):
        for c in range(3):
            ordered[i, c] = turned[rows[i], c]
    return True, found, rows, ordered

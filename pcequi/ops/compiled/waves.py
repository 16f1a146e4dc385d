"""A generic function of a cloud seen from many frames: means of sines."""

import math

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER

__all__ = ["wave_means"]

# Taylor's coefficients up to the 21st power: to rounding within a quarter turn.
_SINE = tuple((-1.0) ** n / math.factorial(2 * n + 1) for n in range(11))


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _sine(x):
    """sin(x) for small x, without the branches of the library's, so that loops over it use
    vector registers: ``math.floor`` would make whole numbers, of which AVX2 has no vectors."""
    half_turns = np.rint(x / math.pi)
    r = x - half_turns * math.pi
    square = r * r
    total = _SINE[10]
    for n in range(9, -1, -1):
        total = total * square + _SINE[n]
    return r * total * (1 - 2 * (half_turns - 2 * np.floor(half_turns / 2)))


@njit(cache=True, nogil=True, fastmath=REORDER)
def wave_means(columns, waves, phase):
    """Mean of sin(waves . x + phase) over points and waves.

    ``columns`` [D, N], ``waves`` [F, W, D], ``phase`` [W]; result [F]. D is 3, plus
    3 where points have normals, plus the numbers that they bring.
    """
    dim, size = columns.shape
    out, seen = np.zeros(len(waves), columns.dtype), np.empty(size, columns.dtype)
    for f in range(waves.shape[0]):
        total = 0.0
        for w in range(waves.shape[1]):
            for i in range(size):
                seen[i] = phase[w]
            for c in range(dim):
                for i in range(size):
                    seen[i] += waves[f, w, c] * columns[c, i]
            for i in range(size):
                total += _sine(seen[i])
        out[f] = total / (size * waves.shape[1])
    return out

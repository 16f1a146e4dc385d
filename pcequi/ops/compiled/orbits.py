"""What the poses of a point have in common."""

import numpy as np
from numba import njit

__all__ = ["spread"]


@njit(cache=True, nogil=True)
def spread(code, products):
    """``Orbits.spread`` of [N, k]: [N * K, k]."""
    size = len(products)
    out = np.empty((len(code) * size, code.shape[1]), np.int64)
    for p in range(len(code)):
        for j in range(code.shape[1]):
            turn = code[p, j] % size
            for k in range(size):
                out[p * size + k, j] = code[p, j] - turn + products[turn, k]
    return out

"""Rows of a sparse matrix as a dense one."""

import numpy as np
from numba import njit

__all__ = ["fill_bfloat16"]


@njit(cache=True, nogil=True)
def fill_bfloat16(entries, col, val, out, columns):
    """Put the entries of rows of float32 into the zeros ``out`` [rows * columns], as the bits
    of bfloat16, rounded to even."""
    bits = val.view(np.int32)
    place = 0
    for row in range(len(entries)):
        first = row * columns
        for _ in range(entries[row]):
            value = bits[place]
            out[first + col[place]] = (value + 0x7FFF + ((value >> 16) & 1)) >> 16
            place += 1

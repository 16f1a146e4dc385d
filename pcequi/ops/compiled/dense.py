"""Rows of a sparse matrix as a dense one, and its Fourier transform over a group of half turns.

Of bfloat16, which NumPy does not know, arrays hold the bits in 16-bit integers.
"""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from pcequi.ops.compiled.flags import REORDER

__all__ = [
    "fill",
    "fill_characters",
    "fourier",
    "fourier_back",
    "to_characters",
    "to_poses",
]


def _wide(value):
    """A number of either kind as a float."""


def _put(to, place, value):
    """``to[place] = value``, rounded to even."""


@overload(_wide)
def _wide_of(value):
    if isinstance(value, types.Integer):
        return lambda value: np.int32(np.int32(value) << np.int32(16)).view(np.float32)
    return lambda value: value


@overload(_put)
def _put_into(to, place, value):
    if not isinstance(to.dtype, types.Integer):

        def put(to, place, value):
            to[place] = value

        return put

    def put_bits(to, place, value):
        bits = np.float32(value).view(np.int32)
        odd = (bits >> np.int32(16)) & np.int32(1)
        to[place] = (bits + np.int32(0x7FFF) + odd) >> np.int32(16)

    return put_bits


@njit(cache=True, nogil=True)
def fill(entries, col, val, out, columns):
    """Put the entries of rows into the zeros ``out`` [rows * columns]."""
    place = 0
    for row in range(len(entries)):
        first = row * columns
        for _ in range(entries[row]):
            _put(out, first + col[place], val[place])
            place += 1


# Walsh-Hadamard transforms of rows; each row by itself, so that the compiler knows that it is
# contiguous and uses vector registers.
@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _transform2(x0, x1, out0, out1, scale):
    for c in range(len(x0)):
        a, b = _wide(x0[c]), _wide(x1[c])
        _put(out0, c, scale * (a + b))
        _put(out1, c, scale * (a - b))


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _transform4(x0, x1, x2, x3, out0, out1, out2, out3, scale):
    for c in range(len(x0)):
        a, b, d, e = _wide(x0[c]), _wide(x1[c]), _wide(x2[c]), _wide(x3[c])
        a, b, d, e = a + b, a - b, d + e, d - e
        _put(out0, c, scale * (a + d))
        _put(out1, c, scale * (b + e))
        _put(out2, c, scale * (a - d))
        _put(out3, c, scale * (b - e))


@njit(cache=True, nogil=True, forceinline=True)
def _transform(size, x, out, scale):
    """Of ``size`` rows, 2 or 4: the first two and the last two, which may be the same."""
    if size == 2:
        _transform2(x[0], x[1], out[0], out[1], scale)
    else:
        _transform4(x[0], x[1], x[2], x[3], out[0], out[1], out[2], out[3], scale)


@njit(cache=True, nogil=True)
def _combine(rows, first, given, members, places):
    """The B rows from ``first`` on become sums of them with the signs of characters, in place:
    the rows ``members`` of each orbit [n, 4] those at ``places`` [n, 4]; below zero there is
    none, and an orbit has 1, 2 or 4."""
    one = np.float32(1)
    for b in range(len(given)):
        row, to = rows[first + b], given[b]
        for c in range(len(to)):
            to[c] = row[c]
    for o in range(len(members)):
        a, b, c, d = given[members[o, 0]], members[o, 1], members[o, 2], members[o, 3]
        to = rows[first + places[o, 0]]
        if b < 0:
            to[:] = a
        elif c < 0:
            _transform2(a, given[b], to, rows[first + places[o, 1]], one)
        else:
            ends = to, rows[first + places[o, 1]]
            rest = rows[first + places[o, 2]], rows[first + places[o, 3]]
            _transform4(a, given[b], given[c], given[d], *ends, *rest, one)


@njit(cache=True, nogil=True)
def fill_characters(entries, col, val, out, basis, members, places):
    """Blocks of each character [G, K, R, T] of rows whose columns are (point, pose). The rows of
    each point, ``basis`` of them, are taken apart by orbits, see ``_combine``; where there are
    none they stay."""
    clouds, size, rows, points = out.shape
    given = np.empty((basis, points), out.dtype)
    row, one = np.zeros((size, points), val.dtype), np.float32(1)
    place = 0
    for g in range(clouds):
        to = out[g]
        for r in range(rows):
            stop = place + entries[g * rows + r]
            for e in range(place, stop):
                c = np.int64(col[e])
                row[c % size, c // size] = val[e]
            ends = (to[0, r], to[1, r], to[size - 2, r], to[size - 1, r])
            _transform(size, (row[0], row[1], row[size - 2], row[size - 1]), ends, one)
            for e in range(place, stop):
                c = np.int64(col[e])
                row[c % size, c // size] = 0
            place = stop
            if len(members) and (r + 1) % basis == 0:  # while they are in the cache
                for k in range(size):
                    _combine(to[k], r + 1 - basis, given, members, places)


@njit(cache=True, nogil=True, parallel=True)
def fourier(x, out, inverse, scale):
    """x [G, P, K, B, C + S] to [G, K, P, B * C], see ``ops.dense._Fourier``; ``inverse`` [K, B]
    is the inverse of each turn."""
    size, basis = inverse.shape
    width = out.shape[3]
    channels = width // basis
    for g in prange(len(x)):
        row, to = np.empty((size, width), x.dtype), out[g]
        for p in range(x.shape[1]):
            for k in range(size):
                for b in range(basis):
                    source, shift = x[g, p, k, inverse[k, b]], b * channels
                    for c in range(channels):
                        row[k, shift + c] = source[c]
            ends = (to[0, p], to[1, p], to[size - 2, p], to[size - 1, p])
            _transform(size, (row[0], row[1], row[size - 2], row[size - 1]), ends, scale)


@njit(cache=True, nogil=True, parallel=True)
def fourier_back(x, out, inverse, scale, spare, last):
    """x [G, K, P, B * C] to [G, P, K, B, C + S], whose last S are ``last`` [G, P, B]."""
    size, basis = inverse.shape
    width = x.shape[3]
    channels = width // basis
    for g in prange(len(x)):
        row, given = np.empty((size, width), x.dtype), x[g]
        for p in range(x.shape[2]):
            begins = (given[0, p], given[1, p], given[size - 2, p], given[size - 1, p])
            ends = (row[0], row[1], row[size - 2], row[size - 1])
            _transform(size, begins, ends, scale)
            for k in range(size):
                for b in range(basis):
                    to, shift = out[g, p, k, inverse[k, b]], b * channels
                    for c in range(channels):
                        to[c] = row[k, shift + c]
                    for c in range(channels, channels + spare):
                        to[c] = last[g, p, b]


@njit(cache=True, nogil=True, parallel=True)
def to_characters(x, out, scale):
    """x [N, K, C] to [K, N, C], sums with the signs of each character."""
    size = x.shape[1]
    for n in prange(len(x)):
        ends = (out[0, n], out[1, n], out[size - 2, n], out[size - 1, n])
        _transform(size, (x[n, 0], x[n, 1], x[n, size - 2], x[n, size - 1]), ends, scale)


@njit(cache=True, nogil=True, parallel=True)
def to_poses(x, out, scale):
    """x [K, N, C] to [N, K, C], sums with the signs of each pose."""
    size = x.shape[0]
    for n in prange(x.shape[1]):
        ends = (out[n, 0], out[n, 1], out[n, size - 2], out[n, size - 1])
        _transform(size, (x[0, n], x[1, n], x[size - 2, n], x[size - 1, n]), ends, scale)

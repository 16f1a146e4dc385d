"""Sums of the basis on pairs of points with normals; see ``pair_kernel``."""

import math

import numpy as np
from numba import njit, uint64

from pcequi.ops.compiled.flags import REORDER
from pcequi.ops.compiled.neighborhoods import _BLOCK, _in_blocks, _near, _offsets

__all__ = ["lift_pairs", "pair_operator"]


# Functions of one column lie side by side, in whole vector registers.
_WIDE = 8


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _hats(value, count, num, out):
    """Linear hats at ``num`` even places of [0, 1], into ``out`` [num, count]."""
    for h in range(num):
        for i in range(count):
            out[h, i] = max(1 - abs(value[i] * (num - 1) - h), 0.0) if num > 1 else 1.0


# One short loop each, over few rows: the compiler gives up on a loop in which it has to see for
# itself that many of them do not overlap.
@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _distances(x, y, z, inverse, coincide, count, r, scale):
    """Lengths of offsets times ``inverse``, and what makes units of these offsets."""
    for i in range(count):
        r[i] = math.sqrt(x[i] * x[i] + y[i] * y[i] + z[i] * z[i]) * inverse
    for i in range(count):
        scale[i] = inverse / (r[i] + coincide)


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _slopes(x, y, z, normal, scale, count, a):
    """Cosines between offsets and a normal."""
    p, q, t = normal[0], normal[1], normal[2]
    for i in range(count):
        a[i] = (p * x[i] + q * y[i] + t * z[i]) * scale[i]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _far_slopes(x, y, z, p, q, t, scale, count):
    """Cosines between offsets and the normals at their ends, into ``x``."""
    for i in range(count):
        x[i] = (p[i] * x[i] + q[i] * y[i] + t[i] * z[i]) * scale[i]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _cosines(p, q, t, normal, count):
    """Cosines between normals and a normal, into ``p``."""
    x, y, z = normal[0], normal[1], normal[2]
    for i in range(count):
        p[i] = x * p[i] + y * q[i] + z * t[i]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _sides(a, b, e, width, count, side):
    for i in range(count):
        cosine = min(max(e[i], -1.0), 1.0)
        side[i] = (1 + min(max(a[i] * b[i] * cosine * width, -1.0), 1.0)) / 2


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _within(value, count, out):
    """Absolute values, at most one."""
    for i in range(count):
        out[i] = min(abs(value[i]), 1.0)


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _rests(r, count):
    """1 - r^2 in place of r, where it is positive, and the sum."""
    mass = 0.0
    for i in range(count):
        r[i] = max(1 - r[i] * r[i], 0.0)
        mass += r[i]
    return mass


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _see_pairs(
    offset, count, near, axes, normal, inverse, pairs, limits, seen, hats, near_hats, far
):
    """Functions of neighbours: those of r and a, with 1 - r^2 in them, into
    ``near_hats`` [pairs[0] * pairs[1], count], those of b and e into ``far``
    [pairs[2] * pairs[3], count]. The sum of 1 - r^2.

    ``limits`` are COINCIDE and SIGN_WIDTH of ``pair_kernel``; ``seen`` and ``hats`` are
    scratch, and so is ``offset`` afterwards.
    """
    for i in range(count):
        s = near[i]
        seen[0, i], seen[1, i], seen[2, i] = axes[s, 0], axes[s, 1], axes[s, 2]
    x, y, z, p, q, t = offset[0], offset[1], offset[2], seen[0], seen[1], seen[2]
    scale, r, a, side = seen[3], seen[5], seen[6], seen[4]
    _distances(x, y, z, inverse, limits[0], count, r, scale)
    _slopes(x, y, z, normal, scale, count, a)
    _far_slopes(x, y, z, p, q, t, scale, count)  # into x
    _cosines(p, q, t, normal, count)  # into p
    _sides(a, x, p, 1 / limits[1], count, side)
    _within(a, count, seen[1])
    _within(x, count, seen[2])
    _within(p, count, seen[3])
    _within(r, count, seen[0])
    mass = _rests(r, count)
    kd, ka, kb, ke = pairs
    _hats(seen[0], count, kd, hats)
    for d in range(kd):
        for i in range(count):
            hats[d, i] *= seen[5, i]
    _hats(seen[1], count, ka, hats[kd:])
    for d in range(kd):
        for a in range(ka):
            row, first, second = near_hats[d * ka + a], hats[d], hats[kd + a]
            for i in range(count):
                row[i] = first[i] * second[i]
    _hats(seen[3], count, ke, hats)
    for h in range(kb):
        for i in range(count):
            far_side = max(1 - abs((1 + seen[2, i]) / 2 * (kb - 1) - h), 0.0)
            near_side = max(1 - abs((1 - seen[2, i]) / 2 * (kb - 1) - h), 0.0)
            hats[ke, i] = seen[4, i] * far_side + (1 - seen[4, i]) * near_side
        for e in range(ke):
            row, first, second = far[h * ke + e], hats[ke], hats[e]
            for i in range(count):
                row[i] = first[i] * second[i]
    return mass


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _dot(left, right, count):
    total = 0.0
    for i in range(count):
        total += left[i] * right[i]
    return total


@njit(cache=True, nogil=True, forceinline=True)
def _room(size, pairs, like):
    """Scratch arrays for ``size`` neighbours."""
    hats = max(pairs[0] + pairs[1], pairs[3] + 1)
    return (
        np.empty(size + _BLOCK, np.uint32),
        np.empty(_BLOCK, np.uint32),
        np.empty((3, size), like.dtype),
        np.empty((7, size), like.dtype),
        np.empty((hats, size), like.dtype),
        np.empty((pairs[0] * pairs[1], size), like.dtype),
        np.empty((pairs[2] * pairs[3], size), like.dtype),
    )


@njit(cache=True, nogil=True, fastmath=REORDER)
def lift_pairs(target, normal, source, axes, radius, pairs, limits):
    """Means of the basis over the sources around each target, [T, B], and the sums of
    1 - r^2 over them [T]."""
    first, second = pairs[0] * pairs[1], pairs[2] * pairs[3]
    out = np.empty((len(target), first * second), target.dtype)
    masses = np.empty(len(target), target.dtype)
    columns, extent = _in_blocks(source)
    near, flag, offset, seen, hats, here, there = _room(len(source), pairs, target)
    tiny = np.finfo(target.dtype).tiny
    for t in range(len(target)):
        count = _near(target[t], columns, extent, radius, near, flag)
        _offsets(source, near, count, target[t], offset)
        mass = _see_pairs(
            offset, count, near, axes, normal[t], 1 / radius, pairs, limits, seen, hats, here, there
        )
        masses[t] = mass
        scale = 1 / max(mass, tiny)
        for p in range(first):
            for q in range(second):
                out[t, p * second + q] = _dot(here[p], there[q], count) * scale
    return out, masses


@njit(cache=True, nogil=True, fastmath=REORDER)
def pair_operator(pos, normal, source, axes, shared, share, below, radius, pairs, limits):
    """Rows of A, coalesced as they are made: one dense scratch matrix a target.

    ``shared`` and ``share`` are [S, k]: representatives of each source's one pose.
    """
    first, second = pairs[0] * pairs[1], pairs[2] * pairs[3]
    num, basis = len(pos), first * second
    wide = -(-basis // _WIDE) * _WIDE
    columns, extent = _in_blocks(source)
    near, flag, offset, seen, hats, here, there = _room(len(source), pairs, pos)
    phi = np.zeros(wide, pos.dtype)
    touched, used = np.zeros(below, np.bool_), np.empty(below + 1, np.uint32)
    scratch = np.zeros((below, wide), pos.dtype)
    ptr = np.zeros(num * basis + 1, np.int64)
    # Room for more than is common: pages that are not written to cost nothing.
    col, val = np.empty(num * 512, np.int64), np.empty(num * 512, pos.dtype)
    size = uint64(0)  # unsigned: no check for indices that count from the end
    for t in range(num):
        count = _near(pos[t], columns, extent, radius, near, flag)
        _offsets(source, near, count, pos[t], offset)
        mass = _see_pairs(
            offset, count, near, axes, normal[t], 1 / radius, pairs, limits, seen, hats, here, there
        )
        for i in range(count):
            for p in range(first):
                for q in range(second):
                    phi[p * second + q] = here[p, i] * there[q, i]
            for j in range(shared.shape[1]):
                part = share[near[i], j]
                if part > 0:
                    c = shared[near[i], j]
                    touched[c] = True
                    row = scratch[c]
                    for k in range(wide):
                        row[k] += part * phi[k]
        scale = 1 / mass if mass > 0 else 0.0
        count = uint64(0)
        for c in range(below):
            used[count] = c
            count += uint64(touched[c])
            touched[c] = False
        most = size + basis * count + 1
        if most > len(col):
            grown_col, grown_val = np.empty(2 * most, np.int64), np.empty(2 * most, pos.dtype)
            for e in range(size):
                grown_col[e], grown_val[e] = col[e], val[e]
            col, val = grown_col, grown_val
        for b in range(basis):
            for i in range(count):
                c = used[i]
                entry = scratch[c, b]
                scratch[c, b] = 0
                col[size], val[size] = c, entry * scale
                size += uint64(entry != 0)  # an entry that is zero is written over
            ptr[t * basis + b + 1] = size
    return ptr, col[:size], val[:size]

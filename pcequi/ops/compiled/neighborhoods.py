"""Sums over the points around poses: moments, the lifting layer, the operator."""

import numpy as np
from numba import njit, uint32, uint64

from pcequi.ops.compiled.flags import REORDER

__all__ = ["lift", "local_moments", "operator"]

# Points that are looked at or passed over together. A cloud in canonical order
# is sorted by its first coordinate, so that its blocks are slices.
_BLOCK = 32
# Basis functions that are computed together.
_WIDE = 16


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _in_blocks(source):
    """Coordinates [blocks, 3, _BLOCK], infinite where there is no point, and the
    least and largest first coordinate of each block [2, blocks]."""
    size = source.shape[0]
    blocks = -(-size // _BLOCK)
    columns = np.full((blocks, 3, _BLOCK), np.inf, source.dtype)
    extent = np.empty((2, blocks), source.dtype)
    for s in range(size):
        b = s // _BLOCK
        for c in range(3):
            columns[b, c, s % _BLOCK] = source[s, c]
        if s % _BLOCK == 0:
            extent[0, b] = extent[1, b] = source[s, 0]
        extent[0, b] = min(extent[0, b], source[s, 0])
        extent[1, b] = max(extent[1, b], source[s, 0])
    return columns, extent


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _near(center, columns, extent, radius, near, flag):
    """Points within the radius, in their order, into ``near``, which has room for
    all and a block more; how many. ``flag`` [_BLOCK] is scratch."""
    x, y, z, limit = center[0], center[1], center[2], radius * radius
    count = uint64(0)  # unsigned: no check for indices that count from the end
    for b in range(extent.shape[1]):
        if extent[0, b] > x + radius or extent[1, b] < x - radius:
            continue
        for i in range(_BLOCK):
            dx, dy, dz = columns[b, 0, i] - x, columns[b, 1, i] - y, columns[b, 2, i] - z
            flag[i] = uint32(dx * dx + dy * dy + dz * dz <= limit)
        for i in range(_BLOCK):
            near[count] = uint32(b * _BLOCK + i)
            count += uint64(flag[i])
    return np.int64(count)


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _offsets(source, near, count, center, offset):
    """Neighbours less the centre, into ``offset`` [3, count]."""
    x, y, z = center[0], center[1], center[2]
    for i in range(count):
        s = near[i]
        offset[0, i] = source[s, 0] - x
        offset[1, i] = source[s, 1] - y
        offset[2, i] = source[s, 2] - z


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _see(source, near, first, count, center, frame, radius, inverse, seen):
    """Neighbours from ``first`` on as seen from a centre, in a frame and in units of the radius,
    and one less their squares times ``inverse``, into ``seen`` [4, _BLOCK]. Places after the last
    neighbour lie outside all functions."""
    scale = 1 / radius
    a, b, c = frame[0, 0] * scale, frame[1, 0] * scale, frame[2, 0] * scale
    d, e, f = frame[0, 1] * scale, frame[1, 1] * scale, frame[2, 1] * scale
    g, h, k = frame[0, 2] * scale, frame[1, 2] * scale, frame[2, 2] * scale
    x, y, z = center[0], center[1], center[2]
    filled = min(count - first, _BLOCK)
    for i in range(filled):
        s = near[first + i]
        seen[0, i], seen[1, i], seen[2, i] = source[s, 0] - x, source[s, 1] - y, source[s, 2] - z
    # In place and one block at a time: the compiler gives up on more rows that may overlap.
    for i in range(_BLOCK):
        x, y, z = seen[0, i], seen[1, i], seen[2, i]
        u, v, w = a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + k * z
        seen[0, i], seen[1, i], seen[2, i] = u, v, w
        seen[3, i] = 1 - (u * u + v * v + w * w) * inverse
    for i in range(filled, _BLOCK):
        seen[0, i], seen[1, i], seen[2, i], seen[3, i] = 0, 0, 0, -1


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _planes(points, width):
    """The space basis as max(1 - |v|^2 / width^2 + planes . (v, 1), 0)^2, [B, 4]."""
    planes = np.zeros((points.shape[0], 4), points.dtype)
    inverse = 1 / (width * width)
    for b in range(points.shape[0]):
        for c in range(3):
            planes[b, c] = 2 * inverse * points[b, c]
            planes[b, 3] -= inverse * points[b, c] * points[b, c]
    return planes


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _space_basis(planes, b, seen, phi):
    """One function of the space basis at a block of points that were seen, into ``phi``; their
    sum."""
    p0, p1, p2, p3 = planes[b, 0], planes[b, 1], planes[b, 2], planes[b, 3]
    total = p0 * 0
    for i in range(_BLOCK):
        value = seen[3, i] + p3 + p0 * seen[0, i] + p1 * seen[1, i] + p2 * seen[2, i]
        value = max(value, 0.0)
        phi[i] = value * value
        total += value * value
    return total


@njit(cache=True, nogil=True, fastmath=REORDER)
def lift(target, frame, source, feature, radius, points, width, slot):
    """Kernel-point means of one and of each feature [S, F] around each target, for K
    choices ``slot`` [K, B] of the points: [T, K, B, 1 + F], no [pairs x points] array."""
    size, basis, channels = target.shape[0], points.shape[0], feature.shape[1]
    out = np.empty((size, *slot.shape, 1 + channels), target.dtype)
    sums, tiny = np.empty((basis, 1 + channels), target.dtype), np.finfo(target.dtype).tiny
    planes, inverse = _planes(points, width), 1 / (width * width)
    columns, extent = _in_blocks(source)
    near, flag = np.empty(len(source) + _BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    seen, phi = np.empty((4, _BLOCK), target.dtype), np.empty(_BLOCK, target.dtype)
    for t in range(size):
        count = _near(target[t], columns, extent, radius, near, flag)
        for b in range(basis):
            for c in range(1 + channels):
                sums[b, c] = 0
        for first in range(0, count, _BLOCK):
            _see(source, near, first, count, target[t], frame[t], radius, inverse, seen)
            for b in range(basis):
                sums[b, 0] += _space_basis(planes, b, seen, phi)
                for c in range(channels):
                    total = 0.0
                    for i in range(min(count - first, _BLOCK)):
                        total += phi[i] * feature[near[first + i], c]
                    sums[b, 1 + c] += total
        for k in range(slot.shape[0]):
            mass = 0.0
            for b in range(slot.shape[1]):
                mass += sums[slot[k, b], 0]
            share = 1 / max(mass, tiny)
            for b in range(slot.shape[1]):
                for c in range(1 + channels):
                    out[t, k, b, c] = sums[slot[k, b], c] * share
    return out


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _nearest_turns(R, anchors, frames, place, edge, tie, wanted, score, chosen, factor):
    """For each anchor, the first of a place's frames nearest to ``R`` times it,
    into ``chosen``, and how much of it counts, into ``factor``."""
    for a in range(anchors.shape[0]):
        for i in range(3):
            for k in range(3):
                total = 0.0
                for j in range(3):
                    total += R[i, j] * anchors[a, j, k]
                wanted[3 * i + k] = total
        best = -4.0
        for k in range(frames.shape[1]):
            total = 0.0
            for j in range(9):
                total += wanted[j] * frames[place, k, j]
            score[k] = total
            best = max(best, total)
        for k in range(frames.shape[1]):
            if score[k] >= best - tie:
                chosen[a] = k
                factor[a] = min(1.0, max(0.0, (score[k] - edge) / (3 - edge)))
                break


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _wide_planes(points, width):
    """``_planes`` as columns [4, B'], where B' fills vector registers: functions
    that only fill up are zero everywhere."""
    basis = points.shape[0]
    out = np.zeros((4, -(-basis // _WIDE) * _WIDE), points.dtype)
    planes = _planes(points, width)
    for b in range(out.shape[1]):
        out[3, b] = -2
        if b < basis:
            for c in range(4):
                out[c, b] = planes[b, c]
    return out


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _functions(planes, u, v, w, rest, phi):
    """All functions of the space basis at one point that was seen, into ``phi``; their sum."""
    total = rest * 0
    for b in range(planes.shape[1] // _WIDE * _WIDE):  # a multiple: no single functions are left
        value = rest + planes[3, b] + planes[0, b] * u + planes[1, b] * v + planes[2, b] * w
        value = max(value, 0.0)
        phi[b] = value * value
        total += value * value
    return total


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def _add(target, part, phi):
    """``part`` of all functions to those of a column."""
    for b in range(len(phi) // _WIDE * _WIDE):
        target[b] += part * phi[b]


@njit(cache=True, nogil=True, fastmath=REORDER)
def operator(
    pos, rot, source, frames, shared, share, below, radius, points, width, anchors, edge, tie, axial
):
    """Rows of A, coalesced as they are made: one dense scratch matrix a target.

    ``frames`` is [S, K, 9], or [1, K, 9] when all points share their frames; with
    ``axial`` K is 1 and the rotation to it does not matter.
    """
    num, basis, turns = pos.shape[0], points.shape[0], anchors.shape[0]
    common = frames.shape[0] == 1
    planes, inverse = _wide_planes(points, width), 1 / (width * width)
    wide = planes.shape[1]
    columns, extent = _in_blocks(source)
    near, flag = np.empty(len(source) + _BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    seen, phi = np.empty((4, _BLOCK), pos.dtype), np.empty(wide, pos.dtype)
    wanted, score = np.empty(9, pos.dtype), np.empty(frames.shape[1], pos.dtype)
    chosen, factor = np.zeros(turns, np.int64), np.zeros(turns, pos.dtype)
    touched, used = np.zeros(below, np.bool_), np.empty(below + 1, np.uint32)
    # All functions of one column lie side by side: an entry is a few vector additions.
    scratch = np.zeros((below, turns, wide), pos.dtype)
    ptr = np.zeros(num * basis * turns + 1, np.int64)
    # Room for more than is common, as pages that are not written to cost nothing; but a request
    # for too many is refused.
    room = min(num * basis * turns * min(below, 64) + 1, max(num * 256, 2**22))
    col, val = np.empty(room, np.int64), np.empty(room, pos.dtype)
    size = uint64(0)  # unsigned: no check for indices that count from the end
    for t in range(num):
        count = _near(pos[t], columns, extent, radius, near, flag)
        R = rot[t]
        mass = 0.0
        for i in range(count):
            s, p = near[i], i % _BLOCK
            if p == 0:
                _see(source, near, i, count, pos[t], R, radius, inverse, seen)
            if axial:
                chosen[:], factor[:] = 0, 1
            elif i == 0 or not common:
                place = 0 if common else np.int64(s)
                _nearest_turns(R, anchors, frames, place, edge, tie, wanted, score, chosen, factor)
            mass += _functions(planes, seen[0, p], seen[1, p], seen[2, p], seen[3, p], phi)
            for a in range(turns):
                k, whole = uint64(chosen[a]), factor[a]
                for j in range(shared.shape[2]):
                    part = share[s, k, j] * whole
                    if part > 0:
                        c = uint64(shared[s, k, j])
                        touched[c] = True
                        _add(scratch[c, a], part, phi)
        scale = 1 / mass if mass > 0 else 0.0
        count = uint64(0)
        for c in range(below):
            used[count] = c
            count += uint64(touched[c])
            touched[c] = False
        most = size + basis * turns * count + 1
        if most > len(col):
            grown_col, grown_val = np.empty(2 * most, np.int64), np.empty(2 * most, pos.dtype)
            for e in range(size):
                grown_col[e], grown_val[e] = col[e], val[e]
            col, val = grown_col, grown_val
        for b in range(basis):
            for a in range(turns):
                for i in range(count):
                    c = used[i]
                    value = scratch[c, a, b]
                    col[size], val[size] = c, value * scale
                    size += uint64(value != 0)  # an entry that is zero is written over
                ptr[(t * basis + b) * turns + a + 1] = size
        for i in range(count):
            scratch[used[i]] = 0
    return ptr, col[:size], val[:size]


@njit(cache=True, nogil=True, fastmath=REORDER)
def local_moments(pos, center, radius):
    """Weighted covariance of the points around each centre [C, 3], from offsets to it."""
    size = pos.shape[0]
    out = np.empty((center.shape[0], 3, 3), pos.dtype)
    columns, extent = _in_blocks(pos)
    near, flag = np.empty(size + _BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    offset, inverse = np.empty((3, size), pos.dtype), 1 / (radius * radius)
    for t in range(center.shape[0]):
        count = _near(center[t], columns, extent, radius, near, flag)
        m = sx = sy = sz = xx = xy = xz = yy = yz = zz = pos.dtype.type(0)
        _offsets(pos, near, count, center[t], offset)
        for i in range(count):
            dx, dy, dz = offset[0, i], offset[1, i], offset[2, i]
            w = 1 - (dx * dx + dy * dy + dz * dz) * inverse
            w *= w
            m += w
            sx += w * dx
            sy += w * dy
            sz += w * dz
            xx += w * dx * dx
            xy += w * dx * dy
            xz += w * dx * dz
            yy += w * dy * dy
            yz += w * dy * dz
            zz += w * dz * dz
        sx, sy, sz = sx / m, sy / m, sz / m
        out[t, 0, 0] = xx / m - sx * sx
        out[t, 1, 1] = yy / m - sy * sy
        out[t, 2, 2] = zz / m - sz * sz
        out[t, 0, 1] = out[t, 1, 0] = xy / m - sx * sy
        out[t, 0, 2] = out[t, 2, 0] = xz / m - sx * sz
        out[t, 1, 2] = out[t, 2, 1] = yz / m - sy * sz
    return out

"""Sparse products over a batch of clouds, and the sum of entries that meet."""

import numpy as np
from numba import njit, prange, uint64

__all__ = ["coalesce", "combined", "spmm", "spmm_transposed", "turned"]


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def spmm(row_of_group, column_of_group, ptr, col, val, x, out):
    """out[r] = sum of val * x[column_of_group + col], one thread a cloud; whether all columns
    lie within their cloud."""
    channels = x.shape[1]
    bad = 0
    for g in prange(len(row_of_group) - 1):
        shift = column_of_group[g]
        width = column_of_group[g + 1] - shift
        for r in range(row_of_group[g], row_of_group[g + 1]):
            total = out[r]
            for c in range(channels):
                total[c] = 0
            for e in range(ptr[r], ptr[r + 1]):
                weight, place = val[e], np.int64(col[e])
                if place < 0 or place >= width:
                    bad += 1
                    continue
                source = x[shift + place]
                for c in range(channels):
                    total[c] += weight * source[c]
    return bad == 0


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def spmm_transposed(row_of_group, column_of_group, ptr, col, val, grad, out):
    """out[column] += val * grad[row]: clouds own disjoint columns, so no race. Whether all
    columns lie within their cloud."""
    channels = out.shape[1]
    bad = 0
    for g in prange(len(row_of_group) - 1):
        shift = column_of_group[g]
        width = column_of_group[g + 1] - shift
        for s in range(shift, column_of_group[g + 1]):
            for c in range(channels):
                out[s, c] = 0
        for r in range(row_of_group[g], row_of_group[g + 1]):
            source = grad[r]
            for e in range(ptr[r], ptr[r + 1]):
                weight, place = val[e], np.int64(col[e])
                if place < 0 or place >= width:
                    bad += 1
                    continue
                target = out[shift + place]
                for c in range(channels):
                    target[c] += weight * source[c]
    return bad == 0


@njit(cache=True, nogil=True)
def coalesce(row, col, val, num_rows, num_cols):
    """Sum entries that share (row, col): bucket by row, then a dense scratch row."""
    start = np.zeros(num_rows + 1, np.int64)
    for e in range(len(row)):
        start[row[e] + 1] += 1
    for r in range(num_rows):
        start[r + 1] += start[r]
    order = np.empty(len(row), np.int64)
    cursor = start[:-1].copy()
    for e in range(len(row)):
        order[cursor[row[e]]] = e
        cursor[row[e]] += 1
    scratch = np.zeros(num_cols, val.dtype)
    seen = np.zeros(num_cols, np.bool_)
    out_col = np.empty(len(row), np.int64)
    out_val = np.empty(len(row), val.dtype)
    ptr = np.zeros(num_rows + 1, np.int64)
    size = 0
    for r in range(num_rows):
        first = size
        for i in range(start[r], start[r + 1]):
            c = col[order[i]]
            if not seen[c]:
                seen[c] = True
                out_col[size] = c
                size += 1
            scratch[c] += val[order[i]]
        for i in range(first, size):
            c = out_col[i]
            out_val[i] = scratch[c]
            scratch[c] = 0
            seen[c] = False
        ptr[r + 1] = size
    return ptr, out_col[:size].copy(), out_val[:size].copy()


@njit(cache=True, nogil=True)
def columns_seen(products, columns):
    """Every column (point, pose) as each pose sees it [K, S], so that no entry needs a division."""
    size = len(products)
    seen = np.empty((size, columns), np.int64)
    for k in range(size):
        for c in range(columns):
            seen[k, c] = c // size * size + products[k, c % size]
    return seen


@njit(cache=True, nogil=True)
def turned(ptr, col, val, turns, products, out_ptr, out_col, out_val):
    """CSR of all poses of some points; see ``ops.turned_rows``."""
    size, basis = turns.shape
    last = 0
    for e in range(len(col)):
        last = max(last, col[e])
    seen = columns_seen(products, last + 1)
    place = uint64(0)  # unsigned: no check for indices that count from the end
    out_ptr[0] = 0
    for s in range((len(ptr) - 1) // basis):
        for k in range(size):
            own = seen[k]
            for b in range(basis):
                row = s * basis + turns[k, b]
                for e in range(uint64(ptr[row]), uint64(ptr[row + 1])):
                    out_col[place] = own[uint64(col[e])]
                    out_val[place] = val[e]
                    place += uint64(1)
                out_ptr[(s * size + k) * basis + b + 1] = place


@njit(cache=True, nogil=True)
def combined(weight, ptr, col, val, turns, products, columns, least):
    """CSR of weighted sums of the rows of poses; see ``ops.combined_rows``."""
    size, basis = turns.shape
    points = weight.shape[1] // size
    seen = columns_seen(products, columns)
    # Sums over points as the first pose sees them, so that all rows of a point are one loop over
    # the places of its entries.
    own, place = np.empty(basis * columns, val.dtype), np.empty(len(col), np.uint32)
    for row in range(points * basis):
        for e in range(uint64(ptr[row]), uint64(ptr[row + 1])):
            place[e] = row % basis * columns + col[e]
    scratch = np.empty((basis, columns), val.dtype)
    most = len(weight) * basis * columns
    out_col, out_val = np.empty(most, np.int64), np.empty(most, val.dtype)
    out_ptr = np.zeros(len(weight) * basis + 1, np.int64)
    used = uint64(0)
    for m in range(len(weight)):
        scratch[:] = 0
        for k in range(size):
            wanted = False
            for s in range(points):
                wanted |= weight[m, s * size + k] != 0
            if not wanted:
                continue
            own[:] = 0
            for s in range(points):
                factor = weight[m, s * size + k]
                if factor != 0:
                    for e in range(uint64(ptr[s * basis]), uint64(ptr[(s + 1) * basis])):
                        own[place[e]] += factor * val[e]
            for b in range(basis):
                total, row = scratch[b], own[turns[k, b] * columns :]
                for c in range(uint64(columns)):
                    total[uint64(seen[k, c])] += row[c]
        for b in range(basis):
            total = scratch[b]
            limit = least * np.abs(total).max()
            for c in range(uint64(columns)):
                value, far = total[c], abs(total[c])
                if far <= limit:
                    value = 0
                elif far < 1.25 * limit:
                    value *= 4 * (far / limit) - 4
                out_col[used], out_val[used] = c, value
                used += uint64(value != 0)
            out_ptr[m * basis + b + 1] = used
    return out_ptr, out_col[:used].copy(), out_val[:used].copy()

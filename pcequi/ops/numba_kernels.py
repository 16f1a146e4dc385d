"""The CPU kernels, compiled by numba on first use and cached on disk.

Each has a pure torch twin beside its caller; tests hold the two equal.
"""

import numpy as np
from numba import njit, prange

# Sums may be reordered, so that loops use vector registers; NaN and infinity
# keep their meaning.
_REORDER = {"reassoc", "contract", "arcp", "nsz"}


@njit(cache=True, nogil=True, fastmath=_REORDER)
def fps(x, num, start, key, tie, zero, stop):
    """FPS with triangle-inequality pruning: a row is visited only when the new
    pick is nearer than twice its distance to its own pick."""
    size, dim = x.shape
    d2 = np.full(size, np.inf, x.dtype)
    assignment = np.zeros(size, np.int64)
    taken = np.zeros(size, np.bool_)
    index = np.empty(num, np.int64)
    apart = np.empty(num, x.dtype)  # squared distance of earlier picks to this one
    largest_key = np.abs(key).max()
    pick, count = start, 0
    for m in range(num):
        index[m] = pick
        count = m + 1
        for j in range(m):
            total = x.dtype.type(0)
            for c in range(dim):
                diff = x[index[j], c] - x[pick, c]
                total += diff * diff
            apart[j] = total
        worst = x.dtype.type(-1)
        taken[pick] = True
        for p in range(size):
            if m == 0 or apart[assignment[p]] < 4 * d2[p]:
                total = x.dtype.type(0)
                for c in range(dim):
                    diff = x[p, c] - x[pick, c]
                    total += diff * diff
                # A tie belongs to the earlier pick, and copies count as ties.
                if total < d2[p] * (1 - tie) - zero:
                    d2[p] = total
                    assignment[p] = m
            if not taken[p] and d2[p] > worst:
                worst = d2[p]
        assignment[pick] = m
        d2[pick] = 0
        if stop > 0 and worst <= stop:
            break
        if worst <= zero:
            for p in range(size):
                if not taken[p]:
                    pick = p
                    break
        else:
            best = -np.inf
            for p in range(size):
                if not taken[p] and d2[p] >= worst * (1 - tie):
                    if key[p] > best + tie * largest_key:
                        best = key[p]
                        pick = p
    return index[:count].copy(), assignment, d2


@njit(cache=True, nogil=True, fastmath=_REORDER)
def nearest_of_screened(score, x, center, screen, slack):
    """Per row, the first column whose exact half squared distance is within
    ``slack`` of the smallest, among columns whose score is within ``screen`` of
    the row's lowest; and the squared distance to it."""
    rows, columns = score.shape
    dim = x.shape[1]
    index = np.empty(rows, np.int64)
    square = np.empty(rows, x.dtype)
    near = np.empty(columns, np.int64)
    half = np.empty(columns, x.dtype)
    for r in range(rows):
        low = score[r, 0]
        for c in range(1, columns):
            low = min(low, score[r, c])
        count = 0
        for c in range(columns):
            if score[r, c] <= low + screen:
                near[count] = c
                count += 1
        best = np.inf
        for i in range(count):
            total = x.dtype.type(0)
            for d in range(dim):
                diff = x[r, d] - center[near[i], d]
                total += diff * diff
            half[i] = total / 2
            best = min(best, half[i])
        for i in range(count):
            if half[i] <= best + slack:
                index[r] = near[i]
                square[r] = 2 * half[i]
                break
    return index, square


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def spmm(row_of_group, column_of_group, ptr, col, val, x, out):
    """out[r] = sum of val * x[column_of_group + col], one thread a cloud."""
    channels = x.shape[1]
    for g in prange(len(row_of_group) - 1):
        shift = column_of_group[g]
        for r in range(row_of_group[g], row_of_group[g + 1]):
            total = out[r]
            for c in range(channels):
                total[c] = 0
            for e in range(ptr[r], ptr[r + 1]):
                weight = val[e]
                source = x[shift + col[e]]
                for c in range(channels):
                    total[c] += weight * source[c]


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def spmm_transposed(row_of_group, column_of_group, ptr, col, val, grad, out):
    """out[column] += val * grad[row]: clouds own disjoint columns, so no race."""
    channels = out.shape[1]
    for g in prange(len(row_of_group) - 1):
        shift = column_of_group[g]
        for s in range(shift, column_of_group[g + 1]):
            for c in range(channels):
                out[s, c] = 0
        for r in range(row_of_group[g], row_of_group[g + 1]):
            source = grad[r]
            for e in range(ptr[r], ptr[r + 1]):
                weight = val[e]
                target = out[shift + col[e]]
                for c in range(channels):
                    target[c] += weight * source[c]


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


@njit(cache=True, nogil=True, fastmath=_REORDER)
def _near(center, source, limit, near):
    """Rows of ``source`` within the squared distance, into ``near``; how many."""
    x, y, z = center[0], center[1], center[2]
    count = 0
    for s in range(source.shape[0]):
        dx, dy, dz = source[s, 0] - x, source[s, 1] - y, source[s, 2] - z
        near[count] = s
        count += dx * dx + dy * dy + dz * dz <= limit
    return count


@njit(cache=True, nogil=True, fastmath=_REORDER)
def _seen(point, center, frame, radius):
    """A point seen from a pose, in units of the radius, and its squared distance."""
    dx = (point[0] - center[0]) / radius
    dy = (point[1] - center[1]) / radius
    dz = (point[2] - center[2]) / radius
    u = frame[0, 0] * dx + frame[1, 0] * dy + frame[2, 0] * dz
    v = frame[0, 1] * dx + frame[1, 1] * dy + frame[2, 1] * dz
    w = frame[0, 2] * dx + frame[1, 2] * dy + frame[2, 2] * dz
    return u, v, w, dx * dx + dy * dy + dz * dz


@njit(cache=True, nogil=True, fastmath=_REORDER)
def _planes(points, width):
    """The space basis as (1 - |v|^2 / width^2 + planes . (v, 1))^2, [4, B]."""
    planes = np.empty((4, points.shape[0]), points.dtype)
    inverse = 1 / (width * width)
    for b in range(points.shape[0]):
        planes[3, b] = 0
        for c in range(3):
            planes[c, b] = 2 * inverse * points[b, c]
            planes[3, b] -= inverse * points[b, c] * points[b, c]
    return planes


@njit(cache=True, nogil=True, fastmath=_REORDER)
def lift(target, frame, source, feature, radius, points, width):
    """Kernel-point sums around each target: no [pairs x kernel points] array."""
    size, basis, channels = target.shape[0], points.shape[0], feature.shape[1]
    out = np.zeros((size, channels, basis), target.dtype)
    planes = _planes(points, width)
    p0, p1, p2, p3 = planes[0], planes[1], planes[2], planes[3]
    inverse = 1 / (width * width)
    space = np.empty(basis, target.dtype)
    near = np.empty(source.shape[0], np.int64)
    for t in range(size):
        R = frame[t]
        for i in range(_near(target[t], source, radius * radius, near)):
            s = near[i]
            u, v, w, square = _seen(source[s], target[t], R, radius)
            height = 1 - square * inverse
            for b in range(basis):
                value = max(height + p3[b] + p0[b] * u + p1[b] * v + p2[b] * w, 0.0)
                space[b] = value * value
            for c in range(channels):
                weight, line = feature[s, c], out[t, c]
                for b in range(basis):
                    line[b] += space[b] * weight
    return out


@njit(cache=True, nogil=True, fastmath=_REORDER)
def operator(
    pos, rot, source, frames, assignment, below, radius, points, width, anchors, edge, tie
):
    """Rows of A, coalesced as they are made: one dense scratch row a column of A.

    ``frames`` is [S, K, 9], or [1, K, 9] when all points share their frames.
    """
    num, basis, turns = pos.shape[0], points.shape[0], anchors.shape[0]
    rows = basis * turns
    planes = _planes(points, width)
    p0, p1, p2, p3 = planes[0], planes[1], planes[2], planes[3]
    inverse = 1 / (width * width)
    shared = frames.shape[0] == 1
    wanted = np.empty((turns, 9), pos.dtype)
    score = np.empty(frames.shape[1], pos.dtype)
    chosen, factor = np.zeros(turns, np.int64), np.zeros(turns, pos.dtype)
    near = np.empty(source.shape[0], np.int64)
    space = np.empty(basis, pos.dtype)
    scratch = np.zeros((below, turns, basis), pos.dtype)
    touched, columns = np.zeros(below, np.bool_), np.empty(below, np.int64)
    ptr = np.zeros(num * rows + 1, np.int64)
    capacity = max(1024, num * 64)
    col, val = np.empty(capacity, np.int64), np.empty(capacity, pos.dtype)
    size = 0
    for t in range(num):
        R = rot[t]
        for a in range(turns):
            for i in range(3):
                for k in range(3):
                    total = 0.0
                    for j in range(3):
                        total += R[i, j] * anchors[a, j, k]
                    wanted[a, 3 * i + k] = total
        mass, fresh = 0.0, True
        for n in range(_near(pos[t], source, radius * radius, near)):
            s = near[n]
            u, v, w, square = _seen(source[s], pos[t], R, radius)
            height = 1 - square * inverse
            here = 0.0
            for b in range(basis):
                value = max(height + p3[b] + p0[b] * u + p1[b] * v + p2[b] * w, 0.0)
                space[b] = value * value
                here += space[b]
            if here == 0:
                continue
            mass += here
            if fresh or not shared:
                fresh = False
                turned = frames[0] if shared else frames[s]
                for a in range(turns):
                    best = -4.0
                    for k in range(turned.shape[0]):
                        total = 0.0
                        for j in range(9):
                            total += wanted[a, j] * turned[k, j]
                        score[k] = total
                        best = max(best, total)
                    for k in range(turned.shape[0]):
                        if score[k] >= best - tie:
                            chosen[a] = k
                            factor[a] = min(1.0, max(0.0, (score[k] - edge) / (3 - edge)))
                            break
            for a in range(turns):
                if factor[a] > 0:
                    column = assignment[s, chosen[a]]
                    touched[column] = True
                    line, part = scratch[column, a], factor[a]
                    for b in range(basis):
                        line[b] += space[b] * part
        scale = 1 / mass if mass > 0 else 0.0
        count = 0
        for c in range(below):
            if touched[c]:
                columns[count] = c
                count += 1
                touched[c] = False
        if size + rows * count > capacity:
            capacity = 2 * capacity + rows * count
            grown_col, grown_val = np.empty(capacity, np.int64), np.empty(capacity, pos.dtype)
            grown_col[:size], grown_val[:size] = col[:size], val[:size]
            col, val = grown_col, grown_val
        for r in range(rows):
            b, a = r // turns, r % turns
            for i in range(count):
                value = scratch[columns[i], a, b]
                if value != 0:
                    col[size], val[size] = columns[i], value * scale
                    size += 1
            ptr[t * rows + r + 1] = size
        for i in range(count):
            scratch[columns[i]] = 0
    return ptr, col[:size].copy(), val[:size].copy()


@njit(cache=True, nogil=True, fastmath=_REORDER)
def local_moments(pos, radius):
    """Weighted covariance around each point, from offsets to the point itself."""
    size = pos.shape[0]
    out = np.empty((size, 3, 3), pos.dtype)
    near = np.empty(size, np.int64)
    limit = radius * radius
    for t in range(size):
        x, y, z = pos[t, 0], pos[t, 1], pos[t, 2]
        count = _near(pos[t], pos, limit, near)
        m = sx = sy = sz = xx = xy = xz = yy = yz = zz = pos.dtype.type(0)
        for i in range(count):
            s = near[i]
            dx, dy, dz = pos[s, 0] - x, pos[s, 1] - y, pos[s, 2] - z
            w = 1 - (dx * dx + dy * dy + dz * dz) / limit
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

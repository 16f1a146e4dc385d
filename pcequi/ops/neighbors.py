"""Neighbour search that respects rotation: nothing is cut off in tree order."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.ops.backends import HAS_NUMBA, HAS_TORCH_CLUSTER
from pcequi.ops.fps import check_batch

# Rows of the distance matrix held at once by the pure torch path.
_CHUNK = 2048
# Distances closer than this share of the k-th of their row are equal, and so are those closer
# than so many roundings of the largest coordinate.
_TIE = 1e-5
_ROUNDINGS = 8
# Candidates that are looked at beyond the k nearest, for ties, how many times as many where these
# do not end, and numbers held at once.
_SPARE = 8
_WIDER = 4
_MOST = 2**22


def check_radius(radius: float) -> float:
    """Return a radius that is positive and whose square is finite; raise otherwise.

    Raises:
        ArgumentError: it is not.

    **Equivariance:** does not apply.
    """
    if not (radius > 0 and math.isfinite(radius * radius)):
        raise ArgumentError(
            f"`radius` (={radius}) must be positive and finite, in the units of the points"
        )
    return radius


def _check_points(name: str, points: Tensor, like: Tensor | None = None) -> None:
    """Whether there are distances between points, and between them and others."""
    if points.dim() != 2 or points.dtype not in (torch.float32, torch.float64):
        raise ShapeError(
            f"`{name}` (={list(points.shape)}, {points.dtype}) must be points [N, D] of float32 or "
            "float64; call `.float()`"
        )
    if like is not None and (points.shape[1], points.dtype) != (like.shape[1], like.dtype):
        raise ShapeError(
            f"`{name}` (={list(points.shape)}, {points.dtype}) must have the columns and the type "
            f"of the other points (={list(like.shape)}, {like.dtype})"
        )


def _clouds(
    source: Tensor, query: Tensor, batch_source: Tensor | None, batch_query: Tensor | None
) -> list[tuple[int, int, int, int]]:
    """First source, end of the sources, first query and end of the queries of each cloud."""
    if batch_source is None and batch_query is None:
        return [(0, len(source), 0, len(query))]
    counts = []
    for name, batch, points in (
        ("batch_source", batch_source, source),
        ("batch_query", batch_query, query),
    ):
        if batch is None:
            raise ArgumentError(f"`{name}` (=None) is needed where the other batch is given")
        counts.append(check_batch(name, batch, points))
    most = max(map(len, counts))
    ends = [F.pad(count, (1, most - len(count))).cumsum(0) for count in counts]
    sources, queries = torch.stack(ends).tolist()  # one wait for a GPU
    return list(zip(sources[:-1], sources[1:], queries[:-1], queries[1:]))


def knn(
    source: Tensor,
    query: Tensor,
    k: int,
    batch_source: Tensor | None = None,
    batch_query: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest sources of each query, by Euclidean distance.

    Args:
        source: points [N, D].
        query: points [Q, D].
        k: neighbours a query; every cloud with queries must hold at least ``k`` sources.
        batch_source: sorted cloud of each source [N], or None for one cloud.
        batch_query: sorted cloud of each query [Q].

    Returns:
        ``index`` [Q, k] into ``source`` and ``distance`` [Q, k], nearest first.
            Equal distances (to ``_TIE`` of the k-th, or a few roundings of the largest
            coordinate) come in the order of the rows.

    Raises:
        ArgumentError: ``k`` is below 1 or above the size of a cloud; one batch without
            the other.
        ShapeError: points that are not of 32 or 64 bits, or not alike; a batch of other points.
        DataError: a batch that is not sorted; points that are NaN, infinite or too far for
            squares of distances.

    **Equivariance:** indices are unchanged by rigid motion, up to ties.
    """
    _check_points("source", source)
    _check_points("query", query, source)
    clouds = _clouds(source, query, batch_source, batch_query)
    smallest = min((s1 - s0 for s0, s1, q0, q1 in clouds if q1 > q0), default=max(k, 1))
    if not 1 <= k <= smallest:
        raise ArgumentError(
            f"`k` (={k}) must be between 1 and the number of points of the "
            f"smallest cloud (={smallest}); lower `k`"
        )
    if len(query) == 0:
        return torch.zeros(0, k, dtype=torch.long, device=query.device), query.new_zeros(0, k)
    found = []
    for s0, s1, q0, q1 in clouds:
        if q1 > q0:
            index, distance = _nearest(source[s0:s1], query[q0:q1], k)
            found.append((index + s0, distance))
    if len(found) == 1:
        return found[0]
    return tuple(map(torch.cat, zip(*found)))


def _nearest(source: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``knn`` of one cloud."""
    size = torch.stack([source.detach().abs().max(), query.detach().abs().max()]).max()
    limits, tree = torch.finfo(source.dtype), None
    wrapped = any(map(torch._C._functorch.is_functorch_wrapped_tensor, (source, query)))
    if source.device.type == "cpu" and not wrapped:  # elsewhere nobody looks at values
        if not 4 * source.shape[1] * float(size) ** 2 <= limits.max:
            raise DataError(
                f"`source` or `query` (largest coordinate {float(size):.2g}, {source.dtype}) is "
                "too large for squares of distances, or has NaN or infinite entries; scale it down "
                "or drop these"
            )
        if _WIDER * (k + _SPARE) < len(source):
            tree = cKDTree(source.detach().numpy())
    least = (size * (_ROUNDINGS * limits.eps)).clamp_min(limits.tiny)
    return _of_nearest(tree, source, query, k, k + _SPARE, least)


def _of_nearest(tree, source, query, k, count, least) -> tuple[Tensor, Tensor]:
    """The first ``k`` of the ``count`` nearest sources; of more, where these may have ties."""
    if tree is None or count >= len(source):
        parts = query.split(_rows(len(source)))
        found = [_first(_distances(part, source), None, k, len(source), least) for part in parts]
        place, distance, _ = map(torch.cat, zip(*found))
        return place, distance
    found = []
    for part in query.split(_rows(count)):
        near = tree.query(part.detach().numpy(), [*range(1, count + 1)])[1]
        near = torch.from_numpy(near)
        apart = _distances(part[:, None], source[near])[:, 0]
        place, distance, open_end = _first(apart, near, k, len(source), least)
        found.append((near.gather(1, place), distance, open_end))
    index, distance, open_end = map(torch.cat, zip(*found))
    if open_end.any():
        rows = open_end.nonzero()[:, 0]
        # Queries at one place are asked once: thousands of them would each find all of the others.
        once, back = query[rows].detach().unique(dim=0, return_inverse=True)
        wider = _of_nearest(tree, source, once, k, _WIDER * count, least)[0][back]
        parts = zip(query[rows].split(_rows(k)), wider.split(_rows(k)))
        apart = torch.cat([_distances(part[:, None], source[near])[:, 0] for part, near in parts])
        index, distance = index.index_copy(0, rows, wider), distance.index_copy(0, rows, apart)
    return index, distance


def _rows(columns: int) -> int:
    return max(1, min(_CHUNK, _MOST // columns))


def _first(distance, column, k: int, columns: int, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places [Q, k] of the smallest distances and these, equal ones by their ``column``, and
    whether those left out of a row might be equal to them [Q]."""
    with torch.no_grad():
        last = distance.topk(k, dim=1, largest=False).values[:, -1:]
        tie = _TIE
        step = torch.maximum(tie * last, least)
        # Numbers that order each row by distance, then by column; all different.
        number = (distance / step).double().round().clamp_max(2 / tie)
        open_end = number.amax(1) < (last / step).double().round()[:, 0] + 2
        if column is None:
            column = torch.arange(columns, device=distance.device)
        place = (number * columns + column).topk(k, dim=1, largest=False).indices
    return place, distance.gather(1, place), open_end


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # The matrix-product form of cdist cancels for close points; the direct
    # form keeps duplicates at distance exactly zero.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def pairs_within(
    source: Tensor,
    query: Tensor,
    radius: float,
    batch_source: Tensor | None = None,
    batch_query: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """All pairs (query, source) at most ``radius`` apart, never truncated.

    Args:
        source: points [N, D].
        query: points [Q, D].
        radius: positive distance, in the units of the points.
        batch_source: sorted cloud of each source [N], or None for one cloud.
        batch_query: sorted cloud of each query [Q].

    Returns:
        ``query_index`` [E], sorted, and ``source_index`` [E].

    Raises:
        ArgumentError: ``radius`` is not positive or not finite; one batch without the other.
        ShapeError: points that are not of 32 or 64 bits, or not alike; a batch of other points.
        DataError: a batch that is not sorted.

    **Equivariance:** the pairs are unchanged by rigid motion, up to rounding
    at the very boundary, where pcequi's kernels vanish.
    """
    check_radius(radius)
    _check_points("source", source)
    _check_points("query", query, source)
    clouds = _clouds(source, query, batch_source, batch_query)
    # On a GPU its arrays are quadratic in memory, and builds for the CPU have no kernel.
    tree = HAS_TORCH_CLUSTER and source.device.type == "cpu"
    if tree and (batch_source is not None or len(source) > _CHUNK):
        return _pairs_torch_cluster(source, query, radius, batch_source, batch_query)
    pairs = []
    for s0, s1, q0, q1 in clouds:
        for chunk in range(q0, q1, _CHUNK):
            close = _distances(query[chunk : min(chunk + _CHUNK, q1)], source[s0:s1]) <= radius
            pair = close.nonzero()
            pairs.append(pair + pair.new_tensor([chunk, s0]))
    pairs = torch.cat(pairs) if pairs else torch.zeros(0, 2, dtype=torch.long, device=query.device)
    return pairs[:, 0], pairs[:, 1]


def _pairs_torch_cluster(source, query, radius, batch_source, batch_query):
    from torch_cluster import radius as cluster_radius

    # Its cap truncates in tree order, which is not equivariant: lift it.
    # It leaves out what lies at the radius: a little more is asked for, and what is too far goes.
    wider = radius * (1 + 1e-3)
    row, col = cluster_radius(
        source, query, wider, batch_source, batch_query, max_num_neighbors=len(source)
    )
    close = (query[row] - source[col]).norm(dim=1) <= radius
    row, col = row[close], col[close]
    order = torch.argsort(row, stable=True)
    return row[order], col[order]


def local_moments(
    pos: Tensor,
    radius: float | Tensor,
    differentiable: bool = False,
    center: Tensor | None = None,
) -> Tensor:
    """Covariance of the points around each point, weighted by (1 - d^2 / radius^2)^2.

    Args:
        pos: one cloud [N, 3].
        radius: where the weight ends, in the units of the points.
        differentiable: in the points, and in a radius that is a tensor.
        center: points of the cloud around which it is asked for [C, 3]; by default all.

    Returns:
        [N or C, 3, 3], in squared units of ``pos``; no gradient flows back unless
            ``differentiable``.

    Raises:
        ShapeError: ``pos`` is not [N, 3] of 32 or 64 bits, or ``center`` is not like it.
        ArgumentError: ``radius`` is not positive or not finite.

    **Equivariance:** C becomes R C R^T when the cloud is turned by R; unchanged
    by translation. The weight ends smoothly, so no neighbour matters at the edge.
    """
    _check_points("pos", pos)
    if pos.shape[1] != 3:
        raise ShapeError(f"`pos` (={list(pos.shape)}) must be [points, 3]")
    center = pos if center is None else center
    _check_points("center", center, pos)
    fixed, around = pos.detach(), center.detach()
    reach = check_radius(float(radius.detach()) if isinstance(radius, Tensor) else radius)
    if HAS_NUMBA and pos.device.type == "cpu" and not differentiable:
        from pcequi.ops.compiled import neighborhoods

        arrays = [points.contiguous().numpy() for points in (fixed, around)]
        return torch.from_numpy(neighborhoods.local_moments(*arrays, reach))
    row, near = pairs_within(fixed, around, reach)
    if not differentiable:
        pos, center, radius = fixed, around, reach
    offset = pos[near] - center[row]
    weight = (1 - offset.square().sum(1) / radius**2).clamp_min(0).square()
    one = torch.cat([offset, torch.ones_like(offset[:, :1])], 1)
    outer = (weight[:, None, None] * one[:, :, None] * one[:, None, :]).flatten(1)
    sums = pos.new_zeros(len(center), 16).index_add_(0, row, outer).view(-1, 4, 4)
    sums = sums / sums[:, 3:, 3:]  # every point is its own neighbour: never zero
    return sums[:, :3, :3] - sums[:, :3, 3:] * sums[:, 3:, :3]

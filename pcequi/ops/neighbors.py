"""Neighbour search that respects rotation: nothing is cut off in tree order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.ops.backends import HAS_NUMBA, HAS_TORCH_CLUSTER

# Rows of the distance matrix held at once by the pure torch path.
_CHUNK = 2048
# Distances closer than this share of the largest are equal.
_TIE = {torch.float64: 1e-9, torch.float32: 1e-5}


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


def _clouds(
    source: Tensor, query: Tensor, batch_source: Tensor | None, batch_query: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Start of each cloud among the sources and among the queries, as pointers [B + 1]."""
    if batch_source is None and batch_query is None:
        return torch.tensor([0, len(source)]), torch.tensor([0, len(query)])
    counts = []
    for name, batch, points in (
        ("batch_source", batch_source, source),
        ("batch_query", batch_query, query),
    ):
        if batch is None:
            raise ArgumentError(f"`{name}` (=None) is needed where the other batch is given")
        if batch.shape != (len(points),):
            raise ShapeError(f"`{name}` (={list(batch.shape)}) must be [points] (={len(points)})")
        if (batch[1:] < batch[:-1]).any():
            raise DataError(f"`{name}` is not sorted; sort the points by cloud first")
        counts.append(torch.bincount(batch))
    most = max(map(len, counts))
    return tuple(
        torch.cat([count.new_zeros(1), count.cumsum(0), count.sum().expand(most - len(count))])
        for count in counts
    )


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
        k: neighbours a query; every cloud must hold at least ``k`` sources.
        batch_source: sorted cloud of each source [N], or None for one cloud.
        batch_query: sorted cloud of each query [Q].

    Returns:
        ``index`` [Q, k] into ``source`` and ``distance`` [Q, k], nearest first.
            Equal distances (to ``_TIE`` of the largest) come in the order of the rows.

    Raises:
        ArgumentError: ``k`` is below 1 or above the size of a cloud; one batch without
            the other.
        ShapeError, DataError: a batch that is of other points, or not sorted.

    **Equivariance:** indices are unchanged by rigid motion, up to ties.
    """
    ptr_s, ptr_q = _clouds(source, query, batch_source, batch_query)
    smallest = int((ptr_s[1:] - ptr_s[:-1]).min())
    if not 1 <= k <= smallest:
        raise ArgumentError(
            f"`k` (={k}) must be between 1 and the number of points of the "
            f"smallest cloud (={smallest}); lower `k`"
        )
    indices, distances = [], []
    for cloud in range(len(ptr_q) - 1):
        s0, s1 = int(ptr_s[cloud]), int(ptr_s[cloud + 1])
        q0, q1 = int(ptr_q[cloud]), int(ptr_q[cloud + 1])
        for chunk in range(q0, q1, _CHUNK):
            d = _distances(query[chunk : min(chunk + _CHUNK, q1)], source[s0:s1])
            index = _ranked(d).topk(k, dim=1, largest=False).indices
            indices.append(index + s0)
            distances.append(d.gather(1, index))
    if not indices:  # no query
        return torch.zeros(0, k, dtype=torch.long, device=query.device), query.new_zeros(0, k)
    return torch.cat(indices), torch.cat(distances)


def _ranked(distance: Tensor) -> Tensor:
    """Numbers that order each row by distance, then by column; all different."""
    step = _TIE[distance.dtype] * distance.max().clamp_min(torch.finfo(distance.dtype).tiny)
    return (distance / step).double().round() * distance.shape[1] + torch.arange(
        distance.shape[1], dtype=torch.float64, device=distance.device
    )


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
        ShapeError, DataError: a batch that is of other points, or not sorted.

    **Equivariance:** the pairs are unchanged by rigid motion, up to rounding
    at the very boundary, where pcequi's kernels vanish.
    """
    check_radius(radius)
    ptr_s, ptr_q = _clouds(source, query, batch_source, batch_query)
    # On a GPU its arrays are quadratic in memory, and builds for the CPU have no kernel.
    tree = HAS_TORCH_CLUSTER and source.device.type == "cpu"
    if tree and (batch_source is not None or len(source) > _CHUNK):
        return _pairs_torch_cluster(source, query, radius, batch_source, batch_query)
    pairs = []
    for cloud in range(len(ptr_q) - 1):
        s0, s1 = int(ptr_s[cloud]), int(ptr_s[cloud + 1])
        q0, q1 = int(ptr_q[cloud]), int(ptr_q[cloud + 1])
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


def local_moments(pos: Tensor, radius: float) -> Tensor:
    """Covariance of the points around each point, weighted by (1 - d^2 / radius^2)^2.

    Args:
        pos: one cloud [N, 3].
        radius: where the weight ends, in the units of the points.

    Returns:
        [N, 3, 3], in squared units of ``pos``; no gradient flows back.

    Raises:
        ArgumentError: ``radius`` is not positive or not finite.

    **Equivariance:** C becomes R C R^T when the cloud is turned by R; unchanged
    by translation. The weight ends smoothly, so no neighbour matters at the edge.
    """
    check_radius(radius)
    pos = pos.detach()
    if HAS_NUMBA and pos.device.type == "cpu":
        from pcequi.ops.compiled import neighborhoods

        return torch.from_numpy(neighborhoods.local_moments(pos.contiguous().numpy(), radius))
    row, near = pairs_within(pos, pos, radius)
    offset = pos[near] - pos[row]
    weight = (1 - offset.square().sum(1) / radius**2).clamp_min(0).square()
    one = torch.cat([offset, torch.ones_like(offset[:, :1])], 1)
    outer = (weight[:, None, None] * one[:, :, None] * one[:, None, :]).flatten(1)
    sums = pos.new_zeros(len(pos), 16).index_add_(0, row, outer).view(-1, 4, 4)
    sums = sums / sums[:, 3:, 3:]  # every point is its own neighbour: never zero
    return sums[:, :3, :3] - sums[:, :3, 3:] * sums[:, 3:, :3]

"""Nearest centres, means and medoids: what Lloyd's steps are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, ShapeError
from pcequi.ops.backends import HAS_NUMBA
from pcequi.ops.fps import NOISE, TIE, check_rows
from pcequi.ops.precision import own_precision

# Error of a float32 product of embeddings, relative to their squared norms:
# ten times what sums over a few hundred entries reach.
SCREEN = 1e-5
# Share of the largest squared norm that takes the place of the spread, in limits that are shares
# ``TIE`` of it, where rows agree to rounding.
NOISE_SHARE = NOISE / TIE


@own_precision
def nearest_center(x: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest row of ``center`` for each row of ``x``; near-ties go to the first.

    Args:
        x: [P, D].
        center: [M, D].

    Returns:
        ``assignment`` [P] in [0, M) and ``distance`` [P].

    Raises:
        ShapeError: ``x`` is not [P, D] of 32 or 64 bits, or ``center`` is not of its columns.

    **Equivariance:** unchanged by an isometry of both arguments.
    """
    check_centers(x, center)
    x, center = x.detach().contiguous(), center.detach().to(x).contiguous()
    if HAS_NUMBA and x.device.type == "cpu":
        from pcequi.ops.compiled import clusters

        limits = SCREEN + TIE, TIE, NOISE_SHARE
        found = clusters.nearest(x.numpy(), center.numpy(), *limits)
        return tuple(map(torch.from_numpy, found))
    norm = float(x.square().sum(1).max())
    shift = center.mean(0)  # centred first: the expanded square cancels less
    x, center = x - shift, center - shift
    half = center.square().sum(1) / 2
    scale = float(half.max() * 2 + x.square().sum(1).max())
    scale = max(scale, NOISE_SHARE * norm)
    score = torch.addmm(half, x, center.T, alpha=-1)  # |x - c|^2 / 2 - |x|^2 / 2
    low = score.min(1, keepdim=True).values + TIE * scale
    assignment = (score <= low).int().argmax(1)
    distance = (x - center.index_select(0, assignment)).square().sum(1).sqrt()
    return assignment, distance


def check_centers(x: Tensor, center: Tensor) -> None:
    """Whether rows can be compared with centres, of which there is at least one.

    Raises:
        ShapeError: they cannot.

    **Equivariance:** does not apply.
    """
    check_rows(x)
    if center.dim() != 2 or len(center) == 0 or center.shape[1] != x.shape[1]:
        raise ShapeError(
            f"`center` (={list(center.shape)}) must be [centres, columns of `x` (={x.shape[1]})], "
            "at least one centre"
        )


def _check_assignment(assignment: Tensor, rows: int, clusters: int) -> None:
    """What would make a kernel write beyond the ends."""
    if assignment.shape != (rows,) or assignment.is_floating_point():
        raise ShapeError(
            f"`assignment` (={list(assignment.shape)}, {assignment.dtype}) must be whole numbers, "
            f"[{rows}]: the cluster of each row"
        )
    if assignment.device.type == "cpu" and rows:
        least, most = map(int, assignment.aminmax())
        if least < 0 or most >= clusters:
            raise ArgumentError(
                f"`assignment` (from {least} to {most}) must name clusters in [0, {clusters})"
            )


def cluster_means(x: Tensor, assignment: Tensor, center: Tensor) -> Tensor:
    """Mean of the rows of each cluster; a cluster without rows keeps its centre.

    Args:
        x: [P, D].
        assignment: cluster of each row [P], in [0, M).
        center: [M, D], for clusters without rows.

    Returns:
        [M, D].

    Raises:
        ShapeError: the arguments do not fit each other.
        ArgumentError: ``assignment`` names a cluster outside [0, M) (on the CPU).

    **Equivariance:** moves with any rigid motion of ``x`` and ``center``.
    """
    check_centers(x, center)
    _check_assignment(assignment, len(x), len(center))
    x, center = x.detach(), center.detach().to(x)
    if HAS_NUMBA and x.device.type == "cpu":
        from pcequi.ops.compiled import clusters

        arrays = [t.contiguous().numpy() for t in (x, assignment, center)]
        return torch.from_numpy(clusters.means(*arrays))
    count = torch.bincount(assignment, minlength=len(center))
    total = torch.zeros_like(center).index_add_(0, assignment, x)
    mean = total / count.clamp_min(1).to(x.dtype)[:, None]
    return torch.where((count > 0)[:, None], mean, center)


def least_members(assignment: Tensor, first: Tensor, second: Tensor, index: Tensor) -> Tensor:
    """The row of each cluster with the least (``first``, ``second``); then the first row.

    Args:
        assignment: cluster of each row [P], in [0, M).
        first, second: what rows are compared by [P].
        index: [M], for clusters without rows.

    Returns:
        [M].

    Raises:
        ShapeError: the arguments do not fit each other.
        ArgumentError: ``assignment`` names a cluster outside [0, M) (on the CPU).

    **Equivariance:** as invariant as what is compared.
    """
    _check_assignment(assignment, len(assignment), len(index))
    for name, value in (("first", first), ("second", second)):
        if value.shape != assignment.shape:
            raise ShapeError(
                f"`{name}` (={list(value.shape)}) must be one a row of `assignment` "
                f"(={list(assignment.shape)})"
            )
    if HAS_NUMBA and assignment.device.type == "cpu":
        from pcequi.ops.compiled import clusters

        arrays = [t.contiguous().numpy() for t in (assignment, first, second, index)]
        return torch.from_numpy(clusters.least_members(*arrays))
    order = torch.argsort(second, stable=True)
    order = order[torch.argsort(first[order], stable=True)]
    order = order[torch.argsort(assignment[order], stable=True)]
    cluster = assignment[order]
    leads = torch.ones_like(cluster, dtype=torch.bool)
    leads[1:] = cluster[1:] != cluster[:-1]
    found = index.clone()
    found[cluster[leads]] = order[leads]
    return found

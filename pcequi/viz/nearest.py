"""Exact distances of embeddings: which representatives are equal, and how far others are.

``ops.nearest_center`` gives near-ties to the first row, so its distance may be larger
than the least by the limit of ties. What is measured here is the least itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Embeddings that differ by less are equal, in shares of the spread of all and of the largest
# norm: copies may have been turned in single precision.
_OF_SPREAD, _OF_NORM = 1e-4, 1e-6
_AT_ONCE = 4_000_000  # distances held in memory: 32 MB


def nearest_rows(x: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest row of ``center`` for each row of ``x``, by differences of the entries.

    Args:
        x: [P, D].
        center: [M, D].

    Returns:
        Its index [P], and the distance [P], exact to rounding.

    **Equivariance:** unchanged by an isometry of both arguments.
    """
    found = [part.min(1) for part in _distances(x, center)]
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])


def equality_limit(center: Tensor) -> float:
    """Distance up to which embeddings count as equal.

    Args:
        center: [M, D].

    **Equivariance:** unchanged by an orthogonal map of the rows, and by their order.
    """
    spread = float((center - center.mean(0)).norm(dim=1).max())
    return _OF_SPREAD * spread + _OF_NORM * float(center.norm(dim=1).max())


def first_equals(center: Tensor) -> Tensor:
    """For each row the first one that is equal to it, by ``equality_limit``.

    Args:
        center: [M, D].

    Returns:
        [M]; a row that is the first for another is the first for itself too.

    **Equivariance:** the sets of equal rows follow their rows.
    """
    limit = equality_limit(center)
    first = torch.cat([(part <= limit).int().argmax(1) for part in _distances(center, center)])
    while not torch.equal(first, first[first]):
        first = first[first]
    return first


def _distances(x: Tensor, center: Tensor):
    """[rows, M] for rows of ``x``, some at a time."""
    for rows in x.split(max(1, _AT_ONCE // max(1, len(center)))):
        yield torch.cdist(rows, center, compute_mode="donot_use_mm_for_euclid_dist")

"""From the representatives of a level back to the points of the cloud."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pcequi.ops import coalesce_rows, grouped_spmm, knn, row_pointer
from pcequi.poses import Poses
from pcequi.short_repr import short_repr

__all__ = ["PointRows", "point_rows", "read_carriers"]

# Carriers that a point without poses reads, and shares of the first one's weight that may be
# rounding of points in float32: these decide nothing.
_NEAR = 3
_LEAST = 1e-4


@dataclass(repr=False)
class PointRows:
    """What the points of a batch of clouds read of a level's representatives.

    Attributes:
        count: points of each cloud [G].
        place: row of each point in its cloud [N].
        entries: representatives that each point reads [N].
        col: which, counted within their cloud [nnz].
        val: how much of each [nnz]; those of a point sum to one.

    **Equivariance:** rows follow the points; columns and values stay.
    """

    count: Tensor
    place: Tensor
    entries: Tensor
    col: Tensor
    val: Tensor

    __repr__ = short_repr

    def read(self, x: Tensor, sources: Tensor) -> Tensor:
        """Features of points [N, C] from those of representatives ``x`` [M, C].

        Args:
            x: differentiable.
            sources: representatives of each cloud [G].

        **Equivariance:** rows follow the points.
        """
        ptr, rows = row_pointer(self.entries), row_pointer(self.count)
        return grouped_spmm(x, ptr, self.col, self.val, rows, row_pointer(sources))

    def to(self, *args, **kwargs) -> PointRows:
        """Move every tensor, as ``Tensor.to`` (a dtype applies to ``val``)."""
        val = self.val.to(*args, **kwargs)
        *indices, _ = vars(self).values()
        return PointRows(*(index.to(val.device) for index in indices), val)

    def fits(self) -> bool:
        """Whether all points are there, in their order."""
        starts = self.count.cumsum(0) - self.count
        if int(self.count.sum()) != len(self.entries) or int(self.entries.sum()) != len(self.col):
            return False
        every = torch.arange(len(self.entries), device=starts.device)
        every = every - starts.repeat_interleave(self.count)
        return torch.equal(self.place, every)

    @classmethod
    def batch(cls, parts: list[PointRows]) -> PointRows:
        """Those of several clouds as one."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def point_rows(
    poses: Poses, shared: Tensor, share: Tensor, num: int, pos: Tensor, rows: Tensor
) -> PointRows:
    """What each point of a cloud reads: means over the poses of the level's nearest points, as
    ``read_carriers`` weighs them.

    Args:
        poses: of the level, on N' of the points, or at one place.
        shared, share: representatives of which each pose takes a mean, and how much of
            each [N', K, k].
        num: representatives.
        pos: all points [N, 3], in canonical order.
        rows: row in the cloud of each [N].

    **Equivariance:** rows follow the points; ties go to the first in canonical order.
    """
    near, weight = read_carriers(poses.pos, pos)
    col = shared.flatten(1)[near].flatten(1)
    val = ((share.flatten(1) / share.shape[1])[near] * weight[:, :, None]).flatten(1)
    row = rows[:, None].expand_as(col)
    kept = val > 0
    ptr, col, val = coalesce_rows(row[kept], col[kept], val[kept], len(pos), num)
    count = torch.tensor([len(pos)], device=pos.device)
    place = torch.arange(len(pos), device=pos.device)
    return PointRows(count, place, ptr[1:] - ptr[:-1], col, val)


def read_carriers(carriers: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
    """Which carriers of poses each point of a cloud reads, and how much of each.

    A point at a carrier reads it alone, all others the three nearest, by the inverse of the
    squared distance less that of the fourth: so nothing jumps where a point comes to lie on a
    carrier, or where the third and the fourth nearest change places. Four that are equally far
    leave no weight; then the first three have the same.

    Args:
        carriers: points that carry poses [N', 3], float64.
        pos: points [N, 3].

    Returns:
        ``index`` [N, k] into ``carriers``, nearest first, and ``weight`` [N, k], whose rows sum
        to one; k is 3, or N' where that is less.

    Source: inverse squared distances to the nearest three: Qi et al., PointNet++, NeurIPS 2017
    (there with a jump).

    **Equivariance:** invariant; equal distances go to the first carriers.
    """
    index, distance = knn(carriers, pos, min(_NEAR + 1, len(carriers)))
    square = distance.square()
    at_one = square[:, :1] == 0
    share = square[:, :1] / torch.where(at_one, 1, square)  # in (0, 1], and scale is no matter
    weight = share[:, :_NEAR]
    if len(carriers) > _NEAR:
        weight = weight - share[:, _NEAR:]
    weight = torch.where(weight > _LEAST, weight, 0)
    weight = torch.where(weight[:, :1] > 0, weight, 1)
    first = torch.arange(weight.shape[1], device=weight.device) == 0
    weight = torch.where(at_one, first.to(weight), weight)
    return index[:, :_NEAR], weight / weight.sum(1, keepdim=True)

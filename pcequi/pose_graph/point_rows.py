"""From the representatives of a level back to the points of the cloud."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pcequi.ops import coalesce_rows, grouped_spmm, knn
from pcequi.poses import Poses
from pcequi.short_repr import short_repr

__all__ = ["PointRows", "point_rows"]


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
        ptr = _ends(self.entries)
        return grouped_spmm(x, ptr, self.col, self.val, _ends(self.count), _ends(sources))

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


def _ends(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def point_rows(
    poses: Poses, shared: Tensor, share: Tensor, num: int, pos: Tensor, rows: Tensor
) -> PointRows:
    """What each point of a cloud reads: the mean over the poses of the level's nearest point.

    Args:
        poses: of the level, on N' of the points, or at one place.
        shared, share: representatives of which each pose takes a mean, and how much of
            each [N', K, k].
        num: representatives.
        pos: all points [N, 3], in canonical order.
        rows: row in the cloud of each [N].

    **Equivariance:** rows follow the points; ties go to the first in canonical order.
    """
    near, _ = knn(poses.pos, pos, 1)
    col = shared.flatten(1)[near[:, 0]]
    val = (share.flatten(1) / share.shape[1])[near[:, 0]]
    row = rows[:, None].expand_as(col)
    kept = val > 0
    ptr, col, val = coalesce_rows(row[kept], col[kept], val[kept], len(pos), num)
    count = torch.tensor([len(pos)], device=pos.device)
    place = torch.arange(len(pos), device=pos.device)
    return PointRows(count, place, ptr[1:] - ptr[:-1], col, val)

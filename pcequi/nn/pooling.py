"""Group pooling: from poses to invariant features of a cloud."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.errors import ShapeError
from pcequi.pose_graph import LevelGraph


class GroupPool(torch.nn.Module):
    """Mean and maximum over the poses of each cloud.

    The mean weights each representative by the number of poses that it stands
    for, so that it estimates the mean over all poses; the maximum does not.

    Shapes:
        x [M, C], level with M representatives in G clouds -> [G, 2 C].

    Raises:
        ShapeError: ``x`` is not of the level's representatives.

    **Equivariance:** invariant: poses may be permuted and moved.
    """

    def forward(self, x: Tensor, level: LevelGraph) -> Tensor:
        if x.dim() != 2 or x.shape[0] != level.num:
            raise ShapeError(
                f"`x` (={list(x.shape)}) must be [representatives of the level (={level.num}), C]"
            )
        # Numbers of poses and sums over them are beyond what 16 bits can count.
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, count = level.weight.to(wide)[:, None], level.count
        # What is traced (compiled, exported, on "meta") cannot look at the counts.
        traced = torch.compiler.is_compiling() or x.device.type == "meta"
        each = level.each is not None
        if not traced and (each or (count == count[0]).all()):
            # Representatives of equally many: a view and a batched product,
            # three to six times as fast as segments on the CPU.
            x = x.view(len(count), -1, x.shape[1])
            weight = weight.view(len(count), 1, -1)
            share = (weight / weight.sum(2, keepdim=True)).to(x.dtype)
            return torch.cat([torch.bmm(share, x)[:, 0], x.max(1).values], 1)
        total = torch.segment_reduce(weight, "sum", lengths=count, axis=0)
        mean = torch.segment_reduce(x * weight, "sum", lengths=count, axis=0) / total
        most = torch.segment_reduce(x, "max", lengths=count, axis=0)
        return torch.cat([mean.to(x.dtype), most], 1)

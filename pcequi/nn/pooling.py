"""Group pooling: from poses to invariant features of a cloud."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pcequi.pose_graph import LevelGraph


class GroupPool(torch.nn.Module):
    """Mean and maximum over the poses of each cloud.

    The mean weights each representative by the number of poses that it stands
    for, so that it estimates the mean over all poses; the maximum does not.

    Shapes:
        x [M, C], level with M representatives in G clouds -> [G, 2 C].

    **Equivariance:** invariant: poses may be permuted and moved.
    """

    def forward(self, x: Tensor, level: LevelGraph) -> Tensor:
        size, batch = len(level.count), level.batch
        weight = level.weight.to(x.dtype)
        total = scatter(weight, batch, dim_size=size, reduce="sum").clamp_min(1)
        share = (weight / total.index_select(0, batch))[:, None]
        mean = scatter(x * share, batch, dim_size=size, reduce="sum")
        return torch.cat([mean, scatter(x, batch, dim_size=size, reduce="max")], 1)

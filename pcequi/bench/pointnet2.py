"""What a PyG user would take today: a PointNet++ of PyG's ``PointNetConv`` layers.

Qi et al., "PointNet++: deep hierarchical feature learning on point sets in a metric space",
2017, the classifier with a single scale a level: 512 centres of radius 0.2, 128 of radius 0.4,
then the whole cloud. PyG's own ``fps`` and ``radius`` need pyg-lib, which PyPI does not have;
centres and neighbours are found by ``pcequi.ops``. As PyG's example does, a ball keeps 64 points
and has no copies to fill it up; these are the nearest ones, so that the order of the points does
not matter. The maximum is taken over runs of rows, which costs less than the scattered one of PyG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, PointNetConv

from pcequi.ops import farthest_point_sampling, pairs_within

__all__ = ["Balls", "PointNet2"]


class Balls(NamedTuple):
    """Points around centres, of a batch of clouds.

    Attributes:
        source: points [G * N, 3].
        center: centres [G * C, 3].
        edge_index: from each point of a ball to its centre [2, E], centre by centre.

    **Equivariance:** points and centres move with the clouds, edges stay.
    """

    source: Tensor
    center: Tensor
    edge_index: Tensor


class _PointNetConv(PointNetConv):
    """PyG's layer with the same result, for edges that lie target by target."""

    def aggregate(self, inputs: Tensor, index: Tensor, ptr=None, dim_size=None) -> Tensor:
        lengths = torch.bincount(index, minlength=dim_size)
        return torch.segment_reduce(inputs, "max", lengths=lengths, axis=0)


class PointNet2(nn.Module):
    """A classifier of clouds of equally many points.

    Args:
        num_classes: logits.
        centers: of the first two levels.
        radii: of their balls, in units of the points.
        num_neighbors: that a ball keeps at most.

    Shapes:
        pos [G, N, 3] -> logits [G, num_classes]. Without ``balls`` these are found on the way,
        as DGCNN finds its neighbours; they depend on the points alone, so that they may also be
        found before, as pcequi's graphs are.

    Raises:
        ArgumentError: more centres than points.

    **Equivariance:** to permutation and nothing else: it is the yardstick.
    """

    def __init__(
        self,
        num_classes: int,
        centers: Sequence[int] = (512, 128),
        radii: Sequence[float] = (0.2, 0.4),
        num_neighbors: int = 64,
    ):
        super().__init__()
        self.centers, self.radii, self.num_neighbors = tuple(centers), tuple(radii), num_neighbors
        widths = [3, 64, 64, 128], [128 + 3, 128, 128, 256]
        self.convs = nn.ModuleList(
            _PointNetConv(_mlp(channels), add_self_loops=False) for channels in widths
        )
        self.embed = _mlp([256 + 3, 256, 512, 1024])
        self.head = MLP([1024, 512, 256, num_classes], dropout=0.5, bias=[False, False, True])

    def forward(self, pos: Tensor, balls: Sequence[Balls] | None = None) -> Tensor:
        x = None
        for conv, ball in zip(self.convs, self.balls(pos) if balls is None else balls):
            x = conv(x, (ball.source, ball.center), ball.edge_index)
        x = self.embed(torch.cat([x, ball.center], 1))
        return self.head(x.view(len(pos), -1, x.shape[1]).amax(1))

    @torch.no_grad()
    def balls(self, pos: Tensor) -> list[Balls]:
        """The balls of the first two levels, for clouds [G, N, 3].

        Raises:
            ArgumentError: more centres than points.

        **Equivariance:** as ``Balls``.
        """
        found = []
        for number, radius in zip(self.centers, self.radii):
            found.append(_balls(pos, number, radius, self.num_neighbors))
            pos = found[-1].center.view(len(pos), -1, 3)
        return found


def _mlp(channels: list[int]) -> MLP:
    return MLP(channels, plain_last=False, bias=False)


def _balls(pos: Tensor, number: int, radius: float, most: int) -> Balls:
    chosen = torch.stack([farthest_point_sampling(cloud, number)[0] for cloud in pos])
    source, center = pos.flatten(0, 1), pos.gather(1, chosen[:, :, None].expand(-1, -1, 3))
    center, clouds = center.flatten(0, 1), torch.arange(len(pos), device=pos.device)
    batches = (clouds.repeat_interleave(size) for size in (pos.shape[1], number))
    target, near = pairs_within(source, center, radius, *batches)
    # Centre by centre, of each the nearest first: distances are a part of a centre's number.
    apart = (source[near] - center[target]).double().norm(dim=1) / (2 * radius)
    order = (target + apart).argsort(stable=True)
    target, near = target[order], near[order]
    count = torch.bincount(target, minlength=len(center))
    kept = torch.arange(len(target), device=pos.device) - (count.cumsum(0) - count)[target] < most
    return Balls(source, center, torch.stack([near[kept], target[kept]]))

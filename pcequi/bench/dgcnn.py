"""What a PyG user would take today: a DGCNN of PyG's ``EdgeConv`` layers.

Wang et al., "Dynamic graph CNN for learning on point clouds", 2019, section 5.1:
20 neighbours in feature space, widths 64, 64, 128, 256, an embedding of 1,024.
PyG's own ``DynamicEdgeConv`` needs pyg-lib, which PyPI does not have; neighbours
are found with ``torch.cdist`` instead. All points have equally many, so that the
maximum over them is a dense one, which costs less than the scattered one of PyG.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv

__all__ = ["DGCNN"]


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide, wider in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(wide, wider, bias=False), nn.BatchNorm1d(wider), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class _EdgeConv(EdgeConv):
    """PyG's layer with the same result, for edges that lie target by target, equally many each."""

    def aggregate(self, inputs: Tensor, index: Tensor, ptr=None, dim_size=None) -> Tensor:
        return inputs.view(dim_size, -1, inputs.shape[-1]).max(1).values


class DGCNN(nn.Module):
    """A classifier of clouds of equally many points.

    Args:
        num_classes: logits.
        num_neighbors: in feature space.

    Shapes:
        pos [G, N, 3] -> logits [G, num_classes].

    **Equivariance:** to permutation and nothing else: it is the yardstick.
    """

    def __init__(self, num_classes: int, num_neighbors: int = 20):
        super().__init__()
        self.num_neighbors = num_neighbors
        widths = (3, 64, 64, 128, 256)
        self.convs = nn.ModuleList(
            _EdgeConv(_mlp(2 * wide, wider), aggr="max")
            for wide, wider in zip(widths, widths[1:], strict=False)
        )
        self.embed = _mlp(sum(widths[1:]), 1024)
        self.head = nn.Sequential(_mlp(2048, 512), nn.Dropout(0.5), _mlp(512, 256), nn.Dropout(0.5))
        self.out = nn.Linear(256, num_classes)

    def forward(self, pos: Tensor) -> Tensor:
        clouds, points, _ = pos.shape
        x, found = pos.flatten(0, 1), []
        for conv in self.convs:
            x = conv(x, self.edges(x.detach().view(clouds, points, -1)))
            found.append(x)
        x = self.embed(torch.cat(found, 1)).view(clouds, points, -1)
        return self.out(self.head(torch.cat([x.max(1).values, x.mean(1)], 1)))

    def edges(self, x: Tensor) -> Tensor:
        """From each of the nearest points to each point, point by point, [2, G * N * k]."""
        clouds, points, _ = x.shape
        near = torch.cdist(x, x).topk(self.num_neighbors, dim=2, largest=False).indices
        first = torch.arange(clouds, device=x.device)[:, None, None] * points
        target = torch.arange(clouds * points, device=x.device)
        return torch.stack([(near + first).flatten(), target.repeat_interleave(self.num_neighbors)])

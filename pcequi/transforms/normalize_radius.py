"""The transform that brings a cloud to the size that levels expect."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pcequi.clouds import check_cloud
from pcequi.errors import DataError
from pcequi.transforms.checks import points_of_one_cloud


class NormalizeRadius(BaseTransform):
    """Move a cloud to zero mean and scale its farthest point to distance one.

    The radii of the presets' levels are in units of that distance. PyG's ``NormalizeScale``
    fits a cloud into a cube instead, whose size depends on how the cloud lies.

    Raises:
        DataError: ``data`` has no ``pos``, is a batch of several clouds, is too large, or has
            a pose graph.

    **Equivariance:** turns with the points; invariant to translation and scale.
    """

    def forward(self, data: Data) -> Data:
        pos = check_cloud(points_of_one_cloud(data, moved=True), "data.pos")
        centered = pos.double() - pos.double().mean(0)
        if (pos == pos[0]).all():  # the mean of equal numbers can miss them by rounding
            centered = torch.zeros_like(centered)
        size = centered.norm(dim=1).max()
        if not torch.isfinite(size):
            raise DataError(
                f"`data.pos` reaches {float(pos.abs().max()):.2g}, too far for squares of distances"
            )
        data.pos = (centered / torch.where(size > 0, size, 1)).to(pos.dtype)
        return data

    def __repr__(self) -> str:
        return "NormalizeRadius()"

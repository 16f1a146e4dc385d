"""The transform that leaves out points that lie alone."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pcequi.errors import DataError
from pcequi.outliers import FACTOR, NEIGHBORS, kept_points
from pcequi.transforms.checks import points_of_one_cloud


class DropOutliers(BaseTransform):
    """Leave out points that lie alone, with everything that ``data`` says of them.

    Stray points of a scan turn the frames of the whole cloud, and farthest-point sampling
    picks them first. See ``pcequi.outliers.kept_points``.

    Args:
        neighbors, factor: which points lie alone.

    Raises:
        DataError: ``data`` has no ``pos``, is a batch of several clouds, or has faces or a
            pose graph.

    **Equivariance:** the choice is invariant to rigid motion and scale.
    """

    def __init__(self, neighbors: int = NEIGHBORS, factor: float = FACTOR):
        self.neighbors, self.factor = neighbors, factor

    def forward(self, data: Data) -> Data:
        pos = points_of_one_cloud(data, moved=True)
        kept = kept_points(pos, self.neighbors, self.factor)
        if len(kept) == len(pos):
            return data
        if data.get("face") is not None:
            raise DataError(
                "`data.face` names points of a mesh, some of which would go; sample points from it "
                "first (SamplePoints of PyG), or drop it"
            )
        data = data.clone()
        mask = torch.zeros(len(pos), dtype=torch.bool, device=kept.device)
        mask[kept] = True
        return data.subgraph(mask)

    def __repr__(self) -> str:
        return f"DropOutliers(neighbors={self.neighbors}, factor={self.factor})"

"""What a transform of one cloud asks of its ``Data``."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data

from pcequi.errors import DataError


def points_of_one_cloud(data: Data, *, moved: bool = False) -> Tensor:
    """``data.pos`` [N, 3], of a ``Data`` that holds one cloud.

    Args:
        data: what a transform was given.
        moved: whether the transform changes the points, which a pose graph would not notice.

    Raises:
        DataError: there are no points, or those of several clouds; or they have a pose graph
            and are to be changed.

    **Equivariance:** the points as they are.
    """
    if not isinstance(data, Data):
        raise DataError(f"`data` (={type(data).__name__}) must be a Data of one cloud")
    if data.pos is None:
        raise DataError("`data.pos` (=None) is needed; give each Data its points [N, 3]")
    batch = data.get("batch")
    if batch is not None and len(batch) and int(batch.max()) > int(batch.min()):
        raise DataError(
            f"`data.batch` names {int(batch.max()) + 1} clouds, and this transform takes one: "
            "apply it to each Data, as `transform` or `pre_transform` of a data set, before a "
            "DataLoader or Batch joins them"
        )
    if moved and "graph0_count" in data:
        raise DataError(
            "`data` has a pose graph already, which would stay that of the points as they are; "
            "apply BuildPoseGraph last"
        )
    return data.pos

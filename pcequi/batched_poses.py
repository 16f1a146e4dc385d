"""Poses of a batch of clouds: a sampler takes one cloud and would take a batch for one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.errors import DataError, ShapeError
from pcequi.normals import check_normals
from pcequi.poses import Poses

__all__ = ["batched_poses"]


def batched_poses(
    sampler: Callable[..., Poses],
    pos: Tensor,
    batch: Tensor | None,
    normal: Tensor | None = None,
    **options,
) -> Poses:
    """Poses of several clouds, each with those that it has alone.

    Args:
        sampler: of poses, such as ``TangentPoses(1)``.
        pos: the points of all clouds [N, 3].
        batch: sorted cloud of each point [N], as PyG's ``Batch`` has it; None: one cloud.
        normal: normals [N, 3], or None.
        options: what else the sampler takes, such as ``differentiable=True``.

    Returns:
        Poses on all points, in their order; of ``CentroidPoses``, one place a cloud.

    Raises:
        ShapeError: a batch or normals that are not of these points.
        DataError: a batch that is not sorted, or skips a cloud.

    **Equivariance:** as the sampler's, cloud by cloud: each may move by itself.
    """
    check_cloud(pos)
    if normal is not None:
        check_normals(pos, normal)
    if batch is None:
        return sampler(pos, normal, **options)
    sizes = _sizes(batch, len(pos))
    normals = [None] * len(sizes) if normal is None else normal.split(sizes)
    parts = [sampler(*one, **options) for one in zip(pos.split(sizes), normals, strict=True)]
    first = parts[0].rot[:1]
    where = torch.cat([part.pos for part in parts])
    one = all(part.shared or len(part.rot) == 1 for part in parts)
    if one and all(torch.equal(part.rot[:1], first) for part in parts):
        rot = first.expand(len(where), -1, -1, -1)  # once in memory
    else:
        rot = torch.cat([part.rot for part in parts])
    return Poses(where, rot, parts[0].group, parts[0].axial)


def _sizes(batch: Tensor, num: int) -> list[int]:
    """Points of each cloud."""
    if batch.shape != (num,) or batch.is_floating_point() or batch.is_complex():
        raise ShapeError(
            f"`batch` (={list(batch.shape)}, {batch.dtype}) must be whole numbers, [points] "
            f"(={[num]}): the cloud of each point"
        )
    if batch[0] < 0 or (batch[1:] < batch[:-1]).any():
        raise DataError("`batch` is not sorted from 0 on; sort the points by cloud first")
    counts = torch.bincount(batch)
    if (counts == 0).any():
        empty = int((counts == 0).int().argmax())
        raise DataError(f"`batch` skips cloud {empty}; every cloud needs at least one point")
    return counts.tolist()

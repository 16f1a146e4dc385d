"""Online sampling: every level samples on its current features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcequi.embedding import feature_projection
from pcequi.errors import ArgumentError
from pcequi.ops import grouped_spmm
from pcequi.pose_graph import GraphBuilder, LevelStep, batch_levels


def forward_online(
    model,
    clouds: Sequence[Tensor],
    normals: Sequence[Tensor | None] | None = None,
    projection: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run a network on clouds, sampling each level on the features below it.

    The feature embedding of a pose is A (f Pi): its row block of the dense
    operator applied to the current features under a fixed projection. The
    first level has no features yet and samples on the geometry.

    Args:
        model: a ``GroupConvClassifier``.
        clouds: each [N, 3]; sizes may differ.
        normals: of each cloud, or None.
        projection: columns of Pi.
        generator: for levels sampled at random.

    Returns:
        Logits [len(clouds), num_classes]; without a head the pooled features.

    Raises:
        ArgumentError: no cloud, or in training one alone.
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** as the network on precomputed graphs.
    """
    if not len(clouds):
        raise ArgumentError("`clouds` (=[]) must be at least one cloud [N, 3]")
    model.check_clouds(len(clouds))
    # Values of A stay in at least 32 bits, as in graphs that are loaded.
    dtype, device = torch.promote_types(model.dtype, torch.float32), model.device
    normals = normals or [None] * len(clouds)
    builders = [
        GraphBuilder(
            pos.to(device), model.levels, normal=None if normal is None else normal.to(device)
        )
        for pos, normal in zip(clouds, normals, strict=True)
    ]
    x, pooled, below = None, [], None
    for number in range(len(model.levels)):
        parts, first = [], 0
        for cloud, builder in enumerate(builders):
            step = builder.level(number)
            embedding = None
            if number > 0 and not step.level.sampling.is_dense:
                size = int(below[cloud])
                embedding = feature_embedding(step, x[first : first + size], projection)
                first += size
            parts.append(builder.finish(step, step.sample(embedding, generator=generator)))
        level = batch_levels(parts).to(dtype)
        x = model.run_level(number, x, level, below)
        pooled.append(model.pool(x, level))
        below = level.count
    return model.head(torch.cat(pooled[1:], 1))


def feature_embedding(step: LevelStep, x: Tensor, projection: int) -> Tensor:
    """A (x Pi) for all poses of a level, [P, B * projection], float64.

    Args:
        step: the level of one cloud; the level below is finished.
        x: features of the representatives below [S, C].
        projection: columns of Pi; C or more: no projection, the bound of the
            layer's error by the covering radius is then exact.

    **Equivariance:** unchanged when cloud and poses move together.
    """
    x = x.detach().double()
    x = x @ feature_projection(x.shape[1], projection, x.dtype, x.device)
    x = torch.cat([x, x.new_ones(len(x), 1)], 1)  # the constant channel of the blocks
    ptr, col, val = step.operator()
    one = torch.tensor([0], device=x.device)
    z = grouped_spmm(
        x, ptr, col, val, torch.cat([one, one + len(ptr) - 1]), torch.cat([one, one + len(x)])
    )
    return z.view(step.poses.num, -1)

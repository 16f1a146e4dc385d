"""Online sampling: every level samples on its current features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from pcequi.clouds import check_cloud
from pcequi.embedding import feature_projection
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.models.classifier import GroupConvClassifier
from pcequi.ops import grouped_spmm
from pcequi.pose_graph import GraphBuilder, LevelGraph, LevelStep, PoseGraph, batch_levels


def forward_online(
    model: GroupConvClassifier,
    clouds: Data | Sequence[Tensor],
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
        clouds: a ``Data`` or ``Batch`` with ``pos``, and with ``normal`` and ``x`` where the
            levels take them; or a list of clouds, each [N, 3], whose sizes may differ, of networks
            that take no ``x``.
        normals: of each cloud of a list, or None; estimated where a level needs them.
        projection: columns of Pi.
        generator: for levels sampled at random.

    Returns:
        Logits [G, num_classes] of G clouds; without a head the pooled features.

    Raises:
        ArgumentError: no clouds, or in training one alone; one tensor in place of a list;
            ``normals`` beside a ``Data``, or not as many as the clouds; no ``x`` where the levels
            take it.
        ShapeError, DataError: a cloud or its ``x`` is unusable, or ``clouds.batch`` is not sorted.

    **Equivariance:** as the network on precomputed graphs.
    """
    parts = _parts(model, clouds, normals)
    model.check_clouds(len(parts))
    levels, features = _run(model, parts, projection, generator)
    pooled = [model.pool(x, level) for x, level in zip(features[1:], levels[1:])]
    return model.head(torch.cat(pooled, 1))


@torch.no_grad()
def online_graph(
    model: GroupConvClassifier,
    clouds: Data | Sequence[Tensor],
    normals: Sequence[Tensor | None] | None = None,
    projection: int = 8,
    generator: torch.Generator | None = None,
) -> PoseGraph:
    """The graph that ``forward_online`` samples and runs on, from which a network in ``eval()``
    mode gives the same logits.

    Args:
        model, clouds, normals, projection, generator: as ``forward_online`` takes. A network that
            trains updates its batch norms.

    Raises:
        ArgumentError, ShapeError, DataError: as ``forward_online``.

    **Equivariance:** as ``build_pose_graph``.
    """
    parts = _parts(model, clouds, normals)
    model.check_clouds(len(parts))
    return PoseGraph(_run(model, parts, projection, generator)[0])


def _run(
    model, clouds, projection: int, generator: torch.Generator | None
) -> tuple[list[LevelGraph], list[Tensor]]:
    """Levels sampled on the features below them, and the features of each."""
    # Values of A stay in at least 32 bits, as in graphs that are loaded.
    dtype, device = torch.promote_types(model.dtype, torch.float32), model.device
    builders = [
        GraphBuilder(
            pos.to(device), model.levels, normal=None if normal is None else normal.to(device), x=x
        )
        for pos, normal, x in clouds
    ]
    levels: list[LevelGraph] = []
    features: list[Tensor] = []
    below = None
    for number in range(len(model.levels)):
        parts, first = [], 0
        for cloud, builder in enumerate(builders):
            step = builder.level(number)
            embedding = None
            if number > 0 and not step.level.sampling.is_dense:
                size = int(below[cloud])
                embedding = feature_embedding(step, features[-1][first : first + size], projection)
                first += size
            parts.append(builder.finish(step, step.sample(embedding, generator=generator)))
        level = batch_levels(parts).to(dtype)
        features.append(model.run_level(number, features[-1] if number else None, level, below))
        levels.append(level)
        below = level.count
    return levels, features


def _parts(model, clouds, normals) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
    """The points of each cloud, their normals and what else they bring, checked."""
    numbers = None
    if isinstance(clouds, Data):
        if normals is not None:
            raise ArgumentError(
                "`normals` are those of the Data that is given as `clouds`; set `data.normal`"
            )
        takes = any(level.in_channels for level in model.levels)
        given = {"normal": clouds.get("normal"), "x": clouds.get("x") if takes else None}
        clouds, normals, numbers = _split(clouds, given)
    for name, value in (("clouds", clouds), ("normals", normals)):
        if isinstance(value, Tensor) and value.dim() < 3:
            raise ArgumentError(
                f"`{name}` (=a tensor {list(value.shape)}) must be a list with a tensor [N, 3] of "
                f"each cloud; of one cloud take [{'pos' if name == 'clouds' else 'normal'}]"
            )
    clouds = list(clouds)
    normals = [None] * len(clouds) if normals is None else list(normals)
    if not clouds:
        raise ArgumentError("`clouds` (=[]) must be at least one cloud [N, 3]")
    if len(normals) != len(clouds):
        raise ArgumentError(
            f"`normals` (={len(normals)}) must be as many as the clouds (={len(clouds)}), with "
            "None for a cloud without"
        )
    for number, (pos, normal) in enumerate(zip(clouds, normals, strict=True)):
        if isinstance(pos, Data):
            raise ArgumentError(
                f"`clouds[{number}]` (=a Data) must be a tensor [N, 3]; join several Data by "
                "Batch.from_data_list(clouds)"
            )
        check_cloud(pos, f"clouds[{number}]")
        if normal is not None and not isinstance(normal, Tensor):
            raise ArgumentError(
                f"`normals[{number}]` (a {type(normal).__name__}) must be a tensor [N, 3] or None"
            )
    numbers = [None] * len(clouds) if numbers is None else numbers
    return list(zip(clouds, normals, numbers, strict=True))


def _split(data: Data, given: dict[str, Tensor | None]) -> list[Sequence[Tensor] | None]:
    """The points of each cloud of a ``Data`` or ``Batch``, and what else is given of them, by its
    name there; None where there is none of it."""
    pos, batch = data.pos, data.get("batch")
    if not isinstance(pos, Tensor):
        raise ArgumentError(f"`clouds.pos` (={pos!r}) is needed; give the Data its points [N, 3]")
    if batch is None:
        return [[pos], *(None if value is None else [value] for value in given.values())]
    for name, value in (*given.items(), ("batch", batch)):
        rows = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(pos)
        if value is not None and not rows:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(
                f"`clouds.{name}` (={found}) must be a tensor with a row for each of the points "
                f"(={len(pos)})"
            )
    if (batch[1:] < batch[:-1]).any():
        raise DataError("`clouds.batch` must be sorted, as Batch.from_data_list makes it")
    count = torch.bincount(batch, minlength=getattr(data, "num_graphs", 0)).tolist()
    parts = (None if value is None else value.split(count) for value in given.values())
    return [pos.split(count), *parts]


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

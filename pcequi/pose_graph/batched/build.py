"""The graphs of many clouds at once, in plain torch: for GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from pcequi.clouds import check_cloud, check_floating
from pcequi.errors import ArgumentError
from pcequi.pose_graph.batched.canonical import (
    canonical_poses,
    is_plain,
    median_sizes,
    pad_clouds,
)
from pcequi.pose_graph.batched.covered import least_points, level_points, levels_covered
from pcequi.pose_graph.batched.frames import MOST_POINTS
from pcequi.pose_graph.batched.levels import BatchBuilder
from pcequi.pose_graph.build import build_pose_graph
from pcequi.pose_graph.graph import PoseGraph
from pcequi.pose_graph.level import Level
from pcequi.pose_graph.scale import warn_of_scale
from pcequi.poses import CentroidPoses

__all__ = ["build_parts", "build_pose_graphs"]

# Numbers in the largest arrays of a batch, a gigabyte of them; more clouds are built in turns.
_MOST = 2**27
# The same on a GPU, where a call takes as long for few clouds as for many; fewer where its free
# memory would not hold ``_ROOM`` such arrays (what was seen to be held at once is less than two).
_MOST_ON_GPU, _ROOM = 2**30, 4


def build_pose_graphs(
    clouds: Sequence[Tensor],
    levels: Sequence[Level],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> PoseGraph:
    """The precomputed graphs of many clouds as one batch, all levels for all clouds at once.

    Equal to ``PoseGraph.batch`` of ``build_pose_graph`` of each, up to rounding, unless points
    nearly coincide (a millionth apart), whose order distances by products do not tell. Made for
    a GPU, where the other way takes a thousand small calls a cloud; on a CPU that one
    is faster. Everything is computed in float64 and cast once, at the end.

    Levels that ``levels_covered`` leaves out, clouds of no more points than a level asks for
    or of more than 4,096, and those whose variances agree (a line, a cube, a sphere) are
    built one by one, on the CPU.

    Args:
        clouds: each [N, 3], any floating dtype, of any size.
        levels: at least one; the first is the lifting level.
        dtype: of the result; by default that of the clouds, single for half precision.
        device: where to compute and where the result is; by default that of the first cloud.

    Returns:
        The ``PoseGraph`` of the batch.

    Raises:
        ArgumentError: there is no cloud, or a setting is unusable.
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** as ``build_pose_graph``; clouds do not touch each other.
    """
    check_floating(dtype)
    _check_clouds(clouds)
    device = torch.device(clouds[0].device if device is None else device)
    parts = list(build_parts(clouds, levels, device))
    return _in_order(parts).to(dtype or reduce(torch.promote_types, map(_own_dtype, clouds)))


def build_parts(
    clouds: Sequence[Tensor],
    levels: Sequence[Level],
    device: torch.device,
    blocks: torch.dtype | None = None,
) -> Iterator[tuple[list[int], PoseGraph]]:
    """Graphs of some clouds after the other, in float64, and which clouds they are of.

    Args:
        clouds, levels, device: as ``build_pose_graphs`` takes.
        blocks: type in which A comes as dense blocks, where they can be made at once.

    Raises:
        ArgumentError, ShapeError, DataError: as ``build_pose_graphs``.

    **Equivariance:** as ``build_pose_graph``.
    """
    _check_clouds(clouds)
    return _parts(clouds, list(levels), device, blocks)


def _check_clouds(clouds: Sequence[Tensor]) -> None:
    if not len(clouds):
        raise ArgumentError("`clouds` (=[]) must hold at least one cloud")
    for cloud in clouds:
        # What can be asked without a look at the values; these are judged all at once.
        usable = isinstance(cloud, Tensor) and cloud.dim() == 2 and cloud.shape[1] == 3
        if not usable or not cloud.is_floating_point():
            check_cloud(cloud)  # which raises


def _parts(clouds, levels: list[Level], device, blocks):
    least, most = 0, -1
    if levels_covered(levels):
        least, most = least_points(levels), MOST_POINTS
    usual = [c for c, cloud in enumerate(clouds) if least < len(cloud) <= most]
    done: set[int] = set()
    while usual:
        size = _largest_array(levels, max(len(clouds[c]) for c in usual))
        step = max(1, _most(device) // size)
        some, usual = usual[:step], usual[step:]
        built, graph = _build_usual([clouds[c] for c in some], levels, device, blocks)
        if built:
            numbers = [some[c] for c in built]
            done.update(numbers)
            yield numbers, graph
            del graph  # before the next take its place
    for c in (c for c in range(len(clouds)) if c not in done):
        graph = build_pose_graph(clouds[c].detach().cpu(), levels, dtype=torch.float64)
        yield [c], graph.to(device)


def _most(device: torch.device) -> int:
    if device.type != "cuda":
        return _MOST
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + reserved
    return min(_MOST_ON_GPU, free // (8 * _ROOM))


def _own_dtype(cloud: Tensor) -> torch.dtype:
    return cloud.dtype if cloud.dtype in (torch.float32, torch.float64) else torch.float32


def _largest_array(levels: Sequence[Level], size: int) -> int:
    """Numbers in the largest array of a cloud of this size."""
    sizes = [size * size]
    for number, level in enumerate(levels):
        if isinstance(level.poses, CentroidPoses):
            continue
        turns = BatchBuilder.turns(level)
        seeds, points = level.sampling.seeds, level_points(levels, number)
        rows = min(points, seeds or points) * (1 if level.sampling.orbits else turns)
        every = rows * (turns if level.sampling.orbits else 1)
        sizes.append(every * max(rows, level.sampling.num if level.sampling.refine else 0))
        sizes.append(points * level.sampling.num * (1 if level.sampling.orbits else turns))
    return max(sizes)


def _build_usual(clouds: list[Tensor], levels: list[Level], device, blocks):
    """Which of the clouds could be built at once, and their graphs."""
    padded = pad_clouds(clouds, device)
    plain, axes = is_plain(padded)
    built = plain.cpu().nonzero()[:, 0].tolist()
    if not built:
        return built, None
    if len(built) < len(clouds):
        padded, axes = padded.select(built), axes[torch.tensor(built, device=device)]
    warn_of_scale(median_sizes(padded), padded.num, levels)
    return built, BatchBuilder(canonical_poses(padded, axes), levels, blocks).build()


def _in_order(parts: list[tuple[list[int], PoseGraph]]) -> PoseGraph:
    """Graphs of clouds with these numbers as one batch, in the order of the numbers."""
    if len(parts) == 1:
        return parts[0][1]
    numbers = torch.tensor([c for some, _ in parts for c in some], device="cpu")
    joined = PoseGraph.batch([graph for _, graph in parts])
    if (numbers[1:] > numbers[:-1]).all():
        return joined
    return joined.take(numbers.argsort().to(joined.levels[0].count.device))

"""Which settings can be built for many clouds at once."""

from __future__ import annotations

from collections.abc import Sequence

from pcequi.ops import real_characters
from pcequi.orbits import basis_turns, group_products
from pcequi.pose_graph.batched.frames import FRAMES
from pcequi.pose_graph.level import Level
from pcequi.pose_graph.orbit_rows import orbit_turns
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses

__all__ = ["least_points", "level_points", "levels_covered", "poses_group"]


def poses_group(level: Level):
    """What ``Poses.group`` is for a level with frames that all points share [K, 3, 3].

    **Equivariance:** a constant of the settings.
    """
    grid = GridPoses(level.poses.rotations, level.poses.align).grid()
    return grid[0].T @ grid


def level_points(levels: Sequence[Level], number: int) -> int:
    """Points of a level that is covered; its poses are on the first of the spatial order.

    **Equivariance:** a constant of the settings.
    """
    return min(level.num_points for level in levels[: number + 1])


def least_points(levels: Sequence[Level]) -> int:
    """Clouds must have more points than this, or their levels take them in another order.

    **Equivariance:** a constant of the settings.
    """
    wanted = [level.num_points or 0 for level in levels]
    return max(wanted + [level.sampling.seeds or 0 for level in levels])


def levels_covered(levels: Sequence[Level]) -> bool:
    """Whether ``build_pose_graphs`` builds these levels for many clouds at once.

    It does for frames that all points of a cloud share (``GridPoses`` with the name of a
    group, aligned to the cloud, and ``CentroidPoses`` in the last level), free or in
    orbits, and for ``NormalPoses`` with kernels on pairs; sampled by FPS to a number of
    fewer poses than there are, medoids or, of orbits of half turns, rows fitted to all poses.

    **Equivariance:** a constant of the settings.
    """
    if not levels or any(lv.normals or lv.in_channels or lv.bypass for lv in levels):
        return False
    if any(level.kernel_rotations > 1 for level in levels):
        return False
    *lower, last = levels
    if not all(_sampled(levels, n) for n in range(len(lower))):
        return False
    if type(last.poses) is CentroidPoses:
        if not lower or not last.sampling.is_dense or last.sampling.blend > 1:
            return False
    elif not _sampled(levels, len(lower)):
        return False
    if type(levels[0].poses) is NormalPoses:
        return all(type(lv.poses) is NormalPoses and lv.pairs for lv in levels)
    return _grids_covered(levels)


def _sampled(levels: Sequence[Level], number: int) -> bool:
    level = levels[number]
    sampler, poses = level.sampling, level.poses
    # A sampler derived from one of these may put its poses elsewhere.
    if type(poses) not in (GridPoses, NormalPoses) or level.num_points is None:
        return False
    fitted = sampler.orbits and type(poses) is GridPoses  # of which it knows the rows of all poses
    plain = sampler.method == "fps" and (sampler.center == "medoid" or fitted)
    if not plain or sampler.num is None or sampler.tolerance is not None:
        return False
    turns = 1
    if type(poses) is GridPoses:
        if not isinstance(poses.rotations, str):
            return False
        turns = len(poses_group(level))
    points = min(level_points(levels, number), sampler.seeds or level.num_points)
    return max(sampler.num, turns) < points * turns


def _grids_covered(levels: Sequence[Level]) -> bool:
    if any(type(level.poses) is NormalPoses for level in levels):
        return False
    frames = {(level.poses.rotations, level.poses.align) for level in levels}
    if len(frames) > 1 or levels[0].poses.align not in FRAMES:
        return False
    if any(level.pairs is not None for level in levels):
        return False
    orbits = levels[0].sampling.orbits
    for below, level in zip([None, *levels], levels):
        if not level.sampling.is_dense and level.sampling.orbits != orbits:
            return False
        if not orbits:
            continue
        # Embeddings and rows of all poses must be permutations of those of the first.
        group = poses_group(level)
        if basis_turns(group, level.kernel_points) is None:
            return False
        fitted = level.sampling.center == "mean" and not level.sampling.is_dense
        if fitted and real_characters(group_products(group)) is None:
            return False
        if below is not None and orbit_turns(below, level) is None:
            return False
    return True

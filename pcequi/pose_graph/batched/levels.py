"""The levels of many clouds, bottom up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.centers import LEAST, fitted_rows, fitted_weights
from pcequi.normals import any_perpendicular, frames_from_two
from pcequi.ops import real_characters
from pcequi.orbits import group_products
from pcequi.pose_graph.batched.canonical import PaddedClouds
from pcequi.pose_graph.batched.covered import least_points, level_points, poses_group
from pcequi.pose_graph.batched.frames import FRAMES, normals, variances
from pcequi.pose_graph.batched.lifting import grid_embedding, pair_embedding
from pcequi.pose_graph.batched.near import CHUNK, rows_at
from pcequi.pose_graph.batched.operator import (
    combined_rows,
    grid_rows,
    pair_rows,
    to_blocks,
    to_csr,
)
from pcequi.pose_graph.batched.picks import farthest_points
from pcequi.pose_graph.batched.sampling import Chosen, sample
from pcequi.pose_graph.graph import LevelGraph, PoseGraph
from pcequi.pose_graph.level import Level
from pcequi.pose_graph.orbit_rows import block_characters, orbit_turns
from pcequi.poses import CentroidPoses, NormalPoses

__all__ = ["BatchBuilder"]


@dataclass
class _Below:
    """What the next level reads: points [B, S, 3] with their normals, and what they share."""

    pos: Tensor
    axes: Tensor | None
    shares: list[Tensor]


class BatchBuilder:
    """Builds the levels of clouds in canonical poses; settings as ``levels_covered`` asks.

    With ``blocks``, a type, A comes as dense blocks of it where these can be made at once.

    **Equivariance:** as ``build_pose_graph``.
    """

    def __init__(
        self, clouds: PaddedClouds, levels: Sequence[Level], blocks: torch.dtype | None = None
    ):
        self.clouds, self.levels, self.blocks = clouds, levels, blocks
        self.characters = block_characters(levels)
        self.order = farthest_points(clouds, least_points(levels))
        self.frame = None  # of the clouds [B, 3, 3], where poses are turned to one
        if not isinstance(levels[0].poses, NormalPoses):
            self.frame = FRAMES[levels[0].poses.align](clouds)
        self._normals: dict[NormalPoses, Tensor] = {}
        self.below: _Below | None = None

    @staticmethod
    def turns(level: Level) -> int:
        """Rotations a point."""
        return 1 if isinstance(level.poses, NormalPoses) else len(poses_group(level))

    def build(self) -> PoseGraph:
        """The graph of the clouds as one batch, float64."""
        return PoseGraph([self._level(number) for number in range(len(self.levels))])

    def _level(self, number: int) -> LevelGraph:
        level = self.levels[number]
        if isinstance(level.poses, CentroidPoses):
            return self._at_centroid(number)
        order = self.order[:, : level_points(self.levels, number)]
        pos = rows_at(self.clouds.pos, order)
        if isinstance(level.poses, NormalPoses):
            return self._with_normals(number, order, pos)
        group = poses_group(level)
        z = grid_embedding(self.clouds, pos, self.frame, group, level.radius, level.kernel_points)
        chosen = self._sample(level, z, group)
        point, turn = chosen.index // len(group), chosen.index % len(group)
        rot = self.frame[:, None] @ group.to(pos)[turn]
        graph = self._graph(rows_at(pos, point), rot, chosen.weight)
        signs = None
        if level.sampling.center == "mean":
            signs = real_characters(group_products(group)).to(z)
        if number == 0:
            lift = rows_at(z.flatten(1, 2), chosen.index)
            if signs is not None:
                lift = fitted_rows(chosen.shares[0], z, signs)
            graph.lift = lift.flatten(0, 1)
            graph.spread = variances(self.clouds, self.frame)
        elif signs is None:
            self._grid_operator(graph, number, rows_at(pos, point), rot, turn)
        else:
            weight = fitted_weights(chosen.shares[0], signs, _least(level))
            rot = self.frame[:, None].expand(-1, pos.shape[1], -1, -1)
            self._grid_operator(graph, number, pos, rot, turn.new_zeros(pos.shape[:2]), weight)
        self.below = _Below(pos, None, chosen.shares)
        return graph

    def _at_centroid(self, number: int) -> LevelGraph:
        level, clouds = self.levels[number], len(self.clouds.pos)
        group = poses_group(level)
        pos = self.clouds.mean().expand(-1, len(group), -1)
        rot = self.frame[:, None] @ group.to(pos)
        turn = torch.arange(len(group), device=pos.device).expand(clouds, -1)
        graph = self._graph(pos, rot, torch.ones_like(pos[:, :, 0]))
        self._grid_operator(graph, number, pos, rot, turn)
        return graph

    def _with_normals(self, number: int, order: Tensor, pos: Tensor) -> LevelGraph:
        level = self.levels[number]
        if level.poses not in self._normals:
            self._normals[level.poses] = normals(self.clouds, level.poses.radius)
        every = self._normals[level.poses]
        axes = rows_at(every, order)
        z = pair_embedding(self.clouds, every, pos, axes, level.radius, level.pairs)
        chosen = self._sample(level, z, torch.eye(3, dtype=torch.float64, device="cpu")[None])
        here, normal = rows_at(pos, chosen.index), rows_at(axes, chosen.index)
        rot = frames_from_two(normal, any_perpendicular(normal))
        graph = self._graph(here, rot, chosen.weight)
        if number == 0:
            graph.lift = rows_at(z[:, :, 0], chosen.index).flatten(0, 1)
        else:
            below = self.below
            args = below.pos, below.axes, below.shares[0], level.radius, level.pairs
            self._keep(graph, number, [pair_rows(here, normal, *args)], None)
        self.below = _Below(pos, axes, chosen.shares)
        return graph

    def _sample(self, level: Level, z: Tensor, group: Tensor) -> Chosen:
        seeds = level.sampling.seeds
        seeds = None if seeds is None or seeds >= z.shape[1] else seeds
        return sample(z, level.sampling, seeds, group_products(group).to(z.device))

    def _graph(self, pos: Tensor, rot: Tensor, weight: Tensor) -> LevelGraph:
        """A level's representatives, turned and moved back to where the clouds are."""
        clouds = self.clouds
        world = pos @ clouds.frame.mT + clouds.origin[:, None]
        return LevelGraph(
            count=torch.full(weight.shape[:1], weight.shape[1], device=pos.device),
            weight=weight.flatten(),
            pos=world.flatten(0, 1),
            rot=(clouds.frame[:, None] @ rot).flatten(0, 1),
            basis=0,
        )

    def _grid_operator(self, graph, number: int, pos, rot, turn, weight: Tensor | None = None):
        """A of some poses; with ``weight`` [B, T, N, K] of what so much of the N points' poses
        makes, whose first poses are given."""
        level, below = self.levels[number], self.below
        turns = orbit_turns(self.levels[number - 1], level)
        if turns is not None and weight is None:  # the first pose of each point
            pos, rot, turn = (t[:, :: len(turns[0])] for t in (pos, rot, turn))
        points, kept = below.shares[0].shape[1:]
        step = max(1, CHUNK // (pos.shape[1] * level.kernel_points * max(points, kept)))

        def rows():
            for start in range(0, len(pos), step):
                some = slice(start, start + step)
                shares = [share[some] for share in below.shares]
                args = pos[some], rot[some], turn[some], below.pos[some], shares
                made = grid_rows(*args, level.radius, level.kernel_points)
                if weight is not None:
                    made = combined_rows(made, weight[some], turns, _least(level))
                yield made

        self._keep(graph, number, rows(), turns)

    def _keep(self, graph: LevelGraph, number: int, rows, turns) -> None:
        """A, from its rows [B, T, basis, M] of some clouds after the other."""
        graph.basis, characters = self.levels[number].basis, self.characters[number]
        if self.blocks is None or (characters is None) != (turns is None):
            parts = [to_csr(some, turns) for some in rows]
            graph.entries, graph.col, graph.val = map(torch.cat, zip(*parts))
            return
        if characters is not None:
            graph.characters = characters.to(graph.weight.device)
        graph.blocks = torch.cat([to_blocks(some, characters, self.blocks) for some in rows])
        graph.each = graph.num // len(graph.count)


def _least(level: Level) -> float:
    """The share below which weights and entries are left out: means of clusters have all."""
    return LEAST if level.sampling.blend > 1 else 0.0

"""One level of a cloud while its graph is built: what it samples, and the rows of A."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pcequi.centers import LEAST, center_rows, center_weights
from pcequi.ops import coalesce_rows, combined_rows, grouped_spmm, turned_rows
from pcequi.orbits import basis_turns, group_products
from pcequi.pose_graph.edges import pose_operator
from pcequi.pose_graph.level import Level
from pcequi.pose_graph.orbit_rows import orbit_turns
from pcequi.poses import CentroidPoses, Poses
from pcequi.sampling import Representatives

if TYPE_CHECKING:
    from pcequi.pose_graph.build import GraphBuilder

__all__ = ["LevelStep"]


@dataclass
class LevelStep:
    """A level whose poses are known and whose representatives are not.

    **Equivariance:** as ``build_pose_graph``; in canonical coordinates.
    """

    builder: GraphBuilder
    number: int
    level: Level
    poses: Poses
    points: Tensor | None
    embedding: Tensor | None  # geometric, [N, K, D]

    def sample(self, embedding: Tensor | None = None, generator=None) -> Representatives:
        """Choose representatives by an embedding [P, D], by default the geometric one."""
        k = self.poses.num_rotations
        # Learned features of a point's poses are no permutations of one another.
        closed = embedding is None and self._turns() is not None
        if embedding is None:
            embedding = self.embedding
            embedding = (
                embedding.flatten(0, 1)
                if embedding is not None
                else self.poses.pos.new_zeros(self.poses.num, 1)
            )
        spatial = self.level.sampling.method == "spatial"
        return self.level.sampling(
            embedding,
            pos=self.poses.pos.repeat_interleave(k, 0) if spatial else None,
            num_rotations=k,
            seed_rows=self._seed_rows(),
            generator=generator,
            strict=False,  # levels meet clouds of any size
            products=self._products(),
            closed=closed,
        )

    def _products(self) -> Tensor | None:
        """Of the group of the frames, where orbits are sampled."""
        asked = self.poses.group is not None and self.level.sampling.orbits
        return group_products(self.poses.group) if asked else None

    def _turns(self) -> Tensor | None:
        """How the group of the frames permutes the kernel's functions, where it does."""
        group = self.poses.group
        if group is None or self.level.pairs is not None:
            return None
        return basis_turns(group, self.level.kernel_points)

    def _seed_rows(self) -> Tensor | None:
        seeds, k = self.level.sampling.seeds, self.poses.num_rotations
        if seeds is None or isinstance(self.level.poses, CentroidPoses):
            return None
        if seeds >= len(self.poses.pos):
            return None
        rows = self.builder.order[:seeds]
        if self.points is not None:  # the points are a prefix of the same order
            rows = torch.arange(seeds, device=rows.device)
        return (rows[:, None] * k + torch.arange(k, device=rows.device)).flatten()

    def operator(self, chosen: Representatives | None = None):
        """The sparse matrix A of some poses, as (ptr, col, val).

        Rows are (row of ``chosen.index``, basis); None: all poses. With
        ``center="mean"`` they are the rows of all poses, weighted (``centers.center_weights``).
        """
        below, turns = self.builder.below, self._orbit_turns()
        size = 1 if turns is None else self.poses.num_rotations
        fitted = chosen is not None and self._fits(chosen)
        if chosen is None or fitted:  # all poses, or the first of each point
            rot = self.poses.rot[:, ::size]
            places = self.poses.pos[:, None].expand(*rot.shape[:3]).flatten(0, 1), rot.flatten(0, 1)
        else:
            places = self.poses.at(chosen.index[::size])
        rows = pose_operator(*places, below.poses, below.shared, below.share, below.num, self.level)
        if turns is not None:
            turns = tuple(t.to(rows[1].device) for t in turns)
        if fitted and chosen.shared.shape[1] == 1:
            rows = rows if turns is None else turned_rows(*rows, *turns)
            return self._means(rows, chosen, size if self._first_alone(turns) else 1)
        if fitted:
            weight = center_weights(chosen, self._products(), first=turns is not None)
            rows = combined_rows(weight, *rows, below.num, turns=turns, least=LEAST)
        if turns is not None and not self._first_alone(turns):
            rows = turned_rows(*rows, *turns)
        return rows

    def _first_alone(self, turns) -> bool:
        """Whether the rows of the first pose of each point are all that is wanted."""
        return turns is not None and self.number in self.builder.first_only

    def _means(self, rows, chosen: Representatives, size: int):
        """Means of the rows of all poses over the members of each ``size``-th representative."""
        ptr, col, val = rows
        basis, below = self.level.basis, self.builder.below.num
        every = torch.arange(len(ptr) - 1, device=ptr.device)
        row = torch.repeat_interleave(every, ptr[1:] - ptr[:-1])
        member = chosen.assignment[row // basis]
        val = val / chosen.multiplicity.to(val)[member]
        kept = member % size == 0
        row = member // size * basis + row % basis
        entries = (part[kept] for part in (row, col, val))
        return coalesce_rows(*entries, chosen.num // size * basis, below)

    def _fits(self, chosen: Representatives) -> bool:
        """Whether representatives stand for more than the pose that they are named after."""
        return self.level.sampling.center == "mean" and chosen.num < self.poses.num

    def lift(self, chosen: Representatives) -> Tensor:
        """The rows of the embedding that representatives lift [M, D]."""
        rows = self.embedding.flatten(0, 1)
        if not self._fits(chosen):
            return rows[chosen.index]
        return center_rows(chosen, rows, self._products())

    def bypass(self, chosen: Representatives) -> Tensor:
        """What the rows of A of the representatives see of the embeddings of all poses of the
        level below, as if none were left out there: [M, B * D]."""
        below = self.builder.below
        every = torch.arange(below.poses.num, device=self.poses.pos.device)
        shared = every.view(*below.poses.rot.shape[:2], 1)
        share = torch.ones_like(shared, dtype=below.share.dtype)
        ptr, col, val = pose_operator(
            *self.poses.at(chosen.index), below.poses, shared, share, below.poses.num, self.level
        )
        ends = (ptr.new_tensor([0, size]) for size in (len(ptr) - 1, below.poses.num))
        return grouped_spmm(below.seen, ptr, col, val, *ends).view(chosen.num, -1)

    def _orbit_turns(self) -> tuple[Tensor, Tensor] | None:
        return orbit_turns(self.builder.levels[self.number - 1], self.level)

"""What one level of a network sampled on a cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.pose_graph import Level, SampledLevel, build_pose_graph
from pcequi.pose_graph.point_numbers import check_points_alone
from pcequi.poses import CentroidPoses
from pcequi.viz.arrays import as_array
from pcequi.viz.nearest import first_equals


@dataclass
class LevelView:
    """One cloud and what one level of a network sampled on it.

    Attributes:
        pos: the cloud [N, 3].
        sampled: the level: poses on N' points with K rotations.
        turn: index of the rotation shown, of each of the level's points [N'].
        names: number under which each representative is shown [M]: its own, or the
            first one with an equal embedding (those of symmetric clouds).
        equals: for each representative the first of this cloud with an equal embedding [M].
        namesake: for each number of the first cloud's representatives, the one
            that is highlighted under it [numbers].
        gap: distance of that representative's embedding to the one that gave
            the name [numbers]; 0 for the cloud's own names.
        apart: of another shape: distance of each pose's embedding to the nearest
            representative of the first [N', K]; None for the first and its copy.
        matched: of another shape: where that is no more than the largest distance of the
            first's own poses, its covering radius [N', K].
        evidence: of each of the level's points [N'], see ``viz.evidence``;
            None where none was computed.

    **Equivariance:** ``pos`` and the poses move with the cloud, the rest stays.
    """

    pos: Tensor
    sampled: SampledLevel
    turn: Tensor
    names: Tensor
    equals: Tensor
    namesake: Tensor
    gap: Tensor
    apart: Tensor | None = None
    matched: Tensor | None = None
    evidence: Tensor | None = None

    @property
    def assignment(self) -> Tensor:
        """Representative of each pose [N', K]."""
        return self.sampled.chosen.assignment.view(-1, self.sampled.poses.num_rotations)

    def shown(self, values: Tensor) -> Tensor:
        """Of values of all poses [N', K, ...] those of the rotation shown [N', ...]."""
        return values[torch.arange(len(values)), self.turn]

    @property
    def shown_names(self) -> Tensor:
        """Name of the representative of each of the level's points [N']."""
        return self.names[self.shown(self.assignment)]

    @property
    def shown_matched(self) -> Tensor:
        """Whether the first cloud has the like of each pose that is shown [N']."""
        if self.matched is None:
            return torch.ones(len(self.turn), dtype=torch.bool)
        return self.shown(self.matched)

    def centers(self) -> Tensor:
        """Embedding of each representative [M, D]."""
        return self.sampled.embedding.flatten(0, 1)[self.sampled.chosen.index]

    def index_of(self, name: int) -> int:
        """The representative highlighted under a name.

        Raises:
            ArgumentError: there is no such name.
        """
        if not 0 <= name < len(self.namesake):
            raise ArgumentError(
                f"`highlight` (={name}) must be a representative, 0 to {len(self.namesake) - 1}"
            )
        return int(self.namesake[name])

    def members_of(self, name: int) -> Tensor:
        """Poses that share the output of what is highlighted under a name [N', K].

        Those of representatives equal to it as well: which of them stands for a pose
        depends on the order of ties alone.

        Raises:
            ArgumentError: there is no such name.
        """
        return self.equals[self.assignment] == self.equals[self.index_of(name)]


def sample_level(
    pos: Tensor | np.ndarray, levels: Sequence[Level], level: int = 1, rotation: int = 0
) -> LevelView:
    """Sample a cloud as a network does, and look at one level.

    Args:
        pos: one cloud [N, 3], a tensor or a NumPy array.
        levels: of the network.
        level: 1 for the first.
        rotation: index of the rotation whose pose is shown on each point.

    Raises:
        ArgumentError: no such level or rotation, or a level with nothing to
            show (dense, or at the centroid); levels that take more of a point than its place.

    **Equivariance:** with data-driven frames embeddings, ids and distances are
    invariant to SE(3); positions and frames move with the cloud.
    """
    check_points_alone(levels)
    hidden = {number: _why_hidden(levels, number) for number in range(1, len(levels) + 1)}
    shown = ", ".join(str(number) for number, why in hidden.items() if not why)
    if hidden.get(level, "unknown"):
        raise ArgumentError(f"`level` (={level}) must be one of {shown}: {_reasons(hidden)}")
    # Levels above cost time and change nothing here.
    pos = torch.from_numpy(np.array(as_array(pos)))
    _, sampled = build_pose_graph(pos, levels[:level], embeddings=True)
    sampled = sampled[-1]
    count = sampled.poses.num_rotations
    if not 0 <= rotation < count:
        raise ArgumentError(f"`rotation` (={rotation}) must be 0 to {count - 1} at this level")
    turn = torch.full((len(sampled.points),), rotation)
    number = torch.arange(sampled.chosen.num)
    view = LevelView(pos, sampled, turn, number, number, number, torch.zeros(len(number)))
    equals = first_equals(view.centers())
    return replace(view, names=equals, equals=equals)


def _why_hidden(levels, number: int) -> str:
    """Why a level, 1 for the first, has no poses on points with embeddings to show; or ""."""
    level = levels[number - 1]
    if isinstance(level.poses, CentroidPoses):
        return "at the centroid, not on points"
    return (
        "dense: each pose is its own representative"
        if number > 1 and level.sampling.is_dense
        else ""
    )


def _reasons(hidden: dict[int, str]) -> str:
    """What the levels of a network are like, for an error."""
    listed = [f"level {number} is {why}" for number, why in hidden.items() if why]
    return "; ".join([f"this network has {len(hidden)} levels, counted from 1", *listed])


def describe(view: LevelView, highlight: int | None = None) -> dict:
    """Figures of a view, as plain values for JSON.

    Of another shape ``matched`` is the share of its poses that are as near to a
    representative of the first as that one's own, and ``mean_distance_to_first`` their mean
    distance, to compare with the ``mean_distance`` of the first.

    Args:
        view: of a cloud, a copy or another shape.
        highlight: name of a representative to describe too.

    Raises:
        ArgumentError: there is no such name.

    **Equivariance:** as invariant as the embeddings.
    """
    chosen, count = view.sampled.chosen, view.sampled.poses.num_rotations
    result = {
        "points": len(view.pos),
        "points_with_poses": len(view.sampled.points),
        "rotations": count,
        "poses": view.sampled.poses.num,
        "representatives": chosen.num,
        "representatives_shown": len(view.shown_names.unique()),
        "mean_distance": float(chosen.distance.mean()),
        "covering_radius": float(chosen.covering_radius.max()),
        "highlight": None,
    }
    if view.matched is not None:
        result["matched"] = float(view.matched.double().mean())
        result["mean_distance_to_first"] = float(view.apart.mean())
    if highlight is not None:
        found = view.index_of(highlight)
        members = view.members_of(highlight)
        result["highlight"] = {
            "representative": found,
            "poses": int(members.sum()),
            "points": int(members.any(1).sum()),
            "distance": float(view.gap[highlight]),
        }
    return result

"""What one level of a network sampled, as a scene.

The copy of a cloud is sampled by itself, from its own turned points. Its
representatives are then named after those of the cloud by their embeddings
alone: equal embeddings, same name, same colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.ops import nearest_center
from pcequi.pose_graph import SampledLevel, build_pose_graph
from pcequi.viz import colors
from pcequi.viz.scene import CloudPart, Scene

COLORINGS = ("representative", "distance", "feature")
# Frames that a picture can hold and still be read.
MOST_FRAMES = 24


@dataclass
class LevelView:
    """One cloud and what one level of a network sampled on it.

    Attributes:
        pos: the cloud [N, 3].
        sampled: the level: poses on N' points with K rotations.
        turn: index of the rotation shown, of each of the level's points [N'].
        names: number under which each representative is shown [M].
    """

    pos: Tensor
    sampled: SampledLevel
    turn: Tensor
    names: Tensor

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

    def centers(self) -> Tensor:
        """Embedding of each representative [M, D]."""
        return self.sampled.embedding.flatten(0, 1)[self.sampled.chosen.index]

    def index_of(self, name: int) -> int:
        """The representative shown under a name.

        Raises:
            ArgumentError: there is none.
        """
        found = (self.names == name).nonzero()
        if not len(found):
            raise ArgumentError(
                f"`highlight` (={name}) must be a representative, 0 to {len(self.names) - 1}"
            )
        return int(found[0])


def sample_level(pos: Tensor, levels, level: int = 1, rotation: int = 0) -> LevelView:
    """Sample a cloud as a network does, and look at one level.

    Args:
        pos: one cloud [N, 3].
        levels: of the network.
        level: 1 for the first.
        rotation: index of the rotation whose pose is shown on each point.

    Raises:
        ArgumentError: no such level or rotation, or a level with nothing to
            show (dense, or at the centroid).

    **Equivariance:** with data-driven frames embeddings, ids and distances are
    invariant to SE(3); positions and frames move with the cloud.
    """
    if not 1 <= level <= len(levels):
        raise ArgumentError(f"`level` (={level}) must be 1 to {len(levels)}, as the network has")
    # Levels above cost time and change nothing here.
    _, sampled = build_pose_graph(pos.double(), levels[:level], embeddings=True)
    sampled = sampled[-1]
    if sampled.points is None or sampled.embedding is None:
        raise ArgumentError(
            f"`level` (={level}) keeps every pose at the centroid or is dense: it has no "
            "representatives on points to show; choose a lower level"
        )
    count = sampled.poses.num_rotations
    if not 0 <= rotation < count:
        raise ArgumentError(f"`rotation` (={rotation}) must be 0 to {count - 1} at this level")
    turn = torch.full((len(sampled.points),), rotation)
    return LevelView(pos.double(), sampled, turn, torch.arange(sampled.chosen.num))


def match_copy(view: LevelView, copy: LevelView, rotation: Tensor) -> tuple[LevelView, dict]:
    """Show a turned copy under the names of the cloud, and compare the two.

    On each point of the copy the pose is shown that is nearest to the cloud's
    shown pose, turned: the rotations of a point need not be counted in the
    same order. Each representative of the copy gets the name of the cloud's
    representative with the nearest embedding. Nothing else of the cloud is used.

    Args:
        view: of the cloud.
        copy: of the copy, as ``sample_level`` made it; row i is the cloud's row i.
        rotation: what turned it [3, 3].

    Returns:
        The copy under those names, and figures: ``same_representative``, the
        share of points whose representative has the same name (of those that
        carry poses in both), ``points_in_both``, and ``embedding_difference``,
        the largest distance of a representative's embedding to its
        namesake's, relative to the largest norm.

    **Equivariance:** this measures it: 1.0 and rounding where it is exact.
    """
    nearest, gap = nearest_center(copy.centers(), view.centers())
    copy = LevelView(copy.pos, copy.sampled, copy.turn.clone(), view.names[nearest])
    place = torch.full((len(view.pos),), -1)
    place[view.sampled.points] = torch.arange(len(view.sampled.points))
    there = place[copy.sampled.points]
    both = there >= 0
    wanted = rotation.to(view.pos) @ view.shown(view.sampled.poses.rot)[there[both]]
    traces = torch.einsum("nij,nkij->nk", wanted, copy.sampled.poses.rot[both])
    copy.turn[both] = traces.argmax(1)
    same = copy.shown_names[both] == view.shown_names[there[both]]
    norm = float(view.centers().norm(dim=1).max())
    return copy, {
        "points_in_both": int(both.sum()),
        "same_representative": float(same.double().mean()) if both.any() else 0.0,
        "embedding_difference": float(gap.max()) / (norm or 1.0),
    }


def level_scene(
    views: list[LevelView],
    titles: list[str],
    *,
    coloring: str = "representative",
    highlight: int | None = None,
    frames: bool = False,
) -> Scene:
    """The scene of one or several clouds at one level.

    Palette, components and the end of the distance scale are those of the first
    cloud. Points that carry no poses at this level are small and pale.

    Args:
        views: the clouds.
        titles: a line for each.
        coloring: "representative", "distance" or "feature".
        highlight: name of a representative, instead of a colouring: the points
            with a pose that it stands for, at any rotation.
        frames: draw frames as axes: of the first 24 representatives, or of the
            highlighted one and the 23 poses nearest to it in feature space.

    Raises:
        ArgumentError: an unknown colouring, or no such representative.

    **Equivariance:** colours are invariant, positions and frames move with the
    clouds.
    """
    if coloring not in COLORINGS:
        raise ArgumentError(f"`color` (={coloring!r}) must be one of {', '.join(COLORINGS)}")
    first = views[0]
    scale, palette, basis = ("", ""), None, None
    if highlight is not None:
        legend = f"representative {highlight} (red) and the points that share its output (orange)"
    elif coloring == "distance":
        largest = float(first.sampled.chosen.covering_radius.max())
        legend = "embedding distance to the representative; right end: covering radius"
        scale = ("0", f"{largest:.2g}")
    elif coloring == "feature":
        # Of the shown poses alone: over all rotations of a finite group components
        # come in sets of equal variance, of which rounding would choose.
        basis = colors.feature_basis(first.shown(first.sampled.embedding))
        legend = "first three principal components of the embedding as red, green, blue"
    else:
        palette = colors.representative_palette(first.centers())
        legend = "points of one colour share the output of one representative"
    parts = []
    for view, title in zip(views, titles, strict=True):
        if highlight is not None:
            chosen = view.index_of(highlight)
            color = colors.highlight_colors(view.assignment, view.sampled.chosen.index, chosen)
        elif coloring == "distance":
            distance = view.sampled.chosen.distance.view_as(view.assignment)
            color = colors.distance_colors(view.shown(distance), largest)
        elif coloring == "feature":
            color = colors.feature_colors(view.shown(view.sampled.embedding), basis)
        else:
            color = palette[view.shown_names.numpy()]
        parts.append(_part(view, color, title, highlight, frames))
    return Scene(parts, legend, scale)


def describe(view: LevelView, highlight: int | None = None) -> dict:
    """Figures of a view, as plain values for JSON.

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
    if highlight is not None:
        members = view.assignment == view.index_of(highlight)
        result["highlight"] = {
            "representative": highlight,
            "poses": int(members.sum()),
            "points": int(members.any(1).sum()),
        }
    return result


def _part(view: LevelView, color: np.ndarray, title: str, highlight, frames: bool) -> CloudPart:
    points = view.sampled.points.numpy()
    part = CloudPart(view.pos.numpy(), np.tile(colors.PALE, (len(view.pos), 1)), title=title)
    size = part.size_for(len(points))
    part.size[:] = 0.35 * size
    part.size[points] = size
    part.color[points] = color
    if highlight is not None:
        chosen = view.index_of(highlight)
        own = int(view.sampled.chosen.index[chosen]) // view.assignment.shape[1]
        part.size[points[own]] = 1.4 * size
    if frames:
        pose = _framed_poses(view, highlight)
        poses, count = view.sampled.poses, view.sampled.poses.num_rotations
        part.frame_pos = poses.pos[pose // count].numpy()
        part.frame_rot = poses.rot[pose // count, pose % count].numpy()
    return part


def _framed_poses(view: LevelView, highlight: int | None) -> Tensor:
    chosen = view.sampled.chosen
    if highlight is None:
        order = torch.argsort(view.names)
        return chosen.index[order[:MOST_FRAMES]]
    members = (chosen.assignment == view.index_of(highlight)).nonzero()[:, 0]
    return members[torch.argsort(chosen.distance[members], stable=True)[:MOST_FRAMES]]

"""Views of a level as scenes to draw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.viz import colors
from pcequi.viz.evidence import REMOVED
from pcequi.viz.levels import LevelView
from pcequi.viz.scene import CloudPart, Scene

OF_TRAINED = ("evidence", "removal")  # which need a trained network
COLORINGS = ("representative", "distance", "feature", *OF_TRAINED)
# Frames that a picture can hold and still be read.
MOST_FRAMES = 24
# Colours that can be told apart: the nearest two differ by 38 of 255 among 24, by 9 among 64.
MOST_COLORS = 40
# Points without poses that are drawn: more would look no different, and take 50 KB each.
MOST_PALE = 20_000


def check_coloring(coloring: str, name: str = "coloring") -> None:
    """Whether there is such a colouring, asked for by an argument that goes by ``name``.

    Raises:
        ArgumentError: there is none.

    **Equivariance:** does not apply.
    """
    if coloring not in COLORINGS:
        raise ArgumentError(f"`{name}` (={coloring!r}) must be one of {', '.join(COLORINGS)}")


def level_scene(
    views: list[LevelView],
    titles: list[str],
    *,
    coloring: str = "representative",
    highlight: int | None = None,
    frames: bool = False,
    class_name: str = "the class",
) -> Scene:
    """The scene of one or several clouds at one level.

    Palette, components and the end of the scale of distances are those of the first
    cloud. Evidence has a scale of its own for each cloud: it does not compare between
    clouds, see ``viz.evidence``. Points that carry no poses at this level are small and
    pale; of more than 20,000 as many are drawn, the same random choice in every run.

    Args:
        views: the clouds.
        titles: a line for each.
        coloring: "representative", "distance", "feature", "evidence" or "removal"; the
            last two need views of ``evidence.with_evidence`` and ``with_removal``.
        highlight: name of a representative, instead of a colouring: the points
            with a pose that it, or one with an equal embedding, stands for, at any rotation.
        frames: draw frames as axes: of the poses shown on the points of the first
            representatives, or of the highlighted one and the poses nearest to it in
            feature space; 24 at most.
        class_name: for the legend of "evidence" and "removal".

    Raises:
        ArgumentError: an unknown colouring, no such representative, a view without
            evidence, or frames of poses that have none.

    **Equivariance:** colours are invariant, positions and frames move with the
    clouds.
    """
    check_coloring(coloring)
    needed = coloring in OF_TRAINED and highlight is None
    if needed and any(view.evidence is None for view in views):
        raise ArgumentError(
            f"`color` (={coloring!r}) needs the evidence of a trained network: make the views with "
            f"`pcequi.viz.evidence.with_{coloring}`"
        )
    first = views[0]
    if frames and first.sampled.poses.axial:
        raise ArgumentError(
            "`frames` (=True) must be False here: the poses of this network are points with a "
            "normal, which have no frames"
        )
    # A turned copy bears the first cloud's embeddings; another shape does not.
    others = any(view.matched is not None for view in views)
    # Where a pose shares a mean of several, only the nearest can be shown.
    blended = any(bool((view.sampled.chosen.share > 0).sum(1).gt(1).any()) for view in views)
    scale, palette, basis, colormap = ("", ""), None, None, colors.COLORMAP
    if highlight is not None:
        members = "whose nearest it is" if blended else "that share its output"
        legend = f"representative {highlight} (black) and the points {members} (orange)"
        legend += "; on further shapes the nearest one" * others
    elif coloring == "distance":
        largest = float(first.sampled.chosen.covering_radius.max())
        nearest = "nearest " * blended
        legend = f"embedding distance to the {nearest}representative; right end: covering radius"
        scale = ("0", f"{largest:.2g}")
    elif coloring == "evidence":
        legend = f"evidence for {class_name}: gradient x feature"
        legend += ", each cloud on a scale of its own" * (len(views) > 1)
        scale, colormap = ("against", "for"), colors.EVIDENCE_COLORMAP
    elif coloring == "removal":
        legend = f"red: without the points within {REMOVED:g}, the logit of {class_name} falls"
        legend += "; each cloud on a scale of its own" * (len(views) > 1)
        scale, colormap = ("rises", "falls"), colors.EVIDENCE_COLORMAP
    elif coloring == "feature":
        # Of the shown poses alone: over all rotations of a finite group components
        # come in sets of equal variance, of which rounding would choose.
        basis = colors.feature_basis(first.shown(first.sampled.embedding))
        legend = "first three principal components of the embedding as red, green, blue"
    else:
        # Spread over those that can be seen: equal ones are one.
        seen = torch.cat([view.shown_names[view.shown_matched] for view in views]).unique()
        palette = np.zeros((len(first.names), 3))
        palette[seen.numpy()] = colors.representative_palette(first.centers()[seen])
        have = "have the same nearest" if blended else "share the output of one"
        legend = f"points of one colour {have} representative"
        legend += (
            "; further shapes: colour of the nearest one, grey where none is as near as the first "
            "shape's own poses are"
        ) * others
        if len(seen) > MOST_COLORS:
            legend += (
                f"; of {len(seen)} colours neighbours look alike, and are alike in the first "
                "principal component of their embeddings: a smaller --budget tells them apart"
            )
    if frames:
        legend += f"; axes (x red, y green, z blue) of {_frame_counts(views, highlight)} poses"
    parts = []
    for view, title in zip(views, titles, strict=True):
        if highlight is not None:
            chosen, equals = view.index_of(highlight), view.equals
            # Under one number with those that are equal to it; black is its own point.
            alike = torch.where(equals == equals[chosen], chosen, torch.arange(len(equals)))
            index = view.sampled.chosen.index
            color = colors.highlight_colors(alike[view.assignment], index, chosen)
        elif coloring == "distance":
            distance = view.sampled.chosen.distance.view_as(view.assignment)
            color = colors.distance_colors(view.shown(distance), largest)
        elif coloring in OF_TRAINED:
            color = colors.evidence_colors(view.evidence)
        elif coloring == "feature":
            color = colors.feature_colors(view.shown(view.sampled.embedding), basis)
        else:
            color = palette[view.shown_names.numpy()]
            color[~view.shown_matched.numpy()] = colors.UNLIKE
        parts.append(_part(view, color, title, highlight, frames))
    return Scene(parts, legend, scale, colormap)


def _part(view: LevelView, color: np.ndarray, title: str, highlight, frames: bool) -> CloudPart:
    points = view.sampled.points.numpy()
    drawn = _drawn_rows(len(view.pos), points)
    points = np.searchsorted(drawn, points)
    part = CloudPart(view.pos.numpy()[drawn], np.tile(colors.PALE, (len(drawn), 1)), title=title)
    size = part.size_for(len(points))
    part.size[:] = 0.35 * size
    part.size[points] = size
    part.color[points] = color
    if highlight is not None:
        chosen = view.index_of(highlight)
        # All others step back, or would hide the few that the picture is about.
        members = view.members_of(highlight).any(1).numpy()
        part.size[points[~members]] = 0.5 * size
        part.size[points[members]] = size
        own = int(view.sampled.chosen.index[chosen]) // view.assignment.shape[1]
        part.size[points[own]] = 2 * size  # or its neighbours would hide it
    if frames:
        pose, _ = _framed_poses(view, highlight)
        poses, count = view.sampled.poses, view.sampled.poses.num_rotations
        part.frame_pos = poses.pos[pose // count].numpy()
        part.frame_rot = poses.rot[pose // count, pose % count].numpy()
    return part


def _drawn_rows(num: int, points: np.ndarray) -> np.ndarray:
    """Rows of a cloud to draw, ascending: the level's points, and not too many others."""
    others = np.setdiff1d(np.arange(num), points)
    if len(others) > MOST_PALE:
        others = np.random.default_rng(0).choice(others, MOST_PALE, replace=False)
    return np.union1d(points, others)


def _framed_poses(view: LevelView, highlight: int | None) -> tuple[Tensor, int]:
    """Poses whose frames are drawn, and how many there are to choose from."""
    chosen, count = view.sampled.chosen, view.sampled.poses.num_rotations
    if highlight is None:
        # One a point: all frames of a point on top of one another cannot be read.
        points = (chosen.index[torch.argsort(view.names, stable=True)] // count).tolist()
        points = torch.tensor(list(dict.fromkeys(points))[:MOST_FRAMES])
        return points * count + view.turn[points], len(view.turn)
    members = view.members_of(highlight).flatten().nonzero()[:, 0]
    nearest = torch.argsort(chosen.distance[members], stable=True)[:MOST_FRAMES]
    return members[nearest], len(members)


def _frame_counts(views: list[LevelView], highlight: int | None) -> str:
    """ "24 of 96", of each cloud where they differ."""
    found = [_framed_poses(view, highlight) for view in views]
    return ", ".join(dict.fromkeys(f"{len(poses)} of {total}" for poses, total in found))

"""One set of names for the representatives of several clouds.

Every cloud is sampled by itself. Representatives are then named after those of
the first cloud by their embeddings alone: equal embeddings, same name, same
colour.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pcequi.errors import ShapeError
from pcequi.ops import nearest_center
from pcequi.viz.levels import LevelView


def match_shape(view: LevelView, other: LevelView) -> LevelView:
    """Show another shape under the names of the first.

    Each representative of the other shape gets the name of the first shape's
    representative with the nearest embedding: several may bear one name, and
    none another. What is highlighted under a name is the one representative
    nearest to the one that gave it, however far that is; ``gap`` says how far.

    Args:
        view: of the first shape.
        other: of another, at the same level of the same network.

    Raises:
        ShapeError: embeddings of different dimensions.

    **Equivariance:** as invariant as the embeddings.
    """
    mine, theirs = view.centers(), other.centers()
    if mine.shape[1] != theirs.shape[1]:
        raise ShapeError(
            f"`other` (embeddings of dimension {theirs.shape[1]}) must be sampled at the same "
            f"level of the same network as `view` (dimension {mine.shape[1]})"
        )
    nearest, _ = nearest_center(theirs, mine)
    namesake, gap = nearest_center(mine, theirs)
    # Row i of the centres has the name names[i], which need not be i.
    by_name = torch.argsort(view.names)
    return replace(other, names=view.names[nearest], namesake=namesake[by_name], gap=gap[by_name])


def match_copy(view: LevelView, copy: LevelView, rotation: Tensor) -> tuple[LevelView, dict]:
    """Show a turned copy under the names of the cloud, and compare the two.

    On each point of the copy the pose is shown that is nearest to the cloud's
    shown pose, turned: the rotations of a point need not be counted in the
    same order. Names are those of ``match_shape``; nothing else of the cloud is
    used.

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
    _, gap = nearest_center(copy.centers(), view.centers())
    copy = replace(match_shape(view, copy), turn=copy.turn.clone())
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

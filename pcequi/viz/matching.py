"""One set of names for the representatives of several clouds.

Every cloud is sampled by itself. Representatives are then named after those of
the first cloud by their embeddings alone: equal embeddings, same name, same
colour, also within one cloud.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pcequi.errors import ShapeError
from pcequi.viz.levels import LevelView
from pcequi.viz.nearest import equality_limit, nearest_rows


def match_shape(view: LevelView, other: LevelView) -> LevelView:
    """Show another shape under the names of the first.

    Each representative of the other shape gets the name of the first shape's
    representative with the nearest embedding: several may bear one name, and
    none another. What is highlighted under a name is the one representative
    nearest to the one that gave it, however far that is; ``gap`` says how far. Poses
    that are farther from every representative of the first than its own poses ever are,
    by ``matched``, are like none of it.

    Args:
        view: of the first shape.
        other: of another, at the same level of the same network.

    Raises:
        ShapeError: embeddings of different dimensions.

    **Equivariance:** as invariant as the embeddings.
    """
    other, mine = _named(view, other), view.centers()
    _, apart = nearest_rows(other.sampled.embedding.flatten(0, 1), mine)
    apart = apart.view_as(other.assignment)
    limit = float(view.sampled.chosen.covering_radius.max()) + equality_limit(mine)
    return replace(other, apart=apart, matched=apart <= limit)


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
        share of points whose representatives have equal embeddings, to 1e-4 of their
        spread (of the points that carry poses in both), ``points_in_both``, and
        ``embedding_difference``, the largest distance of a representative's
        embedding to the nearest of the cloud's, relative to the largest norm. Of a
        symmetric cloud many representatives are equal: which of them stands for a
        pose depends on the order of ties, and counts for nothing here.

    **Equivariance:** this measures it: 1.0 and rounding where it is exact.
    """
    mine, theirs = view.centers(), copy.centers()
    _, gap = nearest_rows(theirs, mine)
    # A copy keeps all its colours: they are to match those of the cloud.
    copy = replace(_named(view, copy), turn=copy.turn.clone())
    place = torch.full((len(view.pos),), -1)
    place[view.sampled.points] = torch.arange(len(view.sampled.points))
    there = place[copy.sampled.points]
    both = there >= 0
    wanted = rotation.to(view.pos) @ view.shown(view.sampled.poses.rot)[there[both]]
    traces = torch.einsum("nij,nkij->nk", wanted, copy.sampled.poses.rot[both])
    copy.turn[both] = traces.argmax(1)
    shown = mine[view.shown(view.assignment)[there[both]]]
    apart = (theirs[copy.shown(copy.assignment)[both]] - shown).norm(dim=1)
    same = apart <= equality_limit(mine)
    norm = float(mine.norm(dim=1).max())
    return copy, {
        "points_in_both": int(both.sum()),
        "same_representative": float(same.double().mean()) if both.any() else 0.0,
        "embedding_difference": float(gap.max()) / (norm or 1.0),
    }


def _named(view: LevelView, other: LevelView) -> LevelView:
    """The other under the names of the nearest embeddings of ``view``."""
    mine, theirs = view.centers(), other.centers()
    if mine.shape[1] != theirs.shape[1]:
        raise ShapeError(
            f"`other` (embeddings of dimension {theirs.shape[1]}) must be sampled at the same "
            f"level of the same network as `view` (dimension {mine.shape[1]})"
        )
    nearest, _ = nearest_rows(theirs, mine)
    # Under a name the representative next to the one that bears it in ``view`` is highlighted.
    namesake, gap = nearest_rows(mine[view.namesake], theirs)
    return replace(other, names=view.names[nearest], namesake=namesake, gap=gap)

"""How is one cloud turned against another of the same shape?

The last level of a network looks at the whole cloud from frames at its
centroid. A frame of one cloud and a frame of the other that see the same give
the rotation between the clouds; points matched under it refine it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, ShapeError, check_count
from pcequi.models.classifier import GroupConvClassifier
from pcequi.models.features import LevelFeatures, extract_features
from pcequi.ops.precision import own_precision
from pcequi.pose_graph.point_numbers import check_points_alone
from pcequi.poses import CentroidPoses

__all__ = ["Alignment", "align_clouds", "kabsch", "match_frames"]

#: Relative distance of features below which two frames see the same cloud.
SAME = 1e-3
# Candidates get so many steps, and so many of them go on to the end.
FIRST_STEPS, FINALISTS = 5, 3


@dataclass
class Alignment:
    """The motion that takes one cloud to another: ``pos @ rotation.T + translation``.

    Attributes:
        rotation: [3, 3].
        translation: [3].
        residual: root mean square distance of the moved points to their nearest
            points, in both directions, in units of the cloud.
        feature_distance: of the frames that were matched, relative; 0 for a copy.

    **Equivariance:** turning the target multiplies ``rotation`` from the left.
    """

    rotation: Tensor
    translation: Tensor
    residual: float
    feature_distance: float

    @own_precision
    def __call__(self, pos: Tensor) -> Tensor:
        return pos @ self.rotation.to(pos).T + self.translation.to(pos)


@own_precision
@torch.no_grad()
def align_clouds(
    model: GroupConvClassifier,
    source: Tensor,
    target: Tensor,
    *,
    candidates: int = 24,
    iterations: int = 50,
) -> Alignment:
    """The rotation and translation that take a cloud to another of the same shape.

    Frames at the centroids are matched by their features (``match_frames``).
    A match that agrees to ``SAME`` decides: the cloud is a copy. Otherwise
    matches are refined by matching points to nearest points and solving for the
    motion (``kabsch``) in turns, and the smallest residual decides: all
    candidates for a few steps, then the best of them to the end. Exact for a
    copy; for another sample of the same surface as good as nearest points can
    tell. Where two principal variances nearly agree, the frames of another
    sample may differ altogether.

    Args:
        model: a ``GroupConvClassifier`` whose last level is ``CentroidPoses``,
            in ``eval()`` mode; trained features tell frames apart better.
        source, target: [N, 3] and [N', 3], in units of the network's training.
        candidates: matches of frames that are refined, the best by features; few
            suffice where a trained network tells frames apart.
        iterations: of the refinement, at most.

    Returns:
        The ``Alignment``, float64.

    Raises:
        ArgumentError: the network has no frames at the centroid, takes more of a point than its
            place or is in ``train()`` mode, or a number is below 1 (``iterations``: 0).
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** moves of either cloud change the result as they should.
    """
    if not isinstance(model.levels[-1].poses, CentroidPoses):
        raise ArgumentError(
            f"`model.levels[-1].poses` (={model.levels[-1].poses}) must be CentroidPoses, as in "
            "the presets default, large and small: frames at the centroid are what is matched"
        )
    if model.training:
        raise ArgumentError("`model` (=in train() mode) must be in eval() mode: call model.eval()")
    check_points_alone(model.levels, "model")
    for name, value, least in (("candidates", candidates, 1), ("iterations", iterations, 0)):
        check_count(name, value, least)
    ends = [extract_features(model, pos).levels[-1] for pos in (source, target)]
    turns, distances = match_frames(*ends)
    count = 1 if distances[0] < SAME else candidates
    starts = list(zip(turns[:count], distances[:count].tolist(), strict=True))
    clouds = ends[0].cloud, ends[1].cloud
    if len(starts) > FINALISTS:
        steps = min(iterations, FIRST_STEPS)
        starts.sort(key=lambda start: _refine(*clouds, start[0], steps)[2])
    found = [
        Alignment(*_refine(*clouds, turn, iterations), distance)
        for turn, distance in starts[:FINALISTS]
    ]
    return min(found, key=lambda alignment: alignment.residual)


@own_precision
def match_frames(source: LevelFeatures, target: LevelFeatures) -> tuple[Tensor, Tensor]:
    """Rotations that take the frames of one centroid to those of another, best first.

    Every frame of the target is tried as the image of the first frame of the
    source. The rotation then says which frame goes to which, and all features
    are compared.

    Args:
        source, target: the last level's features of both clouds, with K frames.

    Returns:
        Rotations [K, 3, 3], and how far the features of matched frames lie apart,
        relative to their norm [K].

    **Equivariance:** turning the target multiplies the rotations from the left.
    """
    a, b = (part.rot.double() for part in (source, target))
    turns = b @ a[0].T  # [K, 3, 3]
    image = turns[:, None] @ a  # [K, frames, 3, 3]
    partner = torch.einsum("hiab,jab->hij", image, b).argmax(2)
    x, y = source.x.double(), target.x.double()
    apart = (y[partner] - x).square().sum((1, 2)).sqrt()
    distance = apart / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    order = distance.argsort(stable=True)
    return turns[order], distance[order]


@own_precision
def kabsch(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation and translation with the least squared distance of matched points.

    By the singular value decomposition of the covariance, without reflections
    (Kabsch, "A solution for the best rotation to relate two sets of vectors",
    Acta Crystallographica A32, 1976).

    Args:
        source, target: [N, 3] each, row by row the same points.

    Returns:
        Rotation [3, 3] and translation [3]: ``source @ rotation.T + translation``.

    Raises:
        ShapeError: the shapes differ, or there is no point.

    **Equivariance:** moves of either set change the result as they should.
    """
    if source.shape != target.shape or source.dim() != 2 or len(source) == 0:
        raise ShapeError(
            f"`source` (={list(source.shape)}) and `target` (={list(target.shape)}) must both be "
            "[N, 3] with at least one point"
        )
    middle, target_middle = source.mean(0), target.mean(0)
    u, _, vh = torch.linalg.svd((target - target_middle).T @ (source - middle))
    sign = torch.ones(3, dtype=u.dtype, device=u.device)
    sign[2] = torch.det(u @ vh).sign()
    rotation = (u * sign) @ vh
    return rotation, target_middle - rotation @ middle


def _refine(source: Tensor, target: Tensor, turn: Tensor, iterations: int):
    """Nearest points and ``kabsch`` in turns, from a rotation about the centroids."""
    rotation, shift = turn, target.mean(0) - turn @ source.mean(0)
    matched = None
    for _ in range(iterations):
        there, back = _nearest(source @ rotation.T + shift, target)
        if matched is not None and all(map(torch.equal, matched, (there, back))):
            break
        matched = there, back
        # Both directions: no end of either cloud can be left without a partner.
        rotation, shift = kabsch(
            torch.cat([source, source[back]]), torch.cat([target[there], target])
        )
    moved = source @ rotation.T + shift
    there, back = _nearest(moved, target)
    square = torch.cat([moved - target[there], moved[back] - target]).square().sum(1)
    return rotation, shift, float(square.mean().sqrt())


def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest row of ``b`` for each of ``a``, and the other way round."""
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.argmin(1), distance.argmin(0)

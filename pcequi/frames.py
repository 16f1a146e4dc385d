"""Frames of whole clouds: one base frame each, to be multiplied by a group.

What a frame cannot know, the order or the signs of its axes, the group covers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcequi.clouds import DEGENERATE, GENERIC, ONE_SPACE, check_cloud
from pcequi.constants import constant
from pcequi.ops import HAS_NUMBA, local_moments
from pcequi.ops.backends import is_plain
from pcequi.ops.precision import own_precision

# Points at which normals are asked for a Manhattan frame; of larger clouds a share, which takes
# about twice as long, but not fewer than some.
_MOST, _FEW = 4096, 2048
# Waves of the distances from the planes of the principal frame, which bend within _BEND: points
# where their sum is large are spread over every face.
_WAVES = ((83.0, 47.0, -61.0), (-39.0, 91.0, 53.0), (67.0, -43.0, 79.0))
_SHIFTS = (0.4, 1.3, 2.5)
_BEND = 0.1
# How many times as far up the highest are from the lowest as from those that count in full.
_STEEP = 4
_STEPS = 10
_NEWTON = 20
_LEAST_BEND = 1e-5  # where the ascent bends less it is no hill
_TIE = 1e-4  # relative differences below which scores, moments and variances are equal
# Places of a_i^2, and of (a_2 a_3, a_3 a_1, a_1 a_2), among the nine products.
_SQUARES, _MIXED = [0, 4, 8], [5, 6, 1]


@own_precision
def principal_frame(pos: Tensor) -> Tensor:
    """Principal axes of a cloud as a right-handed frame, largest variance first.

    Order and signs of the axes are ambiguous; multiply by the octahedral group
    to cover all 24 right-handed choices. **Degenerate axes** (variances that
    agree to a thousandth, as in a cube) are fixed by the points themselves: within the
    degenerate space the direction of that point whose fourth moment
    sum_j (u . x_j)^4 is largest. The first of points that tie is taken;
    ``pcequi.canonical`` brings all copies of a cloud to one pose and order
    first, so that in a pose graph this is always the same one.

    Args:
        pos: one cloud [N, 3].

    Returns:
        Frame [3, 3], columns are the axes; no gradient flows back.

    **Equivariance:** turns with the cloud, up to the octahedral ambiguity.
    """
    return _principal_frame(check_cloud(pos, wide=True).detach())[0]


def _principal_frame(pos: Tensor) -> tuple[Tensor, Tensor | None]:
    """The principal frame of a checked cloud [N, 3], and the cloud around its mean, in units of
    its size, or None for that where all points are in one place."""
    compiled = HAS_NUMBA and pos.device.type == "cpu" and pos.dtype == torch.float64
    if compiled and is_plain(pos):
        from pcequi.ops.compiled import frames

        array, generic = pos.contiguous().numpy(), np.array(GENERIC)
        differ, *found = frames.plain_frame(array, generic, ONE_SPACE)
        if differ:
            return tuple(map(torch.from_numpy, found))
    centered = pos - pos.mean(0)
    size = centered.norm(dim=1).max()
    return _axes_by_variance(centered), None if size == 0 else centered / size


def _axes_by_variance(centered: Tensor) -> Tensor:
    """The principal frame of a cloud around its mean."""
    variance, axes = torch.linalg.eigh(centered.T @ centered)
    variance, axes = variance.flip(0), axes.flip(1)
    axes = torch.where(axes.new_tensor(GENERIC) @ axes < 0, -axes, axes)
    if variance[0] <= 0:
        return torch.eye(3, dtype=axes.dtype, device=axes.device)
    same = (variance[:-1] - variance[1:]) <= ONE_SPACE * variance[0]
    if same[0]:
        first = _strongest_direction(centered, axes if same[1] else axes[:, :2])
        if same[1]:
            rest = torch.linalg.svd(first[None]).Vh[1:].T
            second = _strongest_direction(centered, rest)
        else:
            second = torch.linalg.cross(axes[:, 2], first)
        axes = torch.stack([first, second, torch.linalg.cross(first, second)], 1)
    elif same[1]:
        second = _strongest_direction(centered, axes[:, 1:])
        axes = torch.stack([axes[:, 0], second, torch.linalg.cross(axes[:, 0], second)], 1)
    return _right_handed(axes)


def _right_handed(axes: Tensor) -> Tensor:
    """Orthonormal axes with the third turned around where they are left-handed."""
    first, second, third = axes.unbind(1)
    if torch.linalg.cross(first, second) @ third < 0:
        third = -third
    return torch.stack([first, second, third], 1)


def _strongest_direction(centered: Tensor, space: Tensor) -> Tensor:
    """Unit direction in ``space`` [3, d] toward the point of largest fourth moment."""
    projected = centered @ space
    length = projected.norm(dim=1, keepdim=True)
    if length.max() <= DEGENERATE * centered.norm(dim=1).max():
        return torch.nn.functional.normalize(space @ (space.T @ space.new_tensor(GENERIC)), dim=0)
    unit = projected / length.clamp_min(torch.finfo(length.dtype).tiny)
    moment = fourth_moments(unit, projected)
    moment = moment.masked_fill(length[:, 0] <= 1e-6 * length.max(), -1.0)
    tied = moment >= moment.max() * (1 - _TIE)
    return space @ unit[int(tied.int().argmax())]


@own_precision
def fourth_moments(direction: Tensor, pos: Tensor) -> Tensor:
    """Sum of (u . x)^4 over points [N, d] for each of some directions [M, d]: [M].

    Through the points' tensor of fourth moments, so that no [M, N] matrix is made.

    **Equivariance:** unchanged when directions and points turn together.
    """
    outer = [(x[:, :, None] * x[:, None, :]).flatten(1) for x in (direction, pos)]
    return ((outer[0] @ (outer[1].T @ outer[1])) * outer[0]).sum(1)


@own_precision
def manhattan_frame(pos: Tensor, radius: float = 0.15) -> Tensor:
    """The three directions that most of a cloud's surface faces, as a right-handed frame.

    The rotation R that maximises sum_i w_i sum_k (n_i . r_k)^4 over the columns
    r_k, where n_i are local surface normals, whose signs do not matter, and w_i
    says how flat the cloud is there. What people make has mostly faces at right
    angles: this frame follows them, where principal axes tilt with every change
    of proportions. Columns are ordered by the variance of the points along
    them, largest first; their signs are ambiguous, and so is the order where
    variances agree. A cloud with no flat place gets its principal frame.

    Several starts at fixed turns of the principal frame climb by R <- polar part of
    the gradient; the highest end wins, the first of equals.

    Args:
        pos: one cloud [N, 3]; of more than 4,096 points normals are asked at a share of them.
        radius: of the neighbourhoods, in units of the farthest point's
            distance from the centroid.

    Returns:
        Frame [3, 3], columns are the axes; no gradient flows back.

    Source: Manhattan frames: Straub et al., CVPR 2014. Ascent of the fourth
    moment by polar parts: Zhai et al., JMLR 2020.

    **Equivariance:** turns with the cloud, up to signs and order of the axes: the signs of the
    principal axes do not change the starts as a set, so that all copies of a cloud have the same
    ends. Where two of them are equally high, one is taken by its place among the starts; pose
    graphs bring a cloud to one pose first, and are exact there too.
    """
    pos = check_cloud(pos, wide=True).detach()
    start, scaled = _principal_frame(pos)
    if scaled is None:
        return start
    center, share = _chosen(scaled, start)
    moments, flat = _face_moments(scaled, radius, center, share)
    if flat <= DEGENERATE * float(share.sum()):
        return start
    return _highest(moments, start @ _starts().to(start), scaled)


@constant
def _starts() -> Tensor:
    """Two turns of the principal frame like no other, each with all signs of its axes [8, 3, 3].
    With other signs it has the same, so that copies of a cloud climb from the same places, none
    of which is a ridge between the faces of a cube."""
    signs = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    signs *= torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()[:, None]
    generic = torch.tensor([[0.31, 0.17, -0.52], [-0.43, 0.71, 0.22]], dtype=torch.float64)
    return (signs[:, None] @ _turns_by(generic)).flatten(0, 1)


def _chosen(pos: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Where a cloud is asked for normals: points [C, 3] and what they count for [C].

    All points of a small one. Of a large one those at which a smooth function of their places is
    large, by how much it is: rounding moves what they count for a little, where every n-th of
    some order would be other points altogether once two have changed places. The function knows
    the signs of the frame's axes no more than the frame does.
    """
    if len(pos) <= _MOST:
        return pos, pos.new_ones(len(pos))
    apart = ((pos @ frame).square() + _BEND**2).sqrt()
    wave = (apart @ pos.new_tensor(_WAVES).T + pos.new_tensor(_SHIFTS)).sin().sum(1)
    height, rows = wave.topk(min(_MOST, max(2 * _MOST**2 // len(pos), _FEW)))
    share = height - height[-1]
    if share[0] == 0:  # all in one place
        return pos[rows], torch.ones_like(share)
    share = (share / share[0] * _STEEP).clamp_max(1)
    return pos[rows], share


def _face_moments(
    pos: Tensor, radius: float, center: Tensor, share: Tensor
) -> tuple[Tensor, float]:
    """Fourth moments [9, 9] of the normals at some points [C, 3], weighted by flatness and by
    their shares [C], and the weights' sum."""
    if HAS_NUMBA and pos.device.type == "cpu":
        from pcequi.ops.compiled import frames

        arrays = [part.contiguous().numpy() for part in (pos, center, share)]
        moments, total = frames.face_moments(*arrays, radius, DEGENERATE)
        return torch.from_numpy(moments), total
    normal, flat = _flatness(pos, radius, center)
    flat = flat * share
    outer = (normal[:, :, None] * normal[:, None, :]).flatten(1)
    total = flat.sum()
    weight = flat / total.clamp_min(torch.finfo(pos.dtype).tiny)
    return (weight[:, None] * outer).T @ outer, float(total)


def _highest(moments: Tensor, turns: Tensor, pos: Tensor) -> Tensor:
    """The highest end of the ascents from some frames [S, 3, 3], the first of equals, its axes
    in the order of the variances of a cloud around its mean."""
    # In double precision, or rounding would turn frames about on ridges.
    moments, turns, pos, dtype = moments.double(), turns.double(), pos.double(), pos.dtype
    if HAS_NUMBA and pos.device.type == "cpu":
        from pcequi.ops.compiled import frames

        arrays = [t.contiguous().numpy() for t in (moments, turns, pos)]
        found = frames.highest(*arrays, _STEPS, _NEWTON, _LEAST_BEND, _TIE)
        return torch.from_numpy(found).to(dtype)
    turns, score = _climb(moments, turns)
    axes = turns[int((score >= score.max() * (1 - _TIE)).int().argmax())]
    variance = (pos @ axes).square().sum(0)
    order = torch.argsort(-(variance / (variance.sum() * _TIE)).round(), stable=True)
    return _right_handed(axes[:, order]).to(dtype)


def _climb(moments: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ascent from each frame [S, 3, 3] ends, and how high that is [S]."""
    for _ in range(_STEPS):
        pairs = (turns[:, :, None] * turns[:, None]).flatten(1, 2)  # [starts, 9, 3]
        slope = ((moments @ pairs).view(-1, 3, 3, 3) * turns[:, None]).sum(2)
        left, _, right = torch.linalg.svd(slope + 1e-6 * turns)
        turns = left @ right
    for _ in range(_NEWTON):
        turns = turns @ _newton_turn(_turned(moments, turns))
    score = _turned(moments, turns)[:, _SQUARES, _SQUARES].sum(1)
    return turns, score


def _turned(moments: Tensor, turns: Tensor) -> Tensor:
    """Fourth moments [9, 9] as seen from some frames [S, 3, 3]: [S, 9, 9]."""
    both = torch.einsum("sai,sbj->sabij", turns, turns).reshape(-1, 9, 9)
    return both.mT @ moments @ both


def _slope_and_bend(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The second-order model of the fourth moment: gradient [S, 3] and Hessian [S, 3, 3].

    ``seen`` [S, 9, 9] are the moments of normals a in the frame. Seen from the
    frame turned by exp(w), a normal a becomes a - w x a + ...
    """
    crossed = seen[:, _MIXED][:, :, _MIXED]  # of (a_2 a_3, a_3 a_1, a_1 a_2)
    cubes = seen[:, _SQUARES].view(-1, 3, 3, 3)  # [S, i, j, k]: mean of a_i^2 a_j a_k
    cubes = cubes.diagonal(dim1=1, dim2=2).mT  # [S, i, k]: mean of a_i^3 a_k
    odd = cubes - cubes.mT
    slope = -4 * torch.stack([odd[:, 2, 1], odd[:, 0, 2], odd[:, 1, 0]], 1)
    eye = torch.eye(3, dtype=seen.dtype, device=seen.device)
    bend = 12 * (3 * crossed.diagonal(dim1=1, dim2=2).diag_embed() - crossed)
    bend = bend + 2 * (cubes + cubes.mT)
    return slope, bend - 4 * cubes.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * eye


def _step_to_top(slope: Tensor, value: Tensor, axes: Tensor) -> Tensor:
    """The turn w [S, 3] to the top of the model, whose Hessian has these eigenvalues; where
    it is no hill, as along the turns of a cylinder, nothing moves far."""
    value = value.clamp(max=-_LEAST_BEND)
    turn = -(axes @ ((axes.mT @ slope[:, :, None]) / value[:, :, None]))[:, :, 0]
    return turn / (turn.norm(dim=1, keepdim=True) / 0.1).clamp_min(1)


def _newton_turn(seen: Tensor) -> Tensor:
    """The turn [S, 3, 3] to the top of the second-order model, from ``seen`` [S, 9, 9]."""
    slope, bend = _slope_and_bend(seen)
    return _turns_by(_step_to_top(slope, *torch.linalg.eigh(bend)))


def _turns_by(turn: Tensor) -> Tensor:
    """The rotations [S, 3, 3] by some rotation vectors [S, 3]."""
    eye = torch.eye(3, dtype=turn.dtype, device=turn.device)
    return torch.linalg.matrix_exp(torch.linalg.cross(eye.expand(len(turn), 3, 3), turn[:, None]))


def _flatness(pos: Tensor, radius: float, center: Tensor) -> tuple[Tensor, Tensor]:
    """Normal [C, 3], of either sign, and flatness in [0, 1] of the surroundings of some points.

    Flatness falls to zero, with zero slope, where the two least variances
    agree and the normal is lost, so rounding never decides anything.
    """
    # Of millions of points all pairs fill memory.
    parts = center.split(max(1, _MOST**2 // len(pos)))
    moments = torch.cat([local_moments(pos, radius, center=part) for part in parts])
    return _facing(*torch.linalg.eigh(moments), radius)


def _facing(variance: Tensor, axes: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Normals and flatness by local variances [N, 3], least first, and their axes [N, 3, 3]."""
    gap = (variance[:, 1] - variance[:, 0]) / variance[:, 2].clamp_min(torch.finfo(axes.dtype).tiny)
    thick = variance[:, 1].clamp_min(1e-12 * radius**2)
    flat = ((variance[:, 1] - variance[:, 0]) / thick).clamp(0, 1).square()
    return axes[:, :, 0], flat * (gap > DEGENERATE)

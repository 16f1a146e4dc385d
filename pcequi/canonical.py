"""One pose and one order for all rotated, shifted and shuffled copies of a cloud.

Selections (FPS, nearest neighbours, medoids, degenerate axes) are decided by
distances. On a symmetric cloud distances tie, and no rule that looks at one
candidate at a time can break a tie in the same way in every copy: once a first
corner of a cube is picked, its three neighbours look alike, and so do mirror
images. So the cloud itself is brought to one pose and one order first, and
every later "the first of equals" means the same in every copy.

The pose is chosen among candidates that turn with the cloud, by the largest
value of a fixed generic function of the turned points. Candidates that tie
there are exchanged by a symmetry of the cloud: either gives the same result.
Nothing but ties depends on it: the frames of the poses are the samplers' own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pcequi import rotations as so3
from pcequi.clouds import DEGENERATE, ONE_SPACE
from pcequi.constants import constant
from pcequi.frames import fourth_moments
from pcequi.ops import HAS_NUMBA
from pcequi.ops.precision import own_precision

# The order is that of coordinates rounded to this share of the cloud's size: rounding that differs
# between copies, of float32 too, then hardly ever changes it.
ORDER = 2.0**-14
# Relative differences below which scores and moments are equal, and the cosine above which
# directions are one.
SAME = 1e-6
_MOMENT, _ONE = 1e-5, 1 - 1e-7
# Scores in single precision, off by 1e-7 or so, that differ by more are not the same.
_SURE = 1e-4
# The score's generic function: the mean of sin(wave . x + phase).
WAVES = ((2.9, -1.7, 1.1), (0.6, 2.3, -3.1), (-2.2, 1.3, 2.6))
PHASE = (0.3, 1.1, 2.0)
# A second one, for frames that tie by the first: of a sphere's thousands, some do by chance.
_OTHER_WAVES = ((1.3, 2.7, -0.9), (-2.6, 0.7, 1.9), (0.8, -1.4, 3.3))
# On a regular ball nearly all points tie in the fourth moment, and pairs of them are millions of
# frames. Of more directions than _MANY those to the farthest points remain, then those along which
# a wave is strongest, and another: short ones, in units of the points' distances, as long ones see
# a ball and no points.
_MANY = 60
_ALONG = (2.2, 2.9)
# Pairs of axes that speak for more, where the best frames of all of them tie.
_SPEAK = 128
# Frames and points in the score's array at once.
_CHUNK = 2**20


@own_precision
def canonical_pose(
    pos: Tensor, group: Tensor | None, normal: Tensor | None = None, x: Tensor | None = None
):
    """The canonical frame and order of a centred cloud.

    Args:
        pos: one cloud [N, 3], centred, float64.
        group: the only frames allowed [G, 3, 3]; None: principal axes in any
            order and sign (degenerate axes: toward all points that qualify, or where the
            points leave a turn open, as on a line, along all normals that do).
        normal: unit normals [N, 3], where they are given.
        x: numbers of the points that no rotation changes [N, C], where they are given.

    Returns:
        ``frame`` [3, 3]; ``rows`` [N], the canonical order; and the cloud, its
        normals and its numbers (or None) in that frame, in that order.

    **Equivariance:** the turned cloud is the same for all copies under SE(3)
    (under ``group`` where that is given) and under the order of the points,
    except that points that coincide with different normals keep their order.
    """
    compiled = HAS_NUMBA and pos.device.type == "cpu" and pos.dtype == torch.float64
    if compiled and group is None and normal is None and x is None:
        from pcequi.ops.compiled import canonical

        fixed = orders_and_signs().numpy(), np.array(WAVES), np.array(PHASE)
        alone, *found = canonical.plain_pose(
            pos.contiguous().numpy(), *fixed, ONE_SPACE, _SURE, ORDER
        )
        if alone:
            return *map(torch.from_numpy, found), None, None
    size = float(pos.norm(dim=1).max())
    if size == 0 and normal is None:
        frame = torch.eye(3, dtype=pos.dtype, device=pos.device)
    else:
        unit, scaled = pos / size if size > 0 else pos, None
        if x is not None:  # each column from 0 to 1, a constant one zero: the same in all copies
            low, high = x.aminmax(dim=0)
            scaled = (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)
        frames = group
        if group is None:
            frames = _spoken_for(_principal_candidates(pos, normal, scaled), unit, normal, scaled)
        # Frames of a regular ball that tie by long waves are told apart by short ones.
        short = [[_ALONG[0] * math.sqrt(len(pos)) * w / 4 for w in wave] for wave in WAVES]
        for waves in (WAVES, _OTHER_WAVES, short):
            if len(frames) == 1:  # which no score would leave out
                break
            frames = frames[_largest(_score(unit, normal, frames, waves, scaled))]
        frame = frames[0]
    turned = pos @ frame
    turned_normal = None if normal is None else normal @ frame
    values = _rounded(turned, size * ORDER)
    if normal is not None:
        values = torch.cat([values, _rounded(turned_normal, ORDER)], 1)
    if x is not None:
        values = torch.cat([values, x], 1)
    rows = _lexicographic(values)
    found = (None if one is None else one[rows] for one in (turned, turned_normal, x))
    return frame, rows, *found


def _lexicographic(values: Tensor) -> Tensor:
    """Rows of ``values`` [N, C] in the order of the first column, then the next."""
    first, rows = values[:, 0].sort(stable=True)
    if values.shape[1] == 1 or (first[1:] > first[:-1]).all():
        return rows
    rows = torch.arange(len(values), device=values.device)
    for column in reversed(values.unbind(1)):
        rows = rows[torch.argsort(column[rows], stable=True)]
    return rows


def _rounded(values: Tensor, step: float) -> Tensor:
    """Coordinates [N, 3], up to 2^14 steps, as whole numbers in one column [N, 1], exactly: in the
    order of the first, then the next. As they are where there are no steps."""
    if step == 0:
        return values
    return (values / step).round() @ values.new_tensor([[2.0**32], [2.0**16], [1.0]])


def _largest(value: Tensor) -> Tensor:
    return value >= value.max() - SAME * (1 + value.abs().max())


def _spoken_for(frames: Tensor, pos: Tensor, normal: Tensor | None, x: Tensor | None) -> Tensor:
    """Candidates [F, 3, 3], 24 a pair of axes. Of very many pairs the best frames of some, if all
    of these tie: a symmetry of the cloud exchanges them, as those of a ring."""
    pairs = len(frames) // 24
    if pairs <= _SPEAK:
        return frames
    golden = torch.arange(_SPEAK, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2)  # in no step
    some = (golden.frac() * pairs).long().to(frames.device)
    some = frames.view(pairs, 24, 3, 3)[some].flatten(0, 1)
    score = _score(pos, normal, some, x=x)
    best = _largest(score)
    return some[best] if best.view(-1, 24).any(1).all() else frames


def _score(
    pos: Tensor, normal: Tensor | None, frames: Tensor, waves=WAVES, x: Tensor | None = None
) -> Tensor:
    """A generic function of the cloud seen from each frame [F]: no symmetry but
    the cloud's own leaves it unchanged."""
    wave = pos.new_tensor(waves)
    turned = (frames @ wave.T).mT, (frames @ wave.flip(0).T).mT  # [F, W, 3]
    return _wave_means((pos, normal, x), *turned, wave[:, :1], pos.new_tensor(PHASE))


def _strength_along(
    direction: Tensor, pos: Tensor, normal: Tensor | None, x: Tensor | None, length: float
) -> Tensor:
    """Mean over points of a wave along each of some directions [M], the same for opposites."""
    wave = direction[:, None]
    if x is not None:  # which shifts it: both ways, so that opposites are alike
        wave = torch.cat([wave, -wave], 1)
    one = pos.new_ones(wave.shape[1], 1)
    shift = one[:, 0] * (math.pi / 2)
    return _wave_means((pos, normal, x), length * wave, 1.9 * wave, 2.3 * one, shift)


def _wave_means(cloud: tuple, along: Tensor, across: Tensor, same: Tensor, phase: Tensor) -> Tensor:
    """Means [F] over points and W waves of sin(along . pos + across . normal + steps . x + phase):
    ``cloud`` holds these three, the last two perhaps None; ``along`` and ``across`` are [F, W, 3],
    and the steps of numbers ``same`` [W, 1] times roots."""
    pos, normal, x = cloud
    if normal is not None:
        pos, along = torch.cat([pos, normal], 1), torch.cat([along, across], 2)
    if x is not None:  # the same from all frames; no sum of some columns' is that of others
        steps = torch.arange(1, x.shape[1] + 1, dtype=pos.dtype, device=pos.device)
        same = (same * (steps + math.pi).sqrt()).expand(len(along), -1, -1)
        pos, along = torch.cat([pos, x], 1), torch.cat([along, same], 2)
    if HAS_NUMBA and pos.device.type == "cpu":
        from pcequi.ops.compiled import waves

        arrays = [t.contiguous().numpy() for t in (pos.T, along, phase)]
        return torch.from_numpy(waves.wave_means(*arrays))
    scores = []
    for some in along.split(max(1, _CHUNK // len(pos))):
        seen = pos @ some.flatten(0, 1).T  # [N, F * W]
        scores.append((seen.view(len(pos), -1, len(phase)) + phase).sin().mean((0, 2)))
    return torch.cat(scores)


def _principal_candidates(
    pos: Tensor, normal: Tensor | None = None, x: Tensor | None = None
) -> Tensor:
    """Principal axes in all 24 right-handed orders and signs; where variances
    agree, once for each direction that the points themselves offer."""
    variance, axes = torch.linalg.eigh(pos.T @ pos)
    same = (variance[1:] - variance[:-1]) <= ONE_SPACE * variance[2]
    if same.all():
        pairs = [
            (first, second)
            for first in _strongest_directions(pos, axes, normal, x)
            for second in _strongest_directions(pos, _complement(first), normal, x)
        ]
    elif same.any():
        alone = axes[:, 2] if same[0] else axes[:, 0]
        space = axes[:, :2] if same[0] else axes[:, 1:]
        pairs = [(alone, second) for second in _strongest_directions(pos, space, normal, x)]
    else:
        pairs = [(axes[:, 0], axes[:, 1])]
    first, second = (torch.stack(axis) for axis in zip(*pairs))
    bases = torch.stack([first, second, torch.linalg.cross(first, second)], 2)
    return (bases[:, None] @ orders_and_signs().to(pos)).flatten(0, 1)


@constant
def orders_and_signs() -> Tensor:
    """The 24 right-handed orders and signs of three axes [24, 3, 3], float64.

    **Equivariance:** constants.
    """
    return so3.octahedral_group(dtype=torch.float64)


def _complement(direction: Tensor) -> Tensor:
    """An orthonormal basis [3, 2] of the plane perpendicular to a direction."""
    return torch.linalg.svd(direction[None]).Vh[1:].T


def _strongest_directions(
    pos: Tensor, space: Tensor, normal: Tensor | None = None, x: Tensor | None = None
) -> list[Tensor]:
    """Unit directions in ``space`` [3, d] toward the points of largest fourth
    moment, one of each pair of opposites; along the normals where no point lies there."""
    projected = pos @ space
    length = projected.norm(dim=1, keepdim=True)
    size = pos.norm(dim=1).max()
    if length.max() <= DEGENERATE * size:
        return [space[:, 0]] if normal is None else _strongest_directions(normal, space, x=x)
    far = length[:, 0] > 1e-6 * length.max()
    unit, length = projected[far] / length[far], length[far, 0]
    moment = fourth_moments(unit, projected)
    found = moment >= moment.max() * (1 - _MOMENT)
    tied = unit[found]
    if len(tied) > _MANY:
        length = length[found]  # rounding turns the directions of the farthest least
        tied = tied[length >= length.max() * (1 - _MOMENT)]
        tied = tied[_once(tied.cpu().numpy())]
        for short in _ALONG:
            wave = short * math.sqrt(len(pos))
            tied = tied[_largest(_strength_along(tied @ space.T, pos / size, normal, x, wave))]
    return [space @ direction for direction in tied[_distinct(tied.cpu().numpy())]]


def _once(unit: np.ndarray) -> np.ndarray:
    """Rows of unit vectors [M, d] without repetition and, but for some, without opposites: in
    no time, unlike ``_distinct``."""
    places = np.round(unit / SAME)
    places *= np.where(places[:, :1] < 0, -1, 1)
    return np.sort(np.unique(places, axis=0, return_index=True)[1])


def _distinct(unit: np.ndarray) -> list[int]:
    """Rows of unit vectors [M, d], the first of each that are alike or opposite; a regular ring
    has thousands of them."""
    rows, found = [], np.empty_like(unit)
    for row, direction in enumerate(unit):
        if np.abs(found[: len(rows)] @ direction).max(initial=0) < _ONE:
            found[len(rows)] = direction
            rows.append(row)
    return rows

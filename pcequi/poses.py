"""Pose sets: positions with local frames.

A pose is (x, R): a position x and a rotation R whose columns are the axes of
the local frame, R maps local to world coordinates. A sampler puts K poses on
every point of one cloud; ``pcequi.batched_poses`` takes several. Where the frames
of a point are one base frame times a finite group, the sampler says so
(``Poses.group``), and embeddings are then computed once a point instead of once a
pose.

Frames are constants of the data unless a sampler is called with ``differentiable=True``:
gradients flow through positions, not through frames, whose derivative does not exist where the
cloud fixes no direction. What holds frames fixed is not the gradient of a function of points,
so its negative is no force.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor

from pcequi import rotations as so3
from pcequi.clouds import DEGENERATE, check_cloud
from pcequi.errors import ArgumentError, check_count
from pcequi.frames import manhattan_frame, principal_frame
from pcequi.normals import (
    any_perpendicular,
    following_axis,
    frames_from_two,
    neighborhood_mean,
    signed,
    smallest_axis,
    symmetric_eigen,
    unit_normals,
)
from pcequi.ops import check_radius, knn, local_moments
from pcequi.ops.precision import own_precision
from pcequi.short_repr import short_repr


@dataclass(repr=False)
class Poses:
    """Poses of one cloud, K on every point.

    Attributes:
        pos: positions [N, 3].
        rot: frames [N, K, 3, 3], columns are the axes, local to world.
        group: [K, 3, 3] when ``rot[i, k] = rot[i, 0] @ group[k]``, else None.
        axial: whether only the z axis means something, and not its sign: the
            rotation between such a pose and another is not asked for.

    **Equivariance:** ``pos`` and ``rot`` move with the cloud, as the sampler says.
    """

    pos: Tensor
    rot: Tensor
    group: Tensor | None = None
    axial: bool = False

    __repr__ = short_repr

    @property
    def num(self) -> int:
        """Number of poses, N * K."""
        return self.rot.shape[0] * self.rot.shape[1]

    @property
    def num_rotations(self) -> int:
        """Rotations a point, K."""
        return self.rot.shape[1]

    @property
    def shared(self) -> bool:
        """Whether all points have the same frames, kept once in memory."""
        return self.rot.stride(0) == 0

    def select(self, points: Tensor) -> Poses:
        """The poses on some of the points [N']."""
        pos = self.pos[points]
        rot = self.rot[:1].expand(len(pos), -1, -1, -1) if self.shared else self.rot[points]
        return Poses(pos, rot, self.group, self.axial)

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [M, 3] and frames [M, 3, 3] of poses counted as point * K + rotation."""
        point, turn = index // self.num_rotations, index % self.num_rotations
        rot = self.rot[0].index_select(0, turn) if self.shared else self.rot[point, turn]
        return self.pos.index_select(0, point), rot


@functools.lru_cache(maxsize=16)
def _grid(rotations: str | int, dtype, device) -> Tensor:
    with torch.inference_mode(False), torch.device("cpu"):
        if isinstance(rotations, int):
            return so3.super_fibonacci(rotations, dtype=dtype, device=device)
        return so3.finite_group(rotations, dtype=dtype, device=device)


_MOST = 100_000
ALIGNMENTS = {"none": None, "principal": principal_frame, "manhattan": manhattan_frame}


def _whole(sampler, *names: str) -> None:
    for name in names:
        object.__setattr__(sampler, name, check_count(name, getattr(sampler, name)))


def _moving(pos: Tensor, differentiable: bool) -> Tensor:
    check_cloud(pos, wide=True)
    return pos if differentiable else pos.detach()


@dataclass(frozen=True)
class GridPoses:
    """The same K rotations on every point.

    Args:
        rotations: "C4" (cyclic, about z), "D2" (dihedral: half turns about the
            three axes), "T" (12), "O" (24), "I" (60), or a number, at most
            100,000, for a super-Fibonacci grid of that size.
        align: "none" keeps the grid fixed in the world; "principal" turns it
            to the principal axes of each cloud, "manhattan" to the directions
            that most of its surface faces (``frames.manhattan_frame``).

    **Equivariance:** with ``align="none"`` the pose set is mapped to itself by
    the elements of the group and approximately, better as K grows, by other
    rotations. With the other two the pose set turns with the cloud
    under all of SE(3), as exactly as these axes do: "D2" covers the signs of the axes,
    which the cloud does not fix, "O" also their order, which it fixes only where
    variances differ.
    """

    rotations: str | int = "O"
    align: str = "none"

    def __post_init__(self):
        if self.align not in ALIGNMENTS:
            raise ArgumentError(f"`align` (={self.align!r}) must be one of {sorted(ALIGNMENTS)}")
        if isinstance(self.rotations, numbers.Integral) and not isinstance(self.rotations, bool):
            object.__setattr__(self, "rotations", int(self.rotations))  # NumPy's are not for JSON
        # Every point carries them all; a file's settings must not fill the memory.
        order = str(self.rotations).lstrip("CD")
        if order.isascii() and order.isdigit() and (len(order) > 9 or int(order) > _MOST):
            raise ArgumentError(
                f"`rotations` (={self.rotations!r:.40}) must be at most {_MOST} rotations"
            )
        try:
            # Others may equal a number (True, 5.0), and would be found where its grid is kept.
            if not isinstance(self.rotations, int | str) or isinstance(self.rotations, bool):
                raise ArgumentError("no name and no number")
            self.grid(torch.float32)
        except ArgumentError:
            raise ArgumentError(
                f"`rotations` (={self.rotations!r}) must name a group ('C4', 'D2', 'T', 'O', 'I') "
                "or be a number of rotations, at least 1"
            ) from None

    def grid(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        """The rotations [K, 3, 3]."""
        return _grid(self.rotations, dtype, device).clone()  # what is kept is not to be written

    @own_precision
    def __call__(
        self, pos: Tensor, normal: Tensor | None = None, frame: Tensor | None = None
    ) -> Poses:
        """Poses on every point of ``pos`` [N, 3]; ``normal`` is not used, and a
        ``frame`` [3, 3] that is known saves finding it."""
        frames, group = _grid_frames(self, pos, frame)
        return Poses(pos, frames.expand(len(pos), *frames.shape), group)


def _grid_frames(
    sampler: GridPoses | CentroidPoses, pos: Tensor, frame: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The frames [K, 3, 3] of a cloud, and their group where they have one."""
    check_cloud(pos)
    grid = _grid(sampler.rotations, pos.dtype, pos.device).clone()
    # The first of a group is the identity.
    group = None if isinstance(sampler.rotations, int) else grid.clone()
    if (find := ALIGNMENTS[sampler.align]) is None:
        return grid, group
    return (find(pos) if frame is None else frame) @ grid, group


@dataclass(frozen=True)
class TangentPoses:
    """z axis along the surface normal, K evenly spaced angles about it.

    Angle 0 points to the centroid of the cloud, projected to the tangent
    plane; where that vanishes, to the weighted mean of the neighbourhood; where that
    vanishes too, to a fixed coordinate axis. There the frames do not turn with the cloud, even
    if more of it than these two would tell a direction from others, as at the middle of a face
    of a box. Pose graphs bring the whole cloud to one pose first, and are exact there too.

    Args:
        num_rotations: angles a point, K.
        num_neighbors: for estimated normals, where none are given.

    **Equivariance:** the pose set turns and moves with the cloud under SE(3); not where a fixed
    axis decides, and not on a flat cloud, where nothing tells a normal from its opposite.
    """

    num_rotations: int = 8
    num_neighbors: int = 24

    def __post_init__(self):
        _whole(self, "num_rotations", "num_neighbors")

    @own_precision
    def __call__(
        self, pos: Tensor, normal: Tensor | None = None, differentiable: bool = False
    ) -> Poses:
        """Poses on every point of ``pos`` [N, 3], ``normal`` [N, 3] or estimated.

        With ``differentiable`` the same frames are functions of the points and of the normals
        given, with two derivatives, wherever the cloud fixes them (``estimate_normals``)."""
        where, pos = pos, _moving(pos, differentiable)
        normal = unit_normals(pos, normal, self.num_neighbors, differentiable)
        out = pos - pos.mean(0)
        size = out.detach().norm(dim=1).max()
        toward = -out
        flat = (toward - (toward * normal).sum(1, keepdim=True) * normal).detach().norm(dim=1)
        if (flat <= DEGENERATE * size).any() and len(pos) > 2:
            local = neighborhood_mean(pos, self.num_neighbors, differentiable)
            toward = torch.where((flat <= DEGENERATE * size)[:, None], local, toward)
        base = frames_from_two(normal, toward, size)
        group = so3.cyclic_group(self.num_rotations, dtype=pos.dtype, device=pos.device)
        return Poses(where, base[:, None] @ group, group)


@dataclass(frozen=True)
class NormalPoses:
    """One pose a point, of which only the z axis counts: the unsigned surface normal.

    For levels with a kernel on pairs (``Level.pairs``), which asks for nothing else.
    Normals are the axes of least variance of the points within a radius, with
    weights that vanish at its edge. They point away from the centroid where they are
    not perpendicular to that direction, which decides nothing but how frames are shown.

    Args:
        radius: of the neighbourhoods, in units of the farthest point's distance
            from the centroid.

    Raises:
        ArgumentError: ``radius`` is not positive or not finite.

    **Equivariance:** the axes turn with the cloud under SE(3), up to sign.
    """

    radius: float = 0.15

    def __post_init__(self):
        check_radius(self.radius)
        object.__setattr__(self, "radius", float(self.radius))

    @own_precision
    def __call__(
        self, pos: Tensor, normal: Tensor | None = None, differentiable: bool = False
    ) -> Poses:
        """Poses on every point of ``pos`` [N, 3], ``normal`` [N, 3] or estimated;
        ``differentiable`` as for ``TangentPoses``."""
        where, pos = pos, _moving(pos, differentiable)
        if normal is None:
            fixed = pos.detach()
            out = fixed - fixed.mean(0)
            size = out.norm(dim=1).max()
            reach = float(self.radius * size) if size > 0 else 1.0
            variance, axes = symmetric_eigen(local_moments(fixed, reach))
            normal = signed(smallest_axis(variance, axes, out, size), (out,), size)
            if differentiable:
                away = pos - pos.mean(0)
                reach = self.radius * away.norm(dim=1).max() if size > 0 else 1.0
                normal = following_axis(normal, local_moments(pos, reach, True), variance, away)
        else:
            normal = unit_normals(pos, normal, 0, differentiable)
        frames = frames_from_two(normal, any_perpendicular(normal))
        return Poses(where, frames[:, None], axial=True)


@dataclass(frozen=True)
class PairPoses:
    """z axis along the normal, x axis toward a neighbour, for several neighbours.

    The neighbours are spread through the ``num_neighbors`` nearest, from the
    farthest inwards in equal steps of rank. A neighbour straight above or at
    the point itself gives no direction and falls back to a fixed axis.

    Args:
        num_rotations: frames a point, K.
        num_neighbors: neighbours from which they are taken.

    **Equivariance:** the pose set turns and moves with the cloud under SE(3),
    up to ties in distance and, as ``TangentPoses``, not on a flat cloud; no global centroid is
    used for the x axis.
    """

    num_rotations: int = 4
    num_neighbors: int = 24

    def __post_init__(self):
        _whole(self, "num_rotations", "num_neighbors")
        if self.num_rotations > self.num_neighbors:
            raise ArgumentError(
                f"`num_rotations` (={self.num_rotations}) must be between 1 and "
                f"`num_neighbors` (={self.num_neighbors})"
            )

    @own_precision
    def __call__(
        self, pos: Tensor, normal: Tensor | None = None, differentiable: bool = False
    ) -> Poses:
        """Poses on every point of ``pos`` [N, 3], ``normal`` [N, 3] or estimated;
        ``differentiable`` as for ``TangentPoses``."""
        where, pos = pos, _moving(pos, differentiable)
        normal = unit_normals(pos, normal, self.num_neighbors, differentiable)
        k = min(self.num_neighbors, len(pos))
        fixed = pos.detach()
        index, _ = knn(fixed, fixed, k)
        last = min(k - 1, k // self.num_rotations)
        ranks = torch.linspace(k - 1, last, self.num_rotations, dtype=torch.float64, device="cpu")
        chosen = index[:, ranks.round().long().to(index.device)]
        toward = pos[chosen] - pos[:, None]
        size = (fixed - fixed.mean(0)).norm(dim=1).max()
        return Poses(where, frames_from_two(normal[:, None].expand_as(toward), toward, size))


@dataclass(frozen=True)
class CentroidPoses:
    """Poses at the centroid, for the last level: axes of the cloud times a group.

    Args:
        rotations: "O" covers order and sign of the axes; see ``GridPoses``.
        align: which axes; see ``GridPoses``.

    **Equivariance:** as ``GridPoses``, at one position.
    """

    rotations: str | int = "O"
    align: str = "principal"

    def __post_init__(self):
        grid = GridPoses(self.rotations, self.align)  # which checks both
        object.__setattr__(self, "rotations", grid.rotations)

    @own_precision
    def __call__(
        self, pos: Tensor, normal: Tensor | None = None, frame: Tensor | None = None
    ) -> Poses:
        """K poses at the centroid of ``pos`` [N, 3]; as ``GridPoses`` otherwise."""
        frames, group = _grid_frames(self, pos, frame)
        return Poses(pos.mean(0, keepdim=True), frames[None], group)


# Those that the settings of a network can name; enter your own.
SAMPLERS = {c.__name__: c for c in (GridPoses, TangentPoses, NormalPoses, PairPoses, CentroidPoses)}


def sampler_to_dict(sampler: object) -> dict:
    """A pose sampler as plain values, for JSON.

    Raises:
        ArgumentError: it is of no type that ``sampler_from_dict`` knows.

    **Equivariance:** none involved.
    """
    kind = type(sampler)
    if SAMPLERS.get(kind.__name__) is not kind or not is_dataclass(kind):
        raise ArgumentError(
            f"`poses` (={sampler!r}) is a sampler of your own, which the settings of a network "
            "cannot name; make its class a dataclass, and enter it once: "
            f"pcequi.poses.SAMPLERS[{kind.__name__!r}] = {kind.__name__}"
        )
    values = {f.name: getattr(sampler, f.name) for f in fields(sampler)}
    return {"type": type(sampler).__name__, **values}


def sampler_from_dict(values: dict) -> Callable[..., Poses]:
    """The pose sampler that ``sampler_to_dict`` described.

    Raises:
        ArgumentError: the type is not one of pcequi's samplers.

    **Equivariance:** none involved.
    """
    values = dict(values)
    kind = values.pop("type", None)
    if kind not in SAMPLERS:
        raise ArgumentError(f"`type` (={kind!r}) must be one of {sorted(SAMPLERS)}")
    return SAMPLERS[kind](**values)

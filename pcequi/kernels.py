"""Kernel bases on R^3 x SO(3), local in space and, with a width below pi, in rotation.

phi_(i,j)(v, Q) = space_i(v) * rotation_j(Q) for a relative pose (v, Q), v in
units of the radius. Both factors fall to zero at the edge of their support, the one in space
with zero slope, so nothing jumps when a neighbour crosses it. Kernel points: Thomas et al.,
KPConv, ICCV 2019 (there with linear hats).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi import rotations as so3
from pcequi.constants import constant
from pcequi.errors import ArgumentError
from pcequi.ops.precision import uncast

# (how many, layout): every layout is closed under the octahedral group except
# the rings, which are closed under rotation by 45 degrees about z.
LAYOUTS = {
    1: "centre",
    7: "centre and 6 faces",
    15: "centre, 6 faces, 8 corners of a cube",
    21: "centre, 12 edges, 8 corners of a cube",
    27: "centre, 6 faces, 12 edges, 8 corners of a cube",
    33: "centre, inner 6 faces, outer 6 faces, 12 edges, 8 corners",
    17: "centre, two rings of 8",
    25: "centre, a ring of 8 in the plane, one of 8 above, one of 8 below",
}


@constant
def kernel_points(num: int, name: str = "num") -> tuple[Tensor, float]:
    """Kernel points in the unit ball and the width of their support.

    Args:
        num: one of ``LAYOUTS``.
        name: what the caller calls it, for errors.

    Returns:
        Points [num, 3], float64, and the width: the distance at which a
        point's basis function vanishes. Point norm plus width is at most 1.

    Raises:
        ArgumentError: no layout of this size.

    **Equivariance:** cubic layouts are closed under the octahedral group,
    rings under the cyclic group C8 about z.
    """
    if num not in LAYOUTS:
        raise ArgumentError(f"`{name}` (={num!r}) must be one of {sorted(LAYOUTS)} kernel points")
    cube = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 3)
    kind = cube.abs().sum(1).long()  # 0 centre, 1 face, 2 edge, 3 corner
    unit = torch.nn.functional.normalize(cube, dim=1)

    def shell(radius, *kinds):
        return torch.cat([unit[kind == k] * radius for k in kinds])

    def ring(radius, height):
        turn = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        level = torch.full_like(turn, height)
        return torch.stack([radius * turn.cos(), radius * turn.sin(), level], 1)

    centre = unit[kind == 0]
    return {
        1: lambda: (centre, 1.0),
        7: lambda: (torch.cat([centre, shell(0.45, 1)]), 0.55),
        15: lambda: (torch.cat([centre, shell(0.5, 1, 3)]), 0.5),
        21: lambda: (torch.cat([centre, shell(0.55, 2, 3)]), 0.45),
        27: lambda: (torch.cat([centre, shell(0.55, 1, 2, 3)]), 0.45),
        33: lambda: (torch.cat([centre, shell(0.3, 1), shell(0.6, 1, 2, 3)]), 0.4),
        17: lambda: (torch.cat([centre, ring(0.3, 0.0), ring(0.6, 0.0)]), 0.4),
        25: lambda: (torch.cat([centre, ring(0.55, 0.0), ring(0.35, 0.4), ring(0.35, -0.4)]), 0.45),
    }[num]()


def space_basis(offset: Tensor, points: Tensor, width: float) -> Tensor:
    """(1 - |v - p|^2 / width^2)^2, zero outside the width.

    Args:
        offset: [..., 3], in units of the radius.
        points: kernel points [B, 3].
        width: support of one basis function, same units.

    Returns:
        [..., B], in [0, 1].

    **Equivariance:** unchanged when offsets and points turn together.
    """
    # |v - p|^2 by the expanded form: a product instead of a [..., B, 3] array.
    square = offset.square().sum(-1, keepdim=True) + points.square().sum(-1)
    square = square - 2 * (offset @ points.T)
    return (1 - square / width**2).clamp_min(0).square()


def rotation_basis(rotation: Tensor, anchors: Tensor, width: float) -> Tensor:
    """Local function of the angle between a rotation and each anchor.

    (trace(A^T Q) - t) / (3 - t), t the trace at the angle ``width``; one at
    angle zero, zero from the angle ``width`` on.

    Args:
        rotation: [..., 3, 3].
        anchors: [J, 3, 3].
        width: radians, in (0, pi].

    Returns:
        [..., J], in [0, 1].

    **Equivariance:** unchanged when rotations and anchors are multiplied by
    one rotation from the left, or from the right.
    """
    edge = 1 + 2 * math.cos(width)
    trace = rotation.flatten(-2) @ anchors.flatten(-2).T
    return ((trace - edge) / (3 - edge)).clamp(0, 1)


def or_one(mass: Tensor) -> Tensor:
    """What sums over a support are divided by: their mass, or one where nothing has any. By a
    tiny number, a zero would have an infinite gradient.

    **Equivariance:** as invariant as the mass is.
    """
    return torch.where(mass > torch.finfo(mass.dtype).tiny, mass, 1)


class SE3Kernel(torch.nn.Module):
    """A fixed kernel basis: kernel points in space times anchors in SO(3).

    At ``rotation_width=pi``, the default, the functions of rotations are affine in Q, so few are
    independent: 1, 2, 3, 3, 10, 10 and 10 of those of 1, 2, 4, 8, 12, 24 and 60 anchors. Give
    four anchors or more a narrower width: at pi / 2 all of them are independent.

    Args:
        num_points: kernel points, one of ``kernels.LAYOUTS``.
        num_rotations: anchors. 1, 2, 4 or 8: turns about the frame's z axis;
            12, 24, 60: a finite group.
        rotation_width: support about an anchor, radians, at most pi.

    Attributes:
        points [num_points, 3], anchors [num_rotations, 3, 3]: constants, float64.

    Raises:
        ArgumentError: an argument is outside the ranges above.

    **Equivariance:** a function of relative poses, so unchanged when all poses
    move together.
    """

    def __init__(
        self, num_points: int = 15, num_rotations: int = 1, rotation_width: float = math.pi
    ):
        super().__init__()
        if not 0 < rotation_width <= math.pi:
            raise ArgumentError(f"`rotation_width` (={rotation_width}) must be in (0, pi]")
        points, self.width = kernel_points(num_points, "num_points")
        # Constants in float64, cast where they are used: as buffers they would
        # lose digits whenever the module passes through float32.
        self.points, self.anchors = points.clone(), anchor_rotations(num_rotations).clone()
        self.num_points, self.num_rotations = num_points, num_rotations
        self.rotation_width = rotation_width

    @property
    def num(self) -> int:
        """Size of the basis."""
        return self.num_points * self.num_rotations

    def forward(
        self, offset: Tensor, rotation: Tensor | None = None, anchor: Tensor | None = None
    ) -> Tensor:
        """Values [E, num] at relative poses: ``offset`` [E, 3] in units of the
        radius, ``rotation`` [E, 3, 3] (None: identity everywhere). Where ``anchor`` [E] is
        given, functions of other anchors than an edge's own are zero."""
        if rotation is None:
            rotation = torch.eye(3, dtype=offset.dtype, device=offset.device)
            rotation = rotation.expand(offset.shape[0], 3, 3)
        # Differences of squares: 16 bits would leave two digits of them.
        with uncast(offset.device.type):
            space = space_basis(offset, self.points.to(offset), self.width)
            turn = rotation_basis(rotation, self.anchors.to(offset), self.rotation_width)
        if anchor is not None:
            turn = turn * (anchor[:, None] == torch.arange(turn.shape[1], device=anchor.device))
        return (space[:, :, None] * turn[:, None, :]).flatten(1)

    def mass(self, offset: Tensor) -> Tensor:
        """Sum of the space functions at each offset [E]."""
        with uncast(offset.device.type):
            return space_basis(offset, self.points.to(offset), self.width).sum(1)

    def extra_repr(self) -> str:
        return f"num_points={self.num_points}, num_rotations={self.num_rotations}"


@constant
def anchor_rotations(num: int, name: str = "num_rotations") -> Tensor:
    """Anchors [num, 3, 3] in SO(3), the identity first.

    Args:
        num: of them.
        name: what the caller calls it, for errors.

    Raises:
        ArgumentError: ``num`` is not 1, 2, 4, 8, 12, 24 or 60.

    **Equivariance:** a group: closed under its own products.
    """
    if num in (1, 2, 4, 8):
        return so3.cyclic_group(num, dtype=torch.float64)
    if num in (12, 24, 60):
        return so3.finite_group({12: "T", 24: "O", 60: "I"}[num], dtype=torch.float64)
    raise ArgumentError(f"`{name}` (={num!r}) must be 1, 2, 4, 8, 12, 24 or 60")

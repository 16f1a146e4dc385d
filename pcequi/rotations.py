"""Rotations of 3D space: finite groups, grids, Haar draws and distances.

Plain functions on matrices. A rotation is an active one, applied to a cloud
of points in rows as ``pos @ R.T``, and the columns of ``R`` are the axes of the
frame that it stands for. Everything is computed in float64 and cast once, at
the end, so that a group closes to rounding in whatever dtype is asked for. All are made on
the CPU, whatever torch's default device is, and go to ``device`` where one is given.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from pcequi.errors import ArgumentError, ShapeError, check_count
from pcequi.ops.precision import own_precision

__all__ = [
    "cyclic_group",
    "dihedral_group",
    "finite_group",
    "geodesic_distance",
    "icosahedral_group",
    "octahedral_group",
    "random_rotations",
    "super_fibonacci",
    "tetrahedral_group",
]

# The constants of Alexa (2022), section 4: the pair (sqrt 2, psi) with
# psi^4 = psi + 4 spreads the spiral best over all tested grid sizes.
_PHI = math.sqrt(2.0)
_PSI = 1.533751168755204288118041


def _check_matrices(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.shape[-2:] != (3, 3) or not value.is_floating_point():
        seen = (
            f"{list(value.shape)} {value.dtype}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise ShapeError(
            f"`{name}` (={seen}) must be a floating-point tensor of rotations [..., 3, 3]"
        )


def cyclic_group(
    n: int,
    axis: str = "z",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""The ``n`` rotations by multiples of :math:`2\pi/n` about one axis.

    Element ``k`` turns by :math:`2\pi k/n`, so element 0 is the identity and
    the product of elements ``j`` and ``k`` is element ``(j + k) % n``. Quarter
    turns have exact entries -1, 0 and 1.

    Args:
        n: Number of elements, at least 1.
        axis: ``"x"``, ``"y"`` or ``"z"``.
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[n, 3, 3]``.

    Raises:
        ArgumentError: ``n`` is below 1 or ``axis`` is unknown.

    **Equivariance:** a constant; left multiplication by any of its elements
    permutes it.
    """
    n = check_count("n", n, 1)
    if axis not in ("x", "y", "z"):
        raise ArgumentError(f"`axis` (={axis!r}) must be 'x', 'y' or 'z'")
    angle = 2.0 * np.pi * np.arange(n) / n
    cos, sin = np.cos(angle), np.sin(angle)
    # cos(pi/2) is 6e-17 in floating point: quarter turns are made exact, since
    # users expect them to map a grid of points onto itself bit by bit.
    quarter = (4 * np.arange(n)) % n == 0
    cos[quarter], sin[quarter] = np.round(cos[quarter]), np.round(sin[quarter])
    first = {"x": 1, "y": 2, "z": 0}[axis]
    second, fixed = (first + 1) % 3, (first + 2) % 3
    matrices = np.zeros((n, 3, 3))
    matrices[:, fixed, fixed] = 1.0
    matrices[:, first, first] = matrices[:, second, second] = cos
    matrices[:, first, second], matrices[:, second, first] = -sin, sin
    return torch.from_numpy(matrices + 0.0).to(device=device, dtype=dtype)


def dihedral_group(
    n: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    r"""The ``2 n`` rotations of a regular prism: about z, and half turns that flip z.

    ``n = 2`` is the group of the half turns about the three axes: what turning
    over the signs of a right-handed frame can do.

    Args:
        n: Rotations about z, at least 1.
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[2 n, 3, 3]``, the identity first.

    Raises:
        ArgumentError: ``n`` is below 1.

    **Equivariance:** a constant; left multiplication by any of its elements
    permutes it.
    """
    about_z = cyclic_group(n, dtype=torch.float64)
    flip = torch.from_numpy(np.diag([1.0, -1.0, -1.0]))
    return torch.cat([about_z, about_z @ flip + 0.0]).to(device=device, dtype=dtype)


@functools.cache
def _signed_permutations(even_only: bool) -> np.ndarray:
    """Signed permutation matrices of determinant one, the identity first."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            parity = np.linalg.det(np.abs(matrix))
            if np.linalg.det(matrix) > 0 and (parity > 0 or not even_only):
                found.append(matrix)
    return np.stack(found)


def tetrahedral_group(
    *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """The 12 rotations of a tetrahedron with corners on a cube's corners.

    They are the cyclic permutations of the axes with an even number of sign
    changes: entries are exactly -1, 0 and 1, the identity comes first, and the
    set is contained in :func:`octahedral_group`.

    Args:
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[12, 3, 3]``.

    **Equivariance:** a constant; left multiplication by any of its elements
    permutes it.
    """
    return torch.from_numpy(_signed_permutations(True).copy()).to(device=device, dtype=dtype)


def octahedral_group(
    *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """The 24 rotations of a cube whose faces are normal to the axes.

    They are the signed permutation matrices of determinant one: entries are
    exactly -1, 0 and 1, and the identity comes first.

    Args:
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[24, 3, 3]``.

    **Equivariance:** a constant; left multiplication by any of its elements
    permutes it.
    """
    return torch.from_numpy(_signed_permutations(False).copy()).to(device=device, dtype=dtype)


def icosahedral_group(
    *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """The 60 rotations of an icosahedron, the largest finite group of its kind.

    From SciPy's ``Rotation.create_group``, reordered so that the identity comes
    first and angles do not fall after it.

    Args:
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[60, 3, 3]``.

    **Equivariance:** a constant; left multiplication by any of its elements
    permutes it.
    """
    group = Rotation.create_group("I")
    # Rounded, because equal angles differ in their last bits between machines.
    order = np.argsort(np.round(group.magnitude(), 6), kind="stable")
    return torch.from_numpy(group.as_matrix()[order]).to(device=device, dtype=dtype)


def finite_group(
    name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """A finite rotation group by its name in Schoenflies' notation.

    Args:
        name: ``"C1"``, ``"C2"``, ... (cyclic about z), ``"D1"``, ``"D2"``, ...
            (dihedral, twice as many), ``"T"`` (tetrahedral, 12), ``"O"``
            (octahedral, 24) or ``"I"`` (icosahedral, 60).
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[order, 3, 3]``, the identity first.

    Raises:
        ArgumentError: The name is none of these.

    **Equivariance:** a constant; left multiplication by any of its elements
    permutes it.
    """
    polyhedral = {"T": tetrahedral_group, "O": octahedral_group, "I": icosahedral_group}
    if isinstance(name, str):
        if name in polyhedral:
            return polyhedral[name](dtype=dtype, device=device)
        order = name[1:]
        prefixed = {"C": cyclic_group, "D": dihedral_group}.get(name[:1])
        if prefixed and order.isascii() and order.isdigit() and int(order) > 0:
            return prefixed(int(order), dtype=dtype, device=device)
    raise ArgumentError(
        f"`name` (={name!r}) must be 'T', 'O', 'I', or 'C' or 'D' and a number of at least 1, "
        "such as 'C4' or 'D2'"
    )


def super_fibonacci(
    num: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""A near-uniform grid of any number of rotations.

    Super-Fibonacci spirals on the unit quaternions: with
    :math:`s = i + 1/2`, :math:`t = s/n`, :math:`\alpha = 2\pi s/\sqrt 2` and
    :math:`\beta = 2\pi s/\psi`, sample ``i`` is the quaternion
    :math:`(\sqrt t \sin\alpha, \sqrt t \cos\alpha, \sqrt{1-t} \sin\beta,
    \sqrt{1-t} \cos\beta)`. Source: Marc Alexa, "Super-Fibonacci Spirals: Fast,
    Low-Discrepancy Sampling of SO(3)", CVPR 2022.

    Args:
        num: Number of rotations, at least 1.
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[num, 3, 3]``. The identity is not among them.

    Raises:
        ArgumentError: ``num`` is below 1.

    **Equivariance:** a constant, near-invariant to left and right
    multiplication: the covering radius falls as ``num ** (-1/3)``.
    """
    num = check_count("num", num, 1)
    step = torch.arange(num, dtype=torch.float64, device="cpu") + 0.5
    share = step / num
    alpha, beta = 2.0 * math.pi * step / _PHI, 2.0 * math.pi * step / _PSI
    inner, outer = share.sqrt(), (1.0 - share).sqrt()
    quaternion = torch.stack(
        [inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()], dim=-1
    )
    import roma  # two seconds of the start of every program that needs no grid and no draw

    return roma.unitquat_to_rotmat(quaternion).to(device=device, dtype=dtype)


def random_rotations(
    num: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Independent rotations from the Haar (uniform) distribution.

    Drawn by roma (Shoemake, "Uniform Random Rotations", Graphics Gems III,
    1992) in float64 on the generator's own device and moved afterwards, so that
    a seed gives the same rotations in every dtype and on every device.

    Args:
        num: Number of rotations, at least 0.
        generator: Source of randomness; torch's global one by default.
        dtype: Floating-point type of the result.
        device: Device of the result; by default the CPU.

    Returns:
        Rotation matrices, ``[num, 3, 3]``.

    Raises:
        ArgumentError: ``num`` is negative.

    **Equivariance:** the distribution is invariant to left and right
    multiplication by any rotation.
    """
    num = check_count("num", num, 0)
    source = generator.device if generator is not None else torch.device("cpu")
    import roma  # as above

    drawn = roma.random_rotmat(num, dtype=torch.float64, device=source, generator=generator)
    return drawn.to(device=device, dtype=dtype)


@own_precision
def geodesic_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""The angle of the rotation that leads from ``a`` to ``b``.

    Two formulas share the range, because each loses half its digits at one end:
    :math:`2 \arcsin(\|A - B\|_F / \sqrt 8)` for small and medium angles, and
    :math:`\pi - \arcsin(\|A^T B - B^T A\|_F / \sqrt 8)` for large ones. Equal
    matrices are at exactly 0. The gradient is finite everywhere, and zero at
    the two ends, where the distance has a kink.

    Args:
        a: Rotation matrices, ``[..., 3, 3]``.
        b: Rotation matrices, ``[..., 3, 3]``; the leading dimensions broadcast,
            so ``geodesic_distance(a[:, None], b[None])`` gives all pairs.

    Returns:
        Angles in radians, between 0 and pi, ``[...]``.

    Raises:
        ShapeError: An argument is not a floating-point tensor ``[..., 3, 3]``.

    **Equivariance:** invariant: the same for ``(Q a P, Q b P)`` with any
    rotations ``Q`` and ``P``.
    """
    _check_matrices("a", a)
    _check_matrices("b", b)
    common = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(common), b.to(common)
    half_sine = torch.linalg.matrix_norm(a - b) / math.sqrt(8.0)
    relative = a.transpose(-1, -2) @ b
    sine = torch.linalg.matrix_norm(relative - relative.transpose(-1, -2)) / math.sqrt(8.0)
    # The switch lies at 106 degrees, where both are well conditioned. Clamping
    # the side that is not chosen keeps its infinite slope out of the gradient.
    small = 2.0 * torch.asin(half_sine.clamp(max=0.81))
    large = math.pi - torch.asin(sine.clamp(max=0.97))
    return torch.where(half_sine < 0.8, small, large)

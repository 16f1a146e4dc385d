"""Local frames: normals, and frames from two directions."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.clouds import DEGENERATE, GENERIC, ONE_SPACE, check_cloud
from pcequi.errors import DataError, ShapeError
from pcequi.ops import HAS_NUMBA, knn
from pcequi.ops.precision import own_precision

__all__ = [
    "any_perpendicular",
    "check_normals",
    "estimate_normals",
    "following_axis",
    "frames_from_two",
    "neighborhood_mean",
    "signed",
    "smallest_axis",
    "symmetric_eigen",
    "unit_normals",
]

# Matrices that a GPU takes apart at once.
_TOGETHER = 2**14
# Weights of neighbours that are as far as the last one but for rounding.
_LEAST = 1e-5


def any_perpendicular(direction: Tensor) -> Tensor:
    """A unit vector perpendicular to each unit vector [..., 3].

    Used only where a rule finds no direction in the data: the projection of a fixed one.

    **Equivariance:** none; that is why it is a last resort.
    """
    axis = direction.new_tensor(GENERIC).expand_as(direction)
    near = (axis * direction).sum(-1, keepdim=True).abs() > 0.9
    axis = torch.where(near, axis.roll(1, -1), axis)
    side = axis - (axis * direction).sum(-1, keepdim=True) * direction
    return torch.nn.functional.normalize(side, dim=-1)


@own_precision
def frames_from_two(z: Tensor, toward: Tensor, size: Tensor | float = 1.0) -> Tensor:
    """Right-handed frames with axis z and the x axis toward a second direction.

    Args:
        z: unit vectors [..., 3].
        toward: second directions [..., 3], any length; projected off ``z``.
        size: length against which a projected direction counts as zero; then
            ``any_perpendicular`` decides.

    Returns:
        Frames [..., 3, 3].

    **Equivariance:** turns with its inputs wherever they are not parallel.
    """
    side = toward - (toward * z).sum(-1, keepdim=True) * z
    length = side.norm(dim=-1, keepdim=True)
    lost = length <= DEGENERATE * size
    x = torch.where(
        lost, any_perpendicular(z), side / length.clamp_min(torch.finfo(length.dtype).tiny)
    )
    # Division by a small length leaves rounding along z: take it off again.
    x = torch.nn.functional.normalize(x - (x * z).sum(-1, keepdim=True) * z, dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


@own_precision
def estimate_normals(pos: Tensor, num_neighbors: int = 24, differentiable: bool = False) -> Tensor:
    """Surface normals by local principal components, with a sign.

    The covariance of the ``num_neighbors`` nearest points is weighted by
    1 - (d / d_max)^2, so that the farthest neighbour has no weight and a tie
    for that place changes nothing. **Sign:** away from the centroid of the
    cloud; where the normal is perpendicular to that direction, away from the
    centroid of the neighbourhood; where that too is zero, toward a fixed
    direction. Where the two least variances agree to a thousandth (a line, the
    inside of a lattice), the normal is the direction in their space nearest to
    that away from the centroid.

    Args:
        pos: one cloud [N, 3].
        num_neighbors: neighbours in the estimate, at most N are used.
        differentiable: the same normals as functions of the points, but for those that only a
            fixed direction decides; see ``following_axis``.

    Returns:
        Unit normals [N, 3]; no gradient flows back unless ``differentiable``. A cloud of fewer
        than 3 points gets the direction away from the centroid (or the z axis where there is
        none).

    Source: Hoppe et al., "Surface reconstruction from unorganized points", 1992.

    **Equivariance:** turns with the cloud, unchanged by translation.
    """
    where, pos = pos, check_cloud(pos, wide=True).detach()
    away = where - where.mean(0)
    out = away.detach()
    size, tiny = out.norm(dim=1).max(), torch.finfo(pos.dtype).tiny
    if len(pos) < 3:
        away = away if differentiable else out
        up = out.new_tensor([0.0, 0.0, 1.0]).expand_as(out)
        length = away.norm(dim=1, keepdim=True)
        return torch.where(length > DEGENERATE * size, away / length.clamp_min(tiny), up)
    covariance, mean = _weighted_covariance(pos, num_neighbors)
    variance, axes = symmetric_eigen(covariance)
    normal = signed(smallest_axis(variance, axes, out, size), (-mean, out), size)
    if not differentiable:
        return normal
    covariance = _weighted_covariance(where, num_neighbors, True)[0]
    return following_axis(normal, covariance, variance, away)


@own_precision
def following_axis(axis: Tensor, matrices: Tensor, variance: Tensor, out: Tensor) -> Tensor:
    """What ``smallest_axis`` found as a function of the matrices and of ``out``.

    One step of Rayleigh quotient iteration from the axis itself, with the adjugate of
    C - (a . C a) in place of its inverse, which does not exist. It converges cubically, so two
    derivatives are those of the eigenvector. They depend on no other eigenvectors, unlike those
    of ``torch.linalg.eigh``, which are NaN where the two larger variances agree. Where the two
    least variances agree to a thousandth of the largest, no axis follows, and the rule is ``out``
    less its part along the axis of largest variance, which does.

    Args:
        axis: unit vectors of least variance [N, 3], on the side of ``out`` where they are not
            perpendicular to it, constants.
        matrices: symmetric [N, 3, 3], differentiable.
        variance: their eigenvalues, least first [N, 3].
        out: directions away from the centroid [N, 3], differentiable.

    Returns:
        The same vectors [N, 3]; constants where the rule was a fixed direction.

    Source: the iteration: Parlett, "The Symmetric Eigenvalue Problem", 1980, chapter 4.

    **Equivariance:** turns with the axis and the matrices, and so does the gradient.
    """
    simple = (variance[:, 1:2] - variance[:, :1]) > ONE_SPACE * variance[:, 2:]
    scale = torch.where(variance[:, 2:] > 0, variance[:, 2:], 1)
    matrices = matrices / scale[:, :, None]
    found = torch.nn.functional.normalize(
        torch.where(simple, _step_to_axis(axis, matrices), axis), dim=1
    )
    if not simple.all():
        found = torch.where(simple, found, _outward(axis, matrices, variance / scale, out))
    return axis + (found - found.detach())  # the value to the bit


def _step_to_axis(axis: Tensor, matrices: Tensor) -> Tensor:
    """Eigenvectors [N, 3], of any length, one step from those given."""
    quotient = torch.einsum("ni,nij,nj->n", axis, matrices, axis)
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    one, two, three = (matrices - quotient[:, None, None] * eye).unbind(1)
    cofactors = [torch.linalg.cross(*pair) for pair in ((two, three), (three, one), (one, two))]
    return torch.einsum("nij,nj->ni", torch.stack(cofactors, 1), axis)


def _outward(axis: Tensor, matrices: Tensor, variance: Tensor, out: Tensor) -> Tensor:
    """Unit vectors [N, 3] along ``out`` less its part along the axis of largest variance, if there
    is one; ``axis`` where nothing is left."""
    largest = symmetric_eigen(matrices.detach())[1][:, :, 2]
    one = (variance[:, 2:] - variance[:, :1]) > ONE_SPACE * variance[:, 2:]
    step = torch.where(one, _step_to_axis(largest, matrices), largest)
    along = torch.where(one, torch.nn.functional.normalize(step, dim=1), 0)
    side = out - (out * along).sum(1, keepdim=True) * along
    length = side.detach().norm(dim=1, keepdim=True)
    usable = length > DEGENERATE * out.detach().norm(dim=1).max()
    return torch.nn.functional.normalize(torch.where(usable, side, axis), dim=1, eps=0)


@own_precision
def neighborhood_mean(pos: Tensor, num_neighbors: int, differentiable: bool = False) -> Tensor:
    """Mean of the nearest neighbours of each point, seen from it [N, 3], weighted as for
    ``estimate_normals``: a tie for the last place changes nothing.

    **Equivariance:** turns with the cloud, unchanged by translation.
    """
    return _weighted_neighbors(pos, num_neighbors, differentiable)[2]


def _weighted_covariance(
    pos: Tensor, num_neighbors: int, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """Covariance [N, 3, 3] of the nearest of each point, and their mean offset [N, 3]."""
    weight, offset, mean = _weighted_neighbors(pos, num_neighbors, differentiable)
    centered = offset - mean[:, None]
    return torch.einsum("nk,nki,nkj->nij", weight, centered, centered), mean


def _weighted_neighbors(
    pos: Tensor, num_neighbors: int, differentiable: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [N, k] and offsets [N, k, 3] of the nearest, and the mean offset [N, 3]."""
    tiny = torch.finfo(pos.dtype).tiny
    fixed = pos.detach()
    index, distance = knn(fixed, fixed, min(num_neighbors, len(pos)))
    offset = pos[index] - pos[:, None]
    share = (distance / distance[:, -1:].clamp_min(tiny)).square()
    if differentiable:  # equal to rounding; distances have no second derivative
        square = offset.square().sum(2)
        share = square / square[:, -1:].clamp_min(tiny)
    weight = 1 - share
    weight = torch.where(weight > _LEAST, weight, 0)
    mean = (weight[..., None] * offset).sum(1) / weight.sum(1, keepdim=True).clamp_min(tiny)
    return weight, offset, mean


@own_precision
def signed(normal: Tensor, directions: tuple[Tensor, ...], size: Tensor | float) -> Tensor:
    """Normals on the side of the last of some directions [N, 3] that is not
    perpendicular to them; of a fixed one where all are.

    **Equivariance:** turns with both, but where the fixed one decides.
    """
    side = (normal @ normal.new_tensor(GENERIC)) * size
    for direction in directions:
        along = (normal * direction).sum(1)
        side = torch.where(along.abs() > DEGENERATE * size, along, side)
    return torch.where(side < 0, -1.0, 1.0).to(normal)[:, None] * normal


@own_precision
def symmetric_eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [N, 3], least first, and eigenvectors, as columns, of [N, 3, 3].

    **Equivariance:** eigenvectors turn with the matrices, up to their signs.
    """
    if HAS_NUMBA and matrices.dtype == torch.float64 and matrices.device.type == "cpu":
        from pcequi.ops.compiled.matrices import eigen_each

        return tuple(map(torch.from_numpy, eigen_each(matrices.contiguous().numpy())))
    if not matrices.is_cuda:
        return torch.linalg.eigh(matrices)
    # cuSOLVER has refused more matrices than these at once.
    found = [torch.linalg.eigh(some) for some in matrices.split(_TOGETHER)]
    return tuple(map(torch.cat, zip(*found, strict=True)))


@own_precision
def smallest_axis(variance: Tensor, axes: Tensor, out: Tensor, size: Tensor | float) -> Tensor:
    """Axis of least variance [N, 3]. Where variances agree, the direction in
    their space nearest to ``out``, or to a fixed one if that is perpendicular.

    **Equivariance:** turns with the axes and ``out``, but where the fixed one decides.
    """
    same = (variance - variance[:, :1]) <= ONE_SPACE * variance[:, 2:]
    space = axes * same[:, None, :]
    chosen = axes[:, :, 0]
    for direction in (axes.new_tensor(GENERIC).expand_as(out) * size, out):
        inside = torch.einsum("nia,nja,nj->ni", space, space, direction)
        length = inside.norm(dim=1, keepdim=True)
        usable = (length > DEGENERATE * size) & same[:, 1:2]
        unit = inside / length.clamp_min(torch.finfo(out.dtype).tiny)
        chosen = torch.where(usable, unit, chosen)
    return chosen


def check_normals(pos: Tensor, normal: Tensor) -> Tensor:
    """Return ``normal`` if it has the shape of ``pos``.

    Raises:
        ShapeError: it does not.

    **Equivariance:** does not apply.
    """
    if normal.shape != pos.shape:
        raise ShapeError(f"`normal` (={list(normal.shape)}) must match `pos` (={list(pos.shape)})")
    return normal


@own_precision
def unit_normals(
    pos: Tensor, normal: Tensor | None, num_neighbors: int, differentiable: bool = False
) -> Tensor:
    """Given normals, checked and scaled to length one, or estimated ones [N, 3]; no
    gradient flows back unless ``differentiable``.

    Raises:
        ShapeError, DataError: given normals that do not fit or have no direction.

    **Equivariance:** turn with the cloud.
    """
    if normal is None:
        return estimate_normals(pos, num_neighbors, differentiable)
    normal = check_normals(pos, normal).to(pos.dtype)
    normal = normal if differentiable else normal.detach()
    length = normal.norm(dim=1, keepdim=True)
    if not (torch.isfinite(normal).all() and (length > 0).all()):
        raise DataError("`normal` has vectors that are zero, NaN or infinite; drop it to estimate")
    return normal / length

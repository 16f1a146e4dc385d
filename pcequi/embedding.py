"""Per-pose embeddings: what a layer's sparse product would see.

Because a layer is linear in that product z, poses with nearby z have nearby
outputs; sampling is done on z of the raw geometry (geometric embedding) or of
the current features (feature embedding).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.constants import group_constant
from pcequi.errors import ArgumentError, ShapeError
from pcequi.kernels import kernel_points, or_one, space_basis
from pcequi.normals import check_normals
from pcequi.ops import HAS_NUMBA, check_radius, pairs_within, wants_gradient
from pcequi.ops.precision import own_precision
from pcequi.pair_kernel import COINCIDE, SIGN_WIDTH, check_pairs, pair_basis
from pcequi.poses import Poses


@own_precision
def geometric_embedding(
    poses: Poses,
    pos: Tensor,
    radius: float,
    num_points: int = 15,
    normal: Tensor | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Kernel-point averages of the raw geometry, seen from every pose.

    z_b(x, R) = sum_y phi_b(R^T (y - x) / r) f(y) / sum_y sum_b phi_b, where
    f(y) is 1, then R^T n(y) if ``normal`` is given, then row y of ``x``. The support is
    all points of the cloud within the radius, with no cap on their number.

    Args:
        poses: poses of one cloud, [N] points with K rotations.
        pos: the cloud's points [S, 3].
        radius: of the support, in the units of ``pos``.
        num_points: kernel points B, one of ``kernels.LAYOUTS``.
        normal: unit normals [S, 3], optional.
        x: numbers that no rotation changes [S, C], optional.

    Returns:
        [N, K, B * F], F = 1, plus 3 with normals, plus C; the mass entries of a pose sum to one.

    Raises:
        ShapeError, DataError: the cloud is unusable, or ``normal`` or ``x`` is not of its points.
        ArgumentError: ``radius`` or ``num_points`` is outside its range.

    **Equivariance:** unchanged when cloud and poses move together.
    """
    check_cloud(pos, wide=True)
    check_radius(radius)
    if normal is not None:
        check_normals(pos, normal)
    if x is not None and (x.dim() != 2 or len(x) != len(pos)):
        raise ShapeError(f"`x` (={list(x.shape)}) must be [points of `pos` (={len(pos)}), C]")
    points, width = kernel_points(num_points, "num_points")
    points = points.to(pos)
    given = [part.to(pos) for part in (normal, x) if part is not None]
    feature = torch.cat([pos[:, :0], *given], 1)
    if poses.group is None:
        slot = torch.arange(num_points, device=pos.device)[None]
        parts = [
            _lift(poses.pos, poses.rot[:, k], pos, feature, radius, points, width, slot)
            for k in range(poses.num_rotations)
        ]
        z = torch.cat(parts, 1)
    else:
        # phi_b seen from R0 G is phi_{G b} seen from R0: evaluate the distinct
        # turned kernel points once a point, then look every pose's up.
        distinct, slot = turned_points(poses.group, num_points)
        z = _lift(poses.pos, poses.rot[:, 0], pos, feature, radius, distinct, width, slot)
    if normal is not None:  # world normals to the frame of each pose
        z = torch.cat([z[..., :1], z[..., 1:4] @ poses.rot, z[..., 4:]], -1)
    return z.flatten(2)


@own_precision
def pair_embedding(
    poses: Poses,
    pos: Tensor,
    axes: Tensor,
    radius: float,
    pairs: tuple[int, int, int, int],
) -> Tensor:
    """What each point with its unsigned normal sees: a histogram of the pairs that it
    makes with the points around it, and the pair that it makes with the centroid.

    z_b(x) = sum_y phi_b(x, y) / sum_y sum_b phi_b over all points y of the cloud
    within the radius; then the square root of the mass around x, sum_y (1 - r^2), as
    a share of the cloud's points; |x - c| and |n . (x - c)|, with c the centroid, in
    units of the farthest point's distance from it.

    Args:
        poses: poses of one cloud, [N] points with one frame, whose z axis is the normal.
        pos: the cloud's points [S, 3]. axes: their unit normals [S, 3], of any sign.
        radius: of the support, in the units of ``pos``.
        pairs: see ``pair_kernel.pair_basis``.

    Returns:
        [N, 1, B + 3]; the first B entries of a pose sum to one.

    Raises:
        ShapeError, DataError: the cloud is unusable, or ``axes`` are not of its points.
        ArgumentError: several poses a point, or ``radius`` or ``pairs`` outside their ranges.

    Source: Fast point feature histograms, of the same kind: Rusu et al., ICRA 2009.

    **Equivariance:** unchanged when cloud and poses move together, and when normals
    change their signs.
    """
    check_cloud(pos, wide=True)
    check_radius(radius)
    pairs = check_pairs(pairs)
    if axes.shape != pos.shape:
        raise ShapeError(f"`axes` (={list(axes.shape)}) must match `pos` (={list(pos.shape)})")
    if poses.num_rotations != 1:
        raise ArgumentError(
            f"`poses` (={poses.num_rotations} a point) must be one a point, along its normal; take "
            "NormalPoses()"
        )
    normal = poses.rot[:, 0, :, 2]
    histogram, mass = _pair_means(poses, normal, pos, axes, radius, pairs)
    offset = poses.pos - pos.mean(0)
    size = (pos - pos.mean(0)).norm(dim=1).max().clamp_min(torch.finfo(pos.dtype).tiny)
    place = torch.stack([offset.norm(dim=1), (offset * normal).sum(1).abs()], 1) / size
    share = mass / len(pos)
    none = share == 0  # where the root's slope is infinite
    share = share.masked_fill(none, 1).sqrt().masked_fill(none, 0)
    return torch.cat([histogram, share[:, None], place], 1)[:, None]


def _pair_means(poses, normal, pos, axes, radius, pairs) -> tuple[Tensor, Tensor]:
    """Means of the basis on pairs around each pose [N, B], and the sums [N] they are of."""
    tensors = (poses.pos, normal, pos, axes)
    if HAS_NUMBA and pos.device.type == "cpu" and not wants_gradient(*tensors):
        from pcequi.ops.compiled import pairs as compiled

        arrays = [t.detach().contiguous().numpy() for t in tensors]
        settings = (float(radius), pairs, (COINCIDE, SIGN_WIDTH))
        return tuple(map(torch.from_numpy, compiled.lift_pairs(*arrays, *settings)))
    row, col = pairs_within(pos, poses.pos, radius)
    basis = math.prod(pairs)
    out = pos.new_zeros(len(normal), basis)
    step = max(1, 2**22 // basis)  # bounds the [pairs x functions] array
    for start in range(0, len(row), step):
        r, c = row[start : start + step], col[start : start + step]
        frame = poses.rot[r, 0]
        offset = torch.einsum("eij,ei->ej", frame, pos[c] - poses.pos[r]) / radius
        phi = pair_basis(offset, torch.einsum("eij,ei->ej", frame, axes[c]), pairs)
        out.index_add_(0, r, phi)
    mass = out.sum(1)
    return out / or_one(mass)[:, None], mass


@group_constant
def turned_points(group: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """The kernel points turned by a group, each once up to rounding, and which
    of them each element sees at each place.

    Args:
        group: [K, 3, 3], the identity first.
        num_points: kernel points B, one of ``kernels.LAYOUTS``.

    Returns:
        The points [D, 3], D at least B, and their numbers [K, B].

    **Equivariance:** constants of the group and the kernel.
    """
    turned = torch.einsum("kij,bj->kbi", group, kernel_points(num_points)[0].to(group))
    rounded = (turned.flatten(0, 1) * 2**16).round().long()
    _, slot = torch.unique(rounded, dim=0, return_inverse=True)
    count, rows = int(slot.max()) + 1, torch.arange(len(slot), device=slot.device)
    first = rows.new_full((count,), len(slot)).scatter_reduce(0, slot, rows, "amin")
    return turned.flatten(0, 1)[first], slot.view(turned.shape[:2])


def _lift(target, frame, source, feature, radius, points, width, slot) -> Tensor:
    """Sums over sources within the radius of phi_b times one and times their features
    [S, F], for K choices ``slot`` [K, B] of the points, over each choice's mass:
    [N, K, B, 1 + F]."""
    tensors = (target, frame, source, feature, points, slot)
    if HAS_NUMBA and target.device.type == "cpu" and not wants_gradient(*tensors):
        from pcequi.ops.compiled import neighborhoods

        *arrays, points, slot = [t.detach().contiguous().numpy() for t in tensors]
        out = neighborhoods.lift(*arrays, float(radius), points, width, slot)
        return torch.from_numpy(out)
    feature = torch.cat([torch.ones_like(source[:, :1]), feature], 1)
    row, col = pairs_within(source, target, radius)
    out = feature.new_zeros(len(target), len(points), feature.shape[1])
    step = max(1, 2**22 // len(points))  # bounds the [pairs x kernel points] array
    for start in range(0, len(row), step):
        r, c = row[start : start + step], col[start : start + step]
        offset = torch.einsum("eij,ei->ej", frame[r], source[c] - target[r]) / radius
        phi = space_basis(offset, points, width)
        out.index_add_(0, r, phi[:, :, None] * feature[c][:, None, :])
    out = out.index_select(1, slot.flatten()).view(len(out), *slot.shape, -1)
    return out / or_one(out[..., 0].sum(-1))[..., None, None]


def feature_projection(
    channels: int,
    dim: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The fixed projection Pi [channels, dim] of the feature embedding.

    Orthonormal columns from the QR factors of a fixed Gaussian draw; the
    identity where ``dim >= channels``, so that the embedding is z itself.

    Source: Johnson and Lindenstrauss (1984): distances survive projection.

    **Equivariance:** acts on channels only, so commutes with any motion.
    """
    if dim >= channels:
        return torch.eye(channels, dtype=dtype, device="cpu" if device is None else device)
    generator = torch.Generator("cpu").manual_seed(0)
    draw = torch.randn(channels, dim, generator=generator, dtype=torch.float64, device="cpu")
    return torch.linalg.qr(draw).Q.to(dtype=dtype, device=device)

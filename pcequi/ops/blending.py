"""Which representatives a row blends, and how much of each."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.errors import check_count
from pcequi.ops.backends import HAS_NUMBA
from pcequi.ops.clusters import NOISE_SHARE, SCREEN, check_centers
from pcequi.ops.fps import TIE
from pcequi.ops.precision import own_precision

# Weight against far centres, as a share of their squared distance: it keeps the
# system well conditioned when centres coincide or lie on one line.
PENALTY = 0.1
# Shares are lowered by this much (half of an equal share, where that is less), and those
# below it vanish, before they are normalised.
THRESHOLD = 0.05
# Against division by the distance of a centre at which a row lies, a share of the
# squared distance of the first centre that is not blended.
_FLOOR = 1e-9
# Rows whose nearest centre is this near to the first that is not blended, as a
# share of squared distances, see centres in all directions alike: no blend of a
# few of them would be continuous, so they take the nearest.
_ALIKE = 1e-6
# Centres up to which the kernel may keep all their distances from one another (128 MiB), and
# numbers in the largest array of distances of rows from centres in torch.
MOST_CENTERS = 4096
_MOST = 2**24


@own_precision
def blend_centers(x: Tensor, center: Tensor, num: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each row of ``x`` as a weighted mean of its nearest rows of ``center``.

    With D the differences to the ``num`` nearest centres, d their distances and
    r the distance of the next one, the weights w solve

        (D D^T + diag(PENALTY d^2 / (1 - d^2 / r^2))) w = 1,

    negative ones are dropped, the sum is made one, and small ones are shrunk to zero.
    A centre on the verge of being left out has no weight, so that w is a
    continuous function of the distances, unless all ``num + 1`` are equal.

    Args:
        x: [P, D].
        center: [M, D].
        num: centres that a row blends; fewer where M has no more than these.

    Returns:
        ``assignment`` [P] and ``distance`` [P], as ``nearest_center``; ``index``
        [P, num] in [0, M) and ``weight`` [P, num], whose rows sum to one. Places
        that are not needed hold the assignment and zero.

    Raises:
        ShapeError: ``x`` is not [P, D] of 32 or 64 bits, or ``center`` is not of its columns.
        ArgumentError: ``num`` is below 1.

    Source: the weights of locally linear embedding (Roweis and Saul, "Nonlinear
    dimensionality reduction by locally linear embedding", 2000), whose constant
    regulariser is replaced by one that grows towards the first centre left out.

    **Equivariance:** unchanged by an isometry of both arguments.
    """
    check_centers(x, center)
    num = check_count("num", num)
    x, center = x.detach().contiguous(), center.detach().to(x).contiguous()
    few = min(num, len(center) - 1)
    limits = SCREEN + TIE, TIE, NOISE_SHARE
    if HAS_NUMBA and x.device.type == "cpu" and len(center) <= MOST_CENTERS:
        from pcequi.ops.compiled import blending

        found = blending.blend(x.numpy(), center.numpy(), num, few, *limits, *weight_limits(num))
        return tuple(map(torch.from_numpy, found))
    shift = center.mean(0)
    scale = float((center - shift).square().sum(1).max() + (x - shift).square().sum(1).max())
    scale = max(scale, limits[2] * float(x.square().sum(1).max()))
    slack = 2 * TIE * scale
    parts = x.split(max(1, _MOST // len(center)))
    found = [_blend_torch(part, center, num, few, slack) for part in parts]
    return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found)))


def weight_limits(num: int) -> tuple[float, float, float, float]:
    """The penalty, the threshold of shares and the two limits of rows that take the nearest, where
    ``num`` centres are blended.

    **Equivariance:** does not apply.
    """
    return PENALTY, min(THRESHOLD, 0.5 / num), _FLOOR, _ALIKE


def _blend_torch(x, center, num, few, slack):
    penalty, threshold, floor, alike = weight_limits(num)
    square = torch.cdist(x, center, compute_mode="donot_use_mm_for_euclid_dist").square()
    assignment = (square <= square.min(1, keepdim=True).values + slack).int().argmax(1)
    distance = square.gather(1, assignment[:, None])[:, 0].sqrt()
    index = assignment[:, None].repeat(1, num)
    weight = torch.zeros_like(index, dtype=x.dtype)
    weight[:, 0] = 1
    if few < 1:
        return assignment, distance, index, weight
    near, which = square.topk(few + 1, 1, largest=False)
    edge = near[:, few]
    blended = (edge > slack) & (near[:, 0] < (1 - alike) * edge)
    near, which, edge = near[blended, :few], which[blended, :few], edge[blended, None]
    offset = center[which] - x[blended][:, None]
    usable = near < edge
    system = offset @ offset.mT
    system = system * (usable[:, :, None] & usable[:, None, :])
    ridge = penalty * near * (edge / torch.where(usable, edge - near, edge)) + floor * edge
    system = system + torch.diag_embed(torch.where(usable, ridge, 1))
    share = torch.cholesky_solve(usable[:, :, None].to(x), torch.linalg.cholesky(system))[:, :, 0]
    share = share.clamp_min(0)
    share = (share / share.sum(1, keepdim=True) - threshold).clamp_min(0)
    share = share / share.sum(1, keepdim=True)
    used = share > 0
    index[blended, :few] = torch.where(used, which, assignment[blended, None])
    weight[blended, :few] = share
    return assignment, distance, index, weight

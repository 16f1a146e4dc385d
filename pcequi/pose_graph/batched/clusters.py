"""Lloyd's steps, nearest centres and blends of many clouds at once.

The rules are those of ``pcequi.lloyd``, ``pcequi.ops.clusters`` and ``pcequi.ops.blending``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.lloyd import SLACK
from pcequi.ops import blending as one
from pcequi.ops.fps import NOISE, TIE
from pcequi.pose_graph.batched.near import rows_at, squared_distances

__all__ = ["blend_centers", "lloyd", "nearest_center"]


def nearest_center(x: Tensor, center: Tensor) -> Tensor:
    """Nearest row of ``center`` [B, M, D] for each row of ``x`` [B, P, D]: [B, P]; near-ties
    go to the first.

    **Equivariance:** unchanged by an isometry of both arguments.
    """
    return _first_least(*squared_distances(x, center))


def _first_least(square: Tensor, scale: Tensor) -> Tensor:
    low = square.amin(2, keepdim=True) + 2 * TIE * scale
    return (square <= low).view(torch.uint8).argmax(2)


def lloyd(
    turned: Tensor,
    index: Tensor,
    assignment: Tensor,
    key: Tensor,
    steps: int,
    products: Tensor,
) -> Tensor:
    """Lloyd steps from given clusters, then the medoid of each: different orbits [B, M].

    Args:
        turned: rows of orbits [B, P, K, D].
        index: orbits that stand for all [B, M].
        assignment: of the first pose of each orbit [B, P], in [0, M * K).
        key: of each orbit, for ties [B, P].
        steps: at least one.
        products: multiplication table of the frames' group [K, K].

    **Equivariance:** unchanged by an isometry of the rows that leaves ``key`` in place.
    """
    x, every, size = turned[:, :, 0], turned.flatten(1, 2), turned.shape[2]
    center = rows_at(turned, index).flatten(1, 2)
    place = torch.arange(center.shape[1], device=x.device)[:, None]
    for _ in range(steps):
        turn = assignment % size
        code = (assignment - turn)[..., None] + products[turn]
        member = (code.flatten(1)[:, None] == place).to(x)
        count = member.sum(2, keepdim=True)
        center = torch.where(count > 0, member @ every / count.clamp_min(1), center)
        assignment = nearest_center(x, center)
    distance = (x - rows_at(center, assignment)).square().sum(2).sqrt()
    spread = (x - x.mean(1, keepdim=True)).square().sum(2).amax(1, keepdim=True).sqrt()
    norm = x.square().sum(2).amax(1, keepdim=True)
    slack = torch.maximum(SLACK * spread, (NOISE * norm).sqrt())
    largest = key.abs().amax(1, keepdim=True)
    cluster = (assignment // size)[:, None] == place[: index.shape[1]]
    first = _least(cluster, _rounded(distance, slack))
    both = _least(first, _rounded(-key, SLACK * largest))
    medoid = both.view(torch.uint8).argmax(2)
    return _distinct(torch.where(cluster.any(2), medoid, index), x.shape[1])


def _rounded(value: Tensor, step: Tensor) -> Tensor:
    return torch.where(step == 0, value, (value / step.masked_fill(step == 0, 1)).round())


def _least(some: Tensor, value: Tensor) -> Tensor:
    """Which of ``some`` [B, M, P] have the least value [B, P] of each row."""
    value = torch.where(some, value[:, None], torch.inf)
    return some & (value == value.amin(2, keepdim=True))


def _distinct(index: Tensor, size: int) -> Tensor:
    """Replace repeated picks [B, M] by rows not picked yet, so that the count holds."""
    repeat = (index[:, :, None] == index[:, None]).tril(-1).any(2)
    seen = torch.zeros(len(index), size, dtype=torch.uint8, device=index.device)
    spare = seen.scatter(1, index, 1).argsort(dim=1, stable=True)
    rank = (repeat.cumsum(1) - 1).clamp_min(0)
    return torch.where(repeat, spare.gather(1, rank), index)


def blend_centers(x: Tensor, center: Tensor, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """``ops.blend_centers`` of ``x`` [B, P, D] and ``center`` [B, M, D].

    Returns:
        ``assignment`` [B, P], ``index`` [B, P, num] in [0, M) and ``weight`` [B, P, num].

    **Equivariance:** unchanged by an isometry of both arguments.
    """
    few = min(num, center.shape[1] - 1)
    square, scale = squared_distances(x, center)
    assignment = _first_least(square, scale)
    index = assignment[:, :, None].repeat(1, 1, num)
    weight = torch.zeros_like(index, dtype=x.dtype)
    weight[:, :, 0] = 1
    if few < 1:
        return assignment, index, weight
    which = square.topk(few + 1, 2, largest=False).indices
    offset = rows_at(center, which) - x[:, :, None]
    near = offset.square().sum(3)  # once more, by differences
    near, edge = near[:, :, :few], near[:, :, few:]
    tie = 2 * TIE * scale
    blended = (edge > tie) & (near.amin(2, keepdim=True) < (1 - one._ALIKE) * edge)
    share = _weights(offset[:, :, :few], near, torch.where(blended, edge, 1), num)
    index[:, :, :few] = torch.where(blended & (share > 0), which[:, :, :few], index[:, :, :few])
    weight[:, :, :few] = torch.where(blended, share, weight[:, :, :few])
    return assignment, index, weight


def _weights(offset: Tensor, near: Tensor, edge: Tensor, num: int) -> Tensor:
    """Weights [B, P, few] of centres at these offsets [B, P, few, D] and squared distances."""
    usable = near < edge
    system = offset @ offset.mT
    system = system * (usable[..., None] & usable[..., None, :])
    inside = torch.where(usable, edge - near, edge)
    ridge = one.PENALTY * near * (edge / inside) + one._FLOOR * edge
    system = system + torch.diag_embed(torch.where(usable, ridge, 1))
    share = _solve(system, usable.to(system)).clamp_min(0)
    threshold = min(one.THRESHOLD, 0.5 / num)
    share = (share / share.sum(2, keepdim=True) - threshold).clamp_min(0)
    return share / share.sum(2, keepdim=True)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Solutions [..., k] of small positive definite systems [..., k, k], by elimination: the
    library's routine stops to ask the device whether all were definite."""
    shape, num = right.shape, right.shape[-1]
    # The systems' entries first, so that those of neighbouring systems are neighbours.
    both = torch.cat([system, right[..., None]], -1).flatten(0, -3).permute(1, 2, 0).contiguous()
    for j in range(num - 1):
        share = both[j + 1 :, j] / both[j, j]
        both[j + 1 :, j + 1 :] -= share[:, None] * both[j, j + 1 :]
    out = torch.empty_like(both[:, -1])
    for j in reversed(range(num)):
        known = (both[j, j + 1 : num] * out[j + 1 :]).sum(0)
        out[j] = (both[j, -1] - known) / both[j, j]
    return out.T.reshape(shape)

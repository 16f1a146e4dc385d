"""Geometric embeddings of many clouds at once, see ``pcequi.embedding``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi.embedding import turned_points
from pcequi.kernels import kernel_points
from pcequi.pair_kernel import invariant_basis
from pcequi.pose_graph.batched.canonical import PaddedClouds
from pcequi.pose_graph.batched.near import near_pairs
from pcequi.pose_graph.batched.operator import space_planes

__all__ = ["grid_embedding", "pair_embedding"]


def grid_embedding(
    clouds: PaddedClouds, pos: Tensor, frame: Tensor, group: Tensor, radius: float, num_points: int
) -> Tensor:
    """``geometric_embedding`` of poses whose frames all points of a cloud share.

    Args:
        pos: points with poses [B, T, 3].
        frame: that of the first pose of each point [B, 3, 3].
        group: the frames are ``frame`` times this [K, 3, 3], on the CPU.
        radius, num_points: of the kernel.

    Returns:
        [B, T, K, basis].

    **Equivariance:** unchanged when cloud and poses move together.
    """
    points, slot = turned_points(group, num_points)
    planes, rest = (t.to(pos) for t in space_planes(points, kernel_points(num_points)[1]))
    source, target = ((p @ (frame / radius)).flatten(0, 1) for p in (clouds.pos, pos))

    def values(row, col):
        offset = source.index_select(0, col) - target.index_select(0, row)
        seen = torch.cat([offset, offset.square().sum(1, keepdim=True)], 1)
        return torch.addmm(rest, seen, planes.T).clamp_min_(0).square_()

    near = near_pairs(pos, clouds.pos, clouds.valid, radius)
    sums = near.sums(len(points), values)
    sums = sums.index_select(1, slot.flatten().to(pos.device)).view(*pos.shape[:2], *slot.shape)
    return sums / sums.sum(3, keepdim=True).clamp_min(torch.finfo(pos.dtype).tiny)


def pair_embedding(
    clouds: PaddedClouds,
    axes: Tensor,
    pos: Tensor,
    normal: Tensor,
    radius: float,
    pairs: tuple[int, int, int, int],
) -> Tensor:
    """``embedding.pair_embedding`` of points ``pos`` with ``normal`` [B, T, 3], seeing all
    points of the clouds with their normals ``axes`` [B, N, 3]: [B, T, 1, basis + 3].

    **Equivariance:** unchanged when cloud and normals move together, and when normals
    change their signs.
    """
    source, target = ((p / radius).flatten(0, 1) for p in (clouds.pos, pos))
    there, here = axes.flatten(0, 1), normal.flatten(0, 1)

    def values(row, col):
        offset = source.index_select(0, col) - target.index_select(0, row)
        m, n = there.index_select(0, col), here.index_select(0, row)
        numbers = (n * offset).sum(1), (m * offset).sum(1), (n * m).sum(1)
        return invariant_basis(offset.norm(dim=1), *numbers, pairs)

    basis, tiny = math.prod(pairs), torch.finfo(pos.dtype).tiny
    near = near_pairs(pos, clouds.pos, clouds.valid, radius)
    sums = near.sums(basis, values).view(*pos.shape[:2], basis)
    mass = sums.sum(2, keepdim=True)
    centre = clouds.mean()
    far = torch.where(clouds.valid[:, :, None], clouds.pos - centre, 0.0).norm(dim=2)
    offset = pos - centre
    place = [offset.norm(dim=2, keepdim=True), (offset * normal).sum(2, keepdim=True).abs()]
    place = torch.cat(place, 2) / far.amax(1).clamp_min(tiny)[:, None, None]
    share = (mass / clouds.num[:, None, None]).sqrt()
    return torch.cat([sums / mass.clamp_min(tiny), share, place], 2)[:, :, None]

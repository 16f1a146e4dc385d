"""Representatives of many clouds at once, by the rules of ``pcequi.sampling``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.pose_graph.batched.clusters import blend_centers, lloyd, nearest_center
from pcequi.pose_graph.batched.near import rows_at
from pcequi.pose_graph.batched.picks import farthest_orbits
from pcequi.sampling import FeatureSampler, sampling_key

__all__ = ["Chosen", "sample"]


@dataclass
class Chosen:
    """Representatives and what is shared of them.

    Attributes:
        index: pose of each representative [B, M], counted as point * K + rotation.
        weight: poses that each stands for [B, M].
        shares: how much of each representative a pose shares, one matrix [B, N, M] for
            each rotation of the N points; of orbits, for the first alone.

    **Equivariance:** indices and shares, see ``sampling.FeatureSampler``.
    """

    index: Tensor
    weight: Tensor
    shares: list[Tensor]


def sample(
    embedding: Tensor, sampler: FeatureSampler, seeds: int | None, products: Tensor
) -> Chosen:
    """Choose representatives by FPS.

    Args:
        embedding: [B, N, K, D]; with orbits the group permutes its entries.
        sampler: whose ``num`` is below N * K.
        seeds: FPS and Lloyd run on the first ``seeds`` points; None: on all.
        products: multiplication table of the frames' group [K, K].

    **Equivariance:** a function of the embeddings' distances and of a fixed key of them.
    """
    turns = embedding.shape[2]
    if sampler.orbits:
        turned = embedding
    else:  # each pose by itself
        turned, products = embedding.flatten(1, 2)[:, :, None], products[:1, :1]
        seeds = None if seeds is None else seeds * turns
    size = turned.shape[2]
    num = max(1, sampler.num // size)
    few = seeds is None or seeds < num
    pool = turned if few else turned[:, :seeds]
    key = sampling_key(pool.flatten(0, 2)).view(pool.shape[:3]).amax(2)
    index, assignment = farthest_orbits(pool, key, num)
    if sampler.refine:
        index = lloyd(pool, index, assignment, key, sampler.refine, products)
    center = rows_at(turned, index).flatten(1, 2)
    shared = share = None
    if sampler.blend > 1:
        _, shared, share = blend_centers(turned[:, :, 0], center, sampler.blend)
    elif sampler.refine or not few:
        shared = nearest_center(turned[:, :, 0], center)[..., None]
    else:
        shared = assignment[..., None]
    shares = _share_matrix(shared, share, index, size, center)
    # Over an orbit's poses each of its representatives stands for as much.
    weight = shares.sum(1).view(len(index), num, size).sum(2, keepdim=True).expand(-1, -1, size)
    poses = index[:, :, None] * size + torch.arange(size, device=index.device)
    shares = [shares] if sampler.orbits else shares.view(len(shares), -1, turns, num).unbind(2)
    return Chosen(poses.flatten(1), weight.flatten(1), list(shares))


def _share_matrix(shared, share, index, size, center) -> Tensor:
    """Shares of first rows [B, P, k] as a matrix [B, P, M]; a representative is its own."""
    clouds, rows = shared.shape[:2]
    matrix = center.new_zeros(clouds, rows, center.shape[1])
    share = center.new_ones(shared.shape) if share is None else share
    matrix.scatter_add_(2, shared, share)  # places that are not needed add zero
    own = torch.arange(index.shape[1], device=index.device) * size
    unit = center.new_zeros(clouds, index.shape[1], center.shape[1])
    unit.scatter_(2, own[None, :, None].expand(clouds, -1, 1), 1.0)
    return matrix.scatter(1, index[:, :, None].expand_as(unit), unit)

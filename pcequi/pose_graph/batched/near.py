"""Neighbours within a radius, for many clouds at once, and sums over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.ops.clusters import NOISE_SHARE

__all__ = ["CHUNK", "NearPairs", "local_moments", "near_pairs", "rows_at", "squared_distances"]

# Numbers in an array at once, half a gigabyte of them.
CHUNK = 2**26
# Error of a squared distance as a product, relative to the largest squared norm.
_SLACK = 1e-13


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """Rows of each cloud: ``x`` [B, N, ...] at ``index`` [B, ...] is [B, ..., ...].

    **Equivariance:** none involved.
    """
    first = torch.arange(len(x), device=x.device) * x.shape[1]
    flat = index + first.view(-1, *[1] * (index.dim() - 1))
    return x.flatten(0, 1).index_select(0, flat.flatten()).view(*index.shape, *x.shape[2:])


def squared_distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of rows of the same cloud, by a product.

    Args:
        a: [B, P, D]. b: [B, Q, D].

    Returns:
        [B, P, Q], to rounding of the largest squared norms, and the sum of these, each
        seen from the mean of ``b``, or what ``NOISE_SHARE`` leaves of those of ``a`` [B, 1, 1].

    **Equivariance:** unchanged by an isometry of both arguments.
    """
    norm = a.square().sum(2, keepdim=True).amax(1, keepdim=True)
    shift = b.mean(1, keepdim=True)  # centred first: the expanded square cancels less
    a, b = a - shift, b - shift
    first, second = (x.square().sum(2, keepdim=True) for x in (a, b))
    scale = first.amax(1, keepdim=True) + second.amax(1, keepdim=True)
    # The norms are columns of the product: adding them would read and write it once more.
    a = torch.cat([-2 * a, first, torch.ones_like(first)], 2)
    b = torch.cat([b, torch.ones_like(second), second], 2)
    return torch.bmm(a, b.mT), torch.maximum(scale, NOISE_SHARE * norm)


@dataclass
class NearPairs:
    """Pairs of queries and sources of the same cloud.

    Attributes:
        row: query of each pair, counted through the batch, sorted [E].
        col: source of each pair, counted through the batch [E].
        count: pairs of each query [B * T].
        per_cloud: pairs of each cloud.

    **Equivariance:** unchanged by rigid motion.
    """

    row: Tensor
    col: Tensor
    count: Tensor
    per_cloud: list[int]

    def sums(self, width: int, values: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Sums of ``values(row, col)`` [e, width] over the pairs of each query,
        [B * T, width]; in parts of whole clouds that bound the memory."""
        queries = len(self.count) // len(self.per_cloud)
        out, cloud, pair = [], 0, 0
        while cloud < len(self.per_cloud):
            last, end = cloud, pair
            while last < len(self.per_cloud):
                if last > cloud and (end - pair + self.per_cloud[last]) * width > CHUNK:
                    break
                end += self.per_cloud[last]
                last += 1
            part = values(self.row[pair:end], self.col[pair:end])
            count = self.count[cloud * queries : last * queries]
            # Pairs are sorted by query: sums in a fixed order, unlike index_add's on a GPU.
            out.append(torch.segment_reduce(part, "sum", lengths=count, unsafe=True, initial=0))
            cloud, pair = last, end
        return out[0] if len(out) == 1 else torch.cat(out)


def near_pairs(query: Tensor, source: Tensor, valid: Tensor, radius: float) -> NearPairs:
    """All pairs at most ``radius`` apart, and perhaps a few beyond it by rounding.

    Args:
        query: [B, T, 3]. source: [B, N, 3].
        valid: which sources there are [B, N].
        radius: in the units of the points. What is summed must vanish beyond it.

    **Equivariance:** unchanged by rigid motion.
    """
    size = query.shape[1] * source.shape[1]
    step = max(1, CHUNK // size)
    pairs, counts = [], []
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        square, scale = squared_distances(query[part], source[part])
        close = (square <= radius**2 + _SLACK * scale) & valid[part, None]
        found = close.flatten().nonzero()[:, 0]
        pairs.append(found + start * size if start else found)
        counts.append(close.sum(2))
    pairs, counts = torch.cat(pairs), torch.cat(counts)
    row = pairs // source.shape[1]
    col = row // query.shape[1] * source.shape[1] + pairs % source.shape[1]
    return NearPairs(row, col, counts.flatten(), counts.sum(1).tolist())


def local_moments(pos: Tensor, valid: Tensor, radius: float) -> Tensor:
    """``ops.local_moments`` of padded clouds [B, N, 3]: [B, N, 3, 3].

    **Equivariance:** C becomes R C R^T when a cloud is turned by R.
    """
    flat = pos.flatten(0, 1)

    def weighted(row, col):
        offset = flat.index_select(0, col) - flat.index_select(0, row)
        weight = (1 - offset.square().sum(1, keepdim=True) / radius**2).clamp_min(0).square()
        once = weight * offset
        twice = [once[:, i : i + 1] * offset[:, i:] for i in range(3)]
        return torch.cat([weight, once, *twice], 1)

    sums = near_pairs(pos, pos, valid, radius).sums(10, weighted)
    sums = sums / sums[:, :1].clamp_min(torch.finfo(sums.dtype).tiny)
    mean, square = sums[:, 1:4], sums[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].view(-1, 3, 3)
    return (square - mean[:, :, None] * mean[:, None, :]).view(*pos.shape, 3)

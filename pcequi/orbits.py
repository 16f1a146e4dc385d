"""Orbits: the poses of one point whose frames are one base frame times a finite group.

What a pose sees determines what the other poses of its point see, so a point
that stands for another in one frame stands for it in all: when pose (i, 1) is like
pose (s, G), pose (i, H) is like (s, G H). Sampled orbit by orbit, a cloud of N points
with K poses is searched at N rows instead of N * K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.constants import group_constant
from pcequi.embedding import turned_points

__all__ = ["Orbits", "basis_turns", "group_products"]


@group_constant
def group_products(group: Tensor) -> Tensor:
    """The multiplication table of a finite rotation group.

    Args:
        group: all its elements [K, 3, 3], the identity first.

    Returns:
        [K, K]: entry (k, l) is the number of ``group[k] @ group[l]``.

    **Equivariance:** a constant of the group.
    """
    # Row by row: all at once would take K times the memory of the table.
    every = group.flatten(1)
    return torch.stack([torch.cdist((one @ group).flatten(1), every).argmin(1) for one in group])


@group_constant
def basis_turns(group: Tensor, num_points: int) -> Tensor | None:
    """How a group permutes the functions of a kernel's points.

    Args:
        group: [K, 3, 3], the identity first.
        num_points: kernel points B, one of ``kernels.LAYOUTS``.

    Returns:
        [K, B]: function b seen from frame ``R @ group[k]`` is function ``[k, b]``
        seen from R; None where the kernel points are not closed under the group.

    **Equivariance:** a constant of the group and the kernel.
    """
    distinct, slot = turned_points(group, num_points)
    return slot[0].argsort()[slot] if len(distinct) == num_points else None


class Orbits:
    """What is sampled as one: the K poses of a point, or each pose by itself.

    Args:
        size: K; 1: each pose by itself.
        products: of the group of the K frames, see ``group_products``.
        closed: whether the group permutes the entries of an embedding. The distances
            of poses (i, H) and (s, G H) are then the same for all H; otherwise the mean of
            their squares over the group is what is searched by.

    **Equivariance:** acts on rows that are as invariant as the embedding.
    """

    def __init__(self, size: int = 1, products: Tensor | None = None, closed: bool = True):
        self.size, self.products, self.closed = size, products, closed

    def rows(self, x: Tensor) -> Tensor:
        """Embeddings of poses [P, D] as those of orbits [P / K, K, D'], D' being D or,
        where the group does not just permute them, K * D."""
        x = x.view(-1, self.size, x.shape[1])
        if self.size == 1 or self.closed:
            return x
        return x[:, self.products].flatten(2) / self.size**0.5

    @property
    def mixed(self) -> bool:
        """Whether the poses of an orbit may be at different distances from those of another."""
        return self.size > 1 and not self.closed

    def farthest(self, offset: Tensor) -> Tensor:
        """Of differences of ``rows`` [M, D'] the largest norm [M] of any pose of the orbit."""
        if not self.mixed:
            return offset.norm(dim=1)
        return offset.unflatten(1, (self.size, -1)).norm(dim=2).amax(1) * self.size**0.5

    def poses(self, index: Tensor) -> Tensor:
        """All poses [M * K] of some orbits [M]."""
        turn = torch.arange(self.size, device=index.device)
        return (index[:, None] * self.size + turn).flatten()

    def spread(self, code: Tensor) -> Tensor:
        """What all poses are given [P, ...], from what the first of each orbit is given
        [P / K, ...]: where that is pose s * K + k, pose l is given s * K + (number of
        G_k G_l)."""
        if self.size == 1:
            return code
        turn = code % self.size
        every = (code - turn)[..., None] + self.products[turn]
        return every.movedim(-1, 1).flatten(0, 1)

    def repeat(self, value: Tensor) -> Tensor:
        """What all poses of an orbit have in common, [P / K, ...] to [P, ...]."""
        return value if self.size == 1 else value.repeat_interleave(self.size, 0)

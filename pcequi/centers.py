"""What representatives stand for, where that is more than one pose.

Poses p get ``S f`` of the outputs f of the representatives, S being their shares. A layer is linear
before its norm, so what this loses is decided by the rows z = A x of the poses. With medoids a
representative has the row of one pose. The rows ``C`` from which all poses are had back with
the least error, ``|z - S C|^2``, are

    C = (S^T S)^-1 S^T z,

whatever the features x are. With the nearest alone these are the means of the clusters.

Where whole orbits of half turns are sampled, S is a convolution over their group: its Fourier
transform falls apart into a matrix for each character, with a K-th of the rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.ops import real_characters
from pcequi.sampling import Representatives

__all__ = ["LEAST", "center_rows", "center_weights"]

#: Weights, and entries of rows, up to this share of the largest beside them are left out where
#: poses share several representatives: they fall off quickly.
LEAST = 0.01


def center_rows(chosen: Representatives, rows: Tensor, products: Tensor | None = None) -> Tensor:
    """The rows of representatives from which those of all poses are had back with the least error.

    Args:
        chosen: of one cloud, of P poses.
        rows: of the poses [P, D].
        products: of the group of the frames [K, K], where orbits were sampled.

    Returns:
        [M, D]; where poses share the nearest alone, the means of the clusters.

    **Equivariance:** as the rows.
    """
    spread, factor, signs = _normal_equations(chosen, products)
    each = torch.einsum("ak,pkd->apd", signs, rows.to(spread).unflatten(0, (-1, len(signs))))
    each = torch.cholesky_solve(spread.mT @ each, factor) / len(signs)
    return torch.einsum("ak,amd->mkd", signs, each).flatten(0, 1).to(rows)


def center_weights(
    chosen: Representatives, products: Tensor | None = None, first: bool = False
) -> Tensor:
    """How much of the row of each pose is in the row of each representative.

    Args:
        chosen: of one cloud, of P poses.
        products: of the group of the frames [K, K], where orbits were sampled.
        first: of the first pose of each orbit alone.

    Returns:
        [M, P], or [M / K, P]; where poses share several representatives, without the smallest.

    **Equivariance:** unchanged when the shares are; poses of an orbit have each other's weights,
    turned.
    """
    spread, factor, signs = _normal_equations(chosen, products)
    weight = torch.cholesky_solve(spread.mT, factor) / len(signs)
    weight = torch.einsum("ak,amp->mpk", signs, weight)  # of the first pose of each orbit
    if chosen.shared.shape[1] > 1:
        size = weight.abs()
        weight = weight.masked_fill(size <= LEAST * size.amax((1, 2), keepdim=True), 0)
    if len(signs) > 1 and not first:
        weight = weight[:, :, products].movedim(2, 1)
    elif len(signs) == 1 and first and products is not None:
        weight = weight[:: len(products)]
    return weight.reshape(-1, len(chosen.shared))


def _normal_equations(chosen: Representatives, products: Tensor | None):
    """For each character: S [K, P / K, M / K] and the Cholesky factor of S^T S; the characters
    [K, K]. K is 1 where poses are sampled one by one or characters are not real."""
    shared, share = chosen.shared, chosen.share.double()
    signs = None if products is None else real_characters(products)
    signs = share.new_ones(1, 1) if signs is None else signs.to(share)
    size = len(signs)
    shared, share = shared[::size], share[::size]
    spread = share.new_zeros(len(share), chosen.num).scatter_add_(1, shared, share)
    spread = torch.einsum("ak,pmk->apm", signs, spread.view(len(share), -1, size))
    gram = spread.mT @ spread
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += (diagonal == 0).to(gram)  # what stands for nothing
    return spread, torch.linalg.cholesky(gram), signs

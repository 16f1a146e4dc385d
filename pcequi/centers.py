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

from pcequi.ops import HAS_NUMBA, faded, real_characters
from pcequi.ops.backends import is_plain
from pcequi.sampling import Representatives

__all__ = ["LEAST", "center_rows", "center_weights", "fitted_rows", "fitted_weights"]

#: Weights, and entries of rows, up to this share of the largest beside them are left out, and up
#: to a quarter more they fade: they fall off quickly.
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
    if chosen.shared.shape[1] == 1:
        total = rows.new_zeros(chosen.num, rows.shape[1]).index_add_(0, chosen.assignment, rows)
        return total / chosen.multiplicity.clamp_min(1).to(rows)[:, None]
    shared, share, signs = _first_shares(chosen, products)
    every = rows.to(share).unflatten(0, (-1, len(signs)))
    if _compiled(share, every):
        from pcequi.ops.compiled import centers

        arrays = [part.contiguous().numpy() for part in (shared, share, signs, every.detach())]
        found = torch.from_numpy(centers.fitted_rows(*arrays, chosen.num // len(signs)))
    else:
        found = fitted_rows(_matrix(shared, share, chosen.num), every, signs)
    return found.to(rows)


def center_weights(
    chosen: Representatives, products: Tensor | None = None, first: bool = False
) -> Tensor:
    """How much of the row of each pose is in the row of each representative, where poses share
    several. It takes P M^2 operations, a K-th with orbits of half turns.

    Args:
        chosen: of one cloud, of P poses.
        products: of the group of the frames [K, K], where orbits were sampled.
        first: of the first pose of each orbit alone.

    Returns:
        [M, P], or [M / K, P], the small ones ``faded``.

    **Equivariance:** unchanged when the shares are; poses of an orbit have each other's weights,
    turned.
    """
    shared, share, signs = _first_shares(chosen, products)
    if _compiled(share):
        from pcequi.ops.compiled import centers

        arrays = [part.contiguous().numpy() for part in (shared, share, signs)]
        weight = centers.fitted_weights(*arrays, chosen.num // len(signs), LEAST)
        weight = torch.from_numpy(weight)
    else:
        weight = fitted_weights(_matrix(shared, share, chosen.num), signs, LEAST)
    if len(signs) > 1 and not first:
        weight = weight[:, :, products].movedim(2, 1)
    elif len(signs) == 1 and first and products is not None:
        weight = weight[:: len(products)]
    return weight.reshape(-1, len(chosen.shared))


def _first_shares(
    chosen: Representatives, products: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the first pose of each point shares of which [P / K, k], and the characters [K, K] of
    the group. K is 1 where poses are sampled one by one or characters are not real."""
    signs = None if products is None else real_characters(products)
    signs = torch.ones(1, 1, device=chosen.share.device) if signs is None else signs
    shared, share = chosen.shared[:: len(signs)], chosen.share[:: len(signs)].double()
    return shared, share, signs.to(share)


def _matrix(shared: Tensor, share: Tensor, num: int) -> Tensor:
    """Shares of some poses [N, k] as a matrix [N, M]."""
    return share.new_zeros(len(share), num).scatter_add_(1, shared, share)


def _compiled(*given: Tensor) -> bool:
    """Whether the kernels for CPUs do it."""
    return HAS_NUMBA and given[0].device.type == "cpu" and is_plain(*given)


def fitted_rows(share: Tensor, rows: Tensor, signs: Tensor) -> Tensor:
    """``center_rows`` of one cloud or several [..., M, D], from what the first pose of each of N
    points shares [..., N, M], the rows of all their poses [..., N, K, D] and characters [K, K].

    **Equivariance:** as the rows.
    """
    spread, factor = _normal_equations(share, signs)
    each = torch.einsum("ak,...nkd->...and", signs, rows)
    each = torch.cholesky_solve(spread.mT @ each, factor) / len(signs)
    return torch.einsum("ak,...amd->...mkd", signs, each).flatten(-3, -2)


def fitted_weights(share: Tensor, signs: Tensor, least: float) -> Tensor:
    """``center_weights`` of the first pose of each orbit, [..., M / K, N, K], from what
    ``fitted_rows`` takes, the small ones ``faded``.

    **Equivariance:** unchanged when the shares are.
    """
    spread, factor = _normal_equations(share, signs)
    weight = torch.cholesky_solve(spread.mT, factor) / len(signs)
    weight = torch.einsum("ak,...amn->...mnk", signs, weight)
    return faded(weight, least, (-2, -1))


def _normal_equations(share: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """For each character S [..., K, N, M / K] and the Cholesky factor of S^T S."""
    spread = share.unflatten(-1, (-1, len(signs)))
    spread = torch.einsum("ak,...nmk->...anm", signs, spread)
    gram = spread.mT @ spread
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += (diagonal == 0).to(gram)  # what stands for nothing
    return spread, torch.linalg.cholesky(gram)

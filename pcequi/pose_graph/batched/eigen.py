"""Eigenvectors, polar parts and small turns of many 3 x 3 matrices, by elementwise operations.

Library routines for many tiny matrices wait for the device, or treat them one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eigen", "polar", "small_turn"]

# Of Jacobi's and Newton's iterations, one more each than matrices of condition 1e6 needed.
_SWEEPS = 5
_STEPS = 8


def eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [..., 3], least first, and eigenvectors, as columns, of [..., 3, 3].

    By Jacobi's rotations, which keep small differences of eigenvalues to rounding.

    Source: Golub and Van Loan, "Matrix Computations", section 8.5.

    **Equivariance:** eigenvectors turn with the matrix, up to their signs.
    """
    shape = matrices.shape[:-2]
    flat = matrices.reshape(-1, 9).T.contiguous()
    value = [flat[0], flat[4], flat[8]]
    mixed = [flat[5], flat[2], flat[1]]  # that of the two other axes
    axes = list(
        torch.eye(3, dtype=flat.dtype, device=flat.device)[:, :, None].expand(3, 3, flat.shape[1])
    )
    for _ in range(_SWEEPS):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            _rotate(value, mixed, axes, p, q)
    value, order = torch.stack(value, 1).sort(dim=1, stable=True)
    axes = torch.stack(axes).permute(2, 1, 0).gather(2, order[:, None].expand(-1, 3, -1))
    return value.view(*shape, 3), axes.view(*shape, 3, 3)


def _rotate(value: list[Tensor], mixed: list[Tensor], axes: list[Tensor], p: int, q: int):
    """Turn axes p and q so that nothing mixes them, in place of the lists' entries."""
    r = 3 - p - q
    apart, twice = value[q] - value[p], 2 * mixed[r]
    below = apart + torch.hypot(apart, twice).copysign_(apart)
    t = twice / below.masked_fill_(below == 0, 1)
    c = torch.addcmul(torch.ones_like(t[:1]), t, t).rsqrt_()
    s = t * c
    change = t * mixed[r]
    value[p], value[q] = value[p] - change, value[q] + change
    mixed[r] = torch.zeros_like(change[:1])
    for columns, first, second in ((mixed, q, p), (axes, p, q)):
        one, two = columns[first], columns[second]
        columns[first] = torch.addcmul(c * one, s, two, value=-1)
        columns[second] = torch.addcmul(c * two, s, one)


def polar(matrices: Tensor) -> Tensor:
    """The orthogonal matrix nearest to each of [..., 3, 3]; singular ones are left.

    Source: Newton's iteration with scaling: Higham, "Computing the polar
    decomposition - with applications", 1986.

    **Equivariance:** turns with the matrix, on either side.
    """
    for _ in range(_STEPS):
        other = torch.linalg.cross(matrices.roll(-1, -2), matrices.roll(-2, -2), dim=-1)
        det = (matrices[..., :1, :] * other[..., :1, :]).sum(-1, keepdim=True)
        singular = det == 0
        det = det.masked_fill_(singular, 1)
        here = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
        there = torch.linalg.vector_norm(other, dim=(-2, -1), keepdim=True)
        scale = (there / (here * det).abs_()).sqrt_()
        step = torch.addcdiv(scale * matrices, other, scale * det) / 2
        matrices = torch.where(singular, matrices, step)
    return matrices


def small_turn(w: Tensor) -> Tensor:
    """exp of the cross product with ``w`` [..., 3], at most 0.1 long: [..., 3, 3].

    **Equivariance:** turns with ``w``.
    """
    square = w.square().sum(-1)[..., None, None]
    sine = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    cosine = (1 - square / 12 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90)))) / 2
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    cross = torch.linalg.cross(eye.expand(*w.shape[:-1], 3, 3), w[..., None, :], dim=-1)
    # Rows e_i x w: the transposed cross product with -w, that is the one with w.
    return eye + sine * cross + cosine * (cross @ cross)

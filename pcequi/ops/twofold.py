"""The sparse product and the dense one together, both taken apart by characters.

Where the rows of all poses of a point follow from those of its first pose, A x is a convolution
over the half turns of their frames, which ``ops.dense`` multiplies character by character. What
comes out has B functions of C channels for each pose, and transforming it back to poses moves all
of it once more, before weights make a few channels of it. The half turns permute the functions of
the kernel, so rows of A can be taken apart by the same characters: for each orbit of functions
and each character psi that belongs to it, the sum with signs over the orbit. With the weights so
taken apart as well, what character omega has of the output is

    out[omega] = sum over (orbit, psi) of y[chi = omega psi][orbit, psi] W[orbit, psi],

y being the product of A and the features, as many multiplications as before. Only the output is
transformed back.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcequi.ops.backends import HAS_NUMBA, in_fork, parallel_kernel
from pcequi.ops.dense import Characters

__all__ = ["twofold_product"]


def twofold_product(
    x: Tensor,
    blocks: Tensor,
    characters: Characters,
    weight: Tensor,
    *,
    constant: bool = False,
) -> Tensor:
    """The group convolution of dense blocks whose rows are taken apart too.

    Args:
        x: features [G * S, C], float32 or float64; differentiable.
        blocks: [G, K, R, S / K], as ``dense_blocks`` makes them with ``characters.both``, of the
            dtype of ``x``.
        characters: of the poses of each point, and of the functions.
        weight: of each function and channel [B * (C + constant), C_out]; differentiable.
        constant: a last channel of ones is there for the weights, which ``x`` leaves out.

    Returns:
        [G * R * K / B, C_out], rows (cloud, point, pose).

    **Equivariance:** as the group convolution.
    """
    functions, size = characters.functions, characters.size
    basis, channels = len(functions.matrix), x.shape[1]
    weight = functions.weights.to(weight) @ weight.reshape(basis, -1)
    weight = weight.view(basis, channels + constant, -1)
    last = weight[:, channels] if constant else None
    weight = weight[:, :channels].reshape(basis * channels, -1)
    # Ones are the same in all poses, so that the first character alone sees them, K times each.
    sums = size * blocks[:, 0].sum(2).view(-1, basis) if constant else None
    rest = blocks, sums, characters.signs, functions.sizes
    x = x.reshape(-1, size, channels)
    mapped = torch._C._functorch.maybe_current_level() is not None
    plain = mapped or torch.compiler.is_compiling() or blocks.requires_grad
    plain = plain or any(map(_watched, (x, weight)))
    out = (_plain if plain else _Twofold.apply)(x, weight, last, *rest)
    return out.reshape(-1, weight.shape[1])


def _watched(x: Tensor) -> bool:
    """Whether forward-mode differentiation looks through a tensor."""
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None


class _Twofold(torch.autograd.Function):
    """x [G * S / K, K, C], weights [B * C, C_out] and of the ones [B, C_out] to the output
    [points, K, C_out]."""

    @staticmethod
    def forward(ctx, x, weight, last, blocks, sums, signs, sizes):
        clouds, size, rows, seen = blocks.shape
        basis, channels = sum(sizes), x.shape[2]
        points = clouds * rows // basis
        given = _forth(x, signs).view(size, clouds, seen, channels)
        # Kept for the gradient of the weights; otherwise one character's at a time.
        kept = size if ctx.needs_input_grad[1] else 1
        y = x.new_empty(kept, points, basis * channels)
        out = x.new_empty(size, points, weight.shape[1])
        parts = _parts(sizes)
        for omega in range(size):
            if last is None:
                out[omega].zero_()
            else:
                torch.mm(sums[:, parts[omega]], last[parts[omega]], out=out[omega])
        columns = _parts(sizes, channels)
        for chi in range(size):
            own = y[chi % kept]
            torch.bmm(blocks[:, chi], given[chi], out=own.view(clouds, rows, channels))
            for psi, part in enumerate(columns):
                out[chi ^ psi].addmm_(own[:, part], weight[part])
        y, others = (y if kept == size else None), (x, blocks, sums)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(weight, last, y, *others)
        else:  # they may come from inference mode, whose tensors cannot be saved
            ctx.save_for_backward(weight, last, y)
            ctx.others = others
        ctx.signs, ctx.sizes = signs, sizes
        return _back(out, signs)

    @staticmethod
    def backward(ctx, grad):
        weight, last, y, *others = ctx.saved_tensors
        x, blocks, sums = others or ctx.others
        signs, sizes, needed = ctx.signs, ctx.sizes, ctx.needs_input_grad
        if torch.is_grad_enabled() or _watched(grad):  # the gradient is to have one itself
            with torch.enable_grad():
                out = _plain(x, weight, last, blocks, sums, signs, sizes)
                inputs = [t for t, n in zip((x, weight, last), needed) if n]
                found = iter(torch.autograd.grad(out, inputs, grad, create_graph=True))
            return *(next(found) if n else None for n in needed[:3]), *[None] * 4
        with torch.autocast("cpu", enabled=False):
            found = _gradients(grad, x, weight, last, blocks, sums, y, signs, sizes, needed)
        return *found, *[None] * 4


def _gradients(grad, x, weight, last, blocks, sums, y, signs, sizes, needed):
    """Of x, of the weights and of those of the ones; None of what needs none."""
    clouds, size, rows, seen = blocks.shape
    channels = x.shape[2]
    grad = _forth(grad, signs, 1 / size)
    grad_x = grad_weight = grad_last = None
    if last is not None and needed[2]:
        grad_last = torch.empty_like(last)
        for omega, part in enumerate(_parts(sizes)):
            torch.mm(sums[:, part].t(), grad[omega], out=grad_last[part])
    columns = _parts(sizes, channels)
    if needed[1]:
        grad_weight = torch.zeros_like(weight)
        for chi in range(size):
            for psi, part in enumerate(columns):
                grad_weight[part].addmm_(y[chi][:, part].t(), grad[chi ^ psi])
    if needed[0]:
        grad_x = x.new_empty(size, clouds, seen, channels)
        own = x.new_empty(grad.shape[1], sum(sizes) * channels)
        for chi in range(size):
            for psi, part in enumerate(columns):
                torch.mm(grad[chi ^ psi], weight[part].t(), out=own[:, part])
            of = own.view(clouds, rows, channels)
            torch.bmm(blocks[:, chi].transpose(1, 2), of, out=grad_x[chi])
        grad_x = _back(grad_x.view(size, -1, channels), signs, 1.0)
    return grad_x, grad_weight, grad_last


def _plain(x, weight, last, blocks, sums, signs, sizes) -> Tensor:
    """The same by operations that torch differentiates, maps over and traces."""
    clouds, size, rows, seen = blocks.shape
    channels, signs = x.shape[2], signs.to(x.dtype)
    given = torch.einsum("ak,nkc->nac", signs, x).view(clouds, seen, size, channels)
    y = (blocks @ given.transpose(1, 2)).view(clouds, size, -1, sum(sizes) * channels)
    y = y.transpose(0, 1).flatten(1, 2).split([channels * part for part in sizes], 2)
    weights = weight.split([channels * part for part in sizes])
    out = []
    for omega in range(size):
        terms = [y[psi][omega ^ psi] @ weights[psi] for psi in range(size)]
        if last is not None:
            part = _parts(sizes)[omega]
            terms.append(sums[:, part] @ last[part])
        out.append(sum(terms))
    return torch.einsum("ak,anc->nkc", signs / size, torch.stack(out))


def _parts(sizes, channels: int = 1) -> list[slice]:
    """Where the functions of each character are, or their channels."""
    ends = np.cumsum([0, *sizes]) * channels
    return [slice(int(a), int(b)) for a, b in zip(ends, ends[1:])]


def _forth(x: Tensor, signs: Tensor, scale: float = 1.0) -> Tensor:
    """x [N, K, C] of poses to characters [K, N, C]."""
    return _turned(x, signs, scale, "to_characters", "ak,nkc->anc")


def _back(x: Tensor, signs: Tensor, scale: float | None = None) -> Tensor:
    """x [K, N, C] of characters to poses [N, K, C]; by default a K-th of the sums, which undoes
    ``_forth``."""
    return _turned(x, signs, 1 / len(x) if scale is None else scale, "to_poses", "ak,anc->nkc")


def _turned(x: Tensor, signs: Tensor, scale: float, kernel: str, sums: str) -> Tensor:
    """Sums with signs, the first two dimensions exchanged: by a kernel, or as einsum says it."""
    if not HAS_NUMBA or x.dtype != torch.float32 or x.device.type != "cpu" or in_fork():
        return torch.einsum(sums, signs.to(x.dtype) * scale, x)
    from pcequi.ops.compiled import dense

    out = x.new_empty(x.shape[1], x.shape[0], x.shape[2])
    with parallel_kernel():
        getattr(dense, kernel)(x.detach().contiguous().numpy(), out.numpy(), np.float32(scale))
    return out

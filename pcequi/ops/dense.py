"""The sparse product as batched dense ones, where matrix units make zeros cheap.

On a GPU, and on CPUs, a product with blocks that are a sixth to a quarter full costs less than
gathering the entries that are not zero.

Where the rows of all poses of a point follow from those of its first pose (``turned_rows``),
A is a convolution over the group of their frames. If the group consists of half turns, its
characters are real and its Fourier transform is a sum with signs: it takes A apart into one
block for each character, which has a K-th of the columns. So K poses cost what one did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pcequi.constants import group_constant
from pcequi.errors import ArgumentError
from pcequi.ops.backends import HAS_NUMBA, has_triton, in_fork, parallel_kernel
from pcequi.short_repr import short_repr

__all__ = [
    "Characters",
    "FunctionCharacters",
    "dense_blocks",
    "function_characters",
    "grouped_bmm",
    "put_together",
    "real_characters",
    "with_ones",
]

_COMPILED = (torch.float32, torch.bfloat16)
_NO_ORBITS = torch.zeros(2, 0, 4, dtype=torch.long)
_ON_GPU = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, repr=False)
class FunctionCharacters:
    """The functions of a kernel, taken apart by the characters of the half turns that permute them.

    Attributes:
        matrix: of each orbit of functions, and each character that is 1 on what leaves its
            functions in place, the sum with signs [B, B]; rows in the order of the characters.
        weights: its inverse, transposed [B, B]: takes weights apart, so that products stay.
        sizes: how many rows are of each character.
        orbits: the functions of each orbit, and their rows [2, orbits, 4]; -1 where there are
            fewer than four.

    **Equivariance:** constants of the settings.
    """

    matrix: Tensor
    weights: Tensor
    sizes: tuple[int, ...]
    orbits: Tensor

    __repr__ = short_repr


@group_constant
def function_characters(turns: Tensor) -> FunctionCharacters:
    """How functions that half turns permute as ``turns`` [K, B] says are taken apart.

    **Equivariance:** a constant of the settings.
    """
    with torch.device("cpu"):
        turns = turns.cpu()
        number = torch.arange(len(turns))
        signs, basis = _signs(number).double(), torch.arange(turns.shape[1])
        first = turns.amin(0) == basis  # one function of each orbit
        parts = []
        for sign in signs:
            still = (turns == basis) & first
            own = (first & (sign[:, None] * still == still).all(0)).nonzero()[:, 0]
            rows = torch.zeros(len(own), len(basis), dtype=torch.float64)
            for k, value in enumerate(sign):
                rows[torch.arange(len(own)), turns[k, own]] = value
            parts.append(rows)
        matrix = torch.cat(parts)
        weights = matrix / matrix.square().sum(1, keepdim=True)  # rows are orthogonal
        orbits = torch.full((2, int(first.sum()), 4), -1)
        for orbit, function in zip(orbits.unbind(1), first.nonzero()[:, 0].tolist(), strict=True):
            members = list(dict.fromkeys(turns[:, function].tolist()))
            orbit[0, : len(members)] = torch.tensor(members)
            orbit[1, : len(members)] = matrix[:, function].nonzero()[:, 0]
        return FunctionCharacters(matrix.float(), weights.float(), tuple(map(len, parts)), orbits)


@dataclass(frozen=True, repr=False)
class Characters:
    """The characters of a group of half turns, and how it permutes the functions of a kernel.

    Attributes:
        signs: character a of element k, 1 or -1 [K, K]; K is 2 or 4.
        turns: function that stands for function b of pose k among those of the first
            pose, see ``turned_rows`` [K, B].
        both: whether the functions of a row are taken apart as well as the poses of a column.

    **Equivariance:** constants of the settings.
    """

    signs: Tensor
    turns: Tensor
    both: bool = False

    __repr__ = short_repr

    def __post_init__(self):
        if len(self.signs) not in (2, 4) or len(self.turns) != len(self.signs):
            raise ArgumentError(
                f"`signs` (={list(self.signs.shape)}) must be of 2 or 4 elements, and `turns` "
                f"(={list(self.turns.shape)}) of as many poses; make them by `Characters.of`"
            )
        object.__setattr__(self, "_inverse", self.turns.argsort(1))
        # Not when it is asked for, which may be while a network is traced.
        found = function_characters(self.turns) if self.both else None
        object.__setattr__(self, "_functions", found)

    @property
    def inverse(self) -> Tensor:
        """Place of each function of the first pose among those of pose k [K, B]."""
        return self._inverse

    @property
    def size(self) -> int:
        """K."""
        return len(self.signs)

    @property
    def functions(self) -> FunctionCharacters:
        """By which functions are taken apart where ``both`` are."""
        return self._functions if self.both else function_characters(self.turns)

    @property
    def twofold(self) -> Characters:
        """The same for poses and functions."""
        return replace(self, both=True)

    @classmethod
    def of(cls, turns: Tensor, products: Tensor) -> Characters | None:
        """From what ``turned_rows`` takes: ``turns`` [K, B] and ``products`` [K, K]; None where
        an element is not its own inverse, so that characters are not real."""
        signs = real_characters(products)
        return None if signs is None else cls(signs.float(), turns)

    def to(self, *args, **kwargs) -> Characters:
        """The same on another device, as ``Tensor.to``."""
        moved = Characters(self.signs.to(*args, **kwargs), self.turns.to(*args, **kwargs))
        object.__setattr__(moved, "both", self.both)
        object.__setattr__(moved, "_functions", getattr(self, "_functions", None))
        return moved


@group_constant
def real_characters(products: Tensor) -> Tensor | None:
    """The characters of a group of half turns, 1 or -1 [K, K]: character a of element k.

    Args:
        products: multiplication table [K, K], the identity first.

    Returns:
        None where an element is not its own inverse, so that characters are not real.

    **Equivariance:** a constant of the group.
    """
    # With the identity first the product of elements i and j of such a group is i xor j.
    number = torch.arange(len(products), device=products.device)
    if len(products) not in (2, 4) or (products != number[:, None] ^ number).any():
        return None
    return _signs(number)


def _signs(number: Tensor) -> Tensor:
    """Character a of element k [K, K] of a group of half turns, whose numbers are 0 to K - 1."""
    both = number[:, None] & number
    return 1 - 2 * ((both ^ (both >> 1)) & 1)


class _Fourier(torch.autograd.Function):
    """The transform over the poses of each point, or back, which is its transpose.

    Forth: x [G, P, K, B, C] (point, pose, function) to [G, K, P, B, C] (character, point,
    function of the first pose); the last ``spare`` channels are left out. Back they are
    appended: ``last`` [G, P, B] of each function of the first pose, or zeros.
    """

    @staticmethod
    def forward(x, signs, inverse, back, scale, spare, last):
        if x.is_cuda and x.dtype in _ON_GPU and has_triton():
            from pcequi.ops.compiled.gpu_fourier import fourier

            return fourier(x, inverse, back, scale, spare, last)
        compiled = HAS_NUMBA and x.device.type == "cpu" and x.dtype in _COMPILED
        if compiled and not in_fork():
            return _compiled(x, inverse, back, scale, spare, last)
        return _transformed(x, signs, inverse, back, scale, spare, last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, *constants, ctx.back, ctx.scale, ctx.spare, _ = inputs
        ctx.save_for_backward(*constants)
        ctx.save_for_forward(*constants)

    @staticmethod
    def backward(ctx, grad):
        rest = (not ctx.back, ctx.scale, ctx.spare, None)
        return _Fourier.apply(grad, *ctx.saved_tensors, *rest), *[None] * 6

    @staticmethod
    def jvp(ctx, tangent, *_):
        rest = (ctx.back, ctx.scale, ctx.spare, None)
        return _Fourier.apply(tangent, *ctx.saved_tensors, *rest)

    @staticmethod
    def vmap(info, in_dims, x, signs, inverse, back, scale, spare, last):
        """Many features of the same poses are more clouds."""

        def clouds(value: Tensor | None, dim: int | None) -> Tensor | None:
            if value is None:
                return None
            if dim is None:
                return value.repeat(info.batch_size, *[1] * (value.dim() - 1))
            return value.movedim(dim, 0).flatten(0, 1)

        x, last = clouds(x, in_dims[0]), clouds(last, in_dims[6])
        out = _Fourier.apply(x, signs, inverse, back, scale, spare, last)
        return out.unflatten(0, (info.batch_size, -1)), 0


def _fourier(x: Tensor, *rest) -> Tensor:
    # Traced (torch.compile, torch.export): plain operations, which have gradients themselves.
    return (_transformed if torch.compiler.is_compiling() else _Fourier.apply)(x, *rest)


def _transformed(x, signs, inverse, back, scale, spare, last) -> Tensor:
    signs, (size, basis) = signs.to(x.dtype) * scale, inverse.shape
    shift = torch.arange(size, device=x.device)[:, None] * basis
    if back:
        x = torch.einsum("ak,gapbc->gpkbc", signs, x)
        if spare:
            one = x.new_zeros(1) if last is None else last.to(x.dtype)[:, :, None, :, None]
            x = torch.cat([x, one.expand(*x.shape[:4], spare)], 4)
        index = (inverse.argsort(1) + shift).flatten()
    else:
        x = x[..., : x.shape[4] - spare]
        index = (inverse + shift).flatten()
    x = x.flatten(2, 3).index_select(2, index).unflatten(2, (size, basis))
    return x if back else torch.einsum("ak,gpkbc->gapbc", signs, x)


def _compiled(x: Tensor, inverse: Tensor, back: bool, scale: float, spare: int, last) -> Tensor:
    from pcequi.ops.compiled import dense

    clouds, first, second, basis, channels = x.shape
    x, inverse, scale = x.detach().contiguous(), inverse.numpy(), np.float32(scale)
    if not back:
        out = x.new_empty(clouds, second, first, basis, channels - spare)
        with parallel_kernel():
            dense.fourier(_array(x), _array(out.flatten(3)), inverse, scale)
        return out
    out = x.new_empty(clouds, second, first, basis, channels + spare)
    last = x.new_zeros(clouds, second, basis) if last is None else last.to(x.dtype).contiguous()
    with parallel_kernel():
        dense.fourier_back(_array(x.flatten(3)), _array(out), inverse, scale, spare, _array(last))
    return out


def _array(x: Tensor):
    """As NumPy sees it: the bits of bfloat16."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def dense_blocks(
    entries: Tensor,
    col: Tensor,
    val: Tensor,
    clouds: int,
    columns: int,
    dtype: torch.dtype,
    characters: Characters | None = None,
) -> Tensor:
    """Rows of a batch of clouds with equally many rows and columns each, as dense blocks.

    Args:
        entries: entries of each row [G * R].
        col: column of each entry, counted within its cloud [nnz]; none twice in a row.
        val: value of each entry [nnz].
        clouds: G.
        columns: S.
        dtype: of the result.
        characters: transform the columns (point, pose) of rows of first poses; where they say
            so, the functions of each point as well.

    Returns:
        [G, R, S]; with ``characters`` [G, K, R, S / K].

    **Equivariance:** none involved; the matrix stays the same.
    """
    rows = len(entries) // clouds
    if HAS_NUMBA and dtype in _COMPILED and col.device.type == "cpu":
        from pcequi.ops.compiled import dense

        arrays = [t.contiguous().numpy() for t in (entries, col, val.float())]
        if characters is not None:
            size = characters.size
            out = val.new_empty(clouds, size, rows, columns // size, dtype=dtype)
            orbits = characters.functions.orbits if characters.both else _NO_ORBITS
            basis, (members, places) = characters.turns.shape[1], orbits.numpy()
            dense.fill_characters(*arrays, _array(out), basis, members, places)
            return out
        out = val.new_zeros(len(entries) * columns, dtype=dtype)
        dense.fill(*arrays, _array(out), columns)
        return out.view(clouds, rows, columns)
    row = torch.repeat_interleave(
        torch.arange(len(entries), device=col.device), entries.long(), output_size=len(col)
    )
    wide = dtype if characters is None else torch.promote_types(dtype, torch.float32)
    out = torch.zeros(len(entries) * columns, dtype=wide, device=col.device)
    out[row * columns + col.long()] = val.to(wide)
    out = out.view(clouds, rows, columns)
    if characters is None:
        return out
    out = out.unflatten(2, (-1, characters.size))
    out = torch.einsum("ak,grtk->gart", characters.signs.to(out), out)
    if characters.both:
        matrix = characters.functions.matrix.to(out)
        apart = out.unflatten(2, (-1, len(matrix)))
        out = torch.einsum("ab,gkpbs->gkpas", matrix, apart).flatten(2, 3)
    return out.to(dtype)


def grouped_bmm(
    x: Tensor, blocks: Tensor, characters: Characters | None = None, *, constant: int = 0
) -> Tensor:
    """Product of a block-diagonal matrix with features, as ``grouped_spmm``.

    Args:
        x: features [G * S, C]; differentiable.
        blocks: [G, R, S]; with ``characters`` [G, K, R, S / K], of the rows (point, function)
            of the first pose of each point and columns (point, pose), see ``dense_blocks``.
        characters: of the group of the poses of a point. Where functions are taken apart as
            well they are put together first; ``ops.twofold_product`` need not.
        constant: channels of ones to append to ``x``, whose product are the sums of the rows.

    Returns:
        [G * R, C] in the dtype of ``x``; with ``characters`` [G * K * R, C], rows (point, pose,
        function). C + ``constant`` channels.

    **Equivariance:** linear in ``x``; as invariant as the blocks are.
    """
    clouds, blocks = len(blocks), blocks.to(x.dtype)
    if characters is None:
        x = with_ones(x, constant) if constant else x
        return torch.bmm(blocks, x.view(clouds, -1, x.shape[1])).view(-1, x.shape[1])
    signs, inverse = characters.signs, characters.inverse
    (size, basis), channels = inverse.shape, x.shape[1]
    blocks = put_together(blocks, characters)
    sums = blocks[:, 0].sum(2).view(clouds, -1, basis) if constant else None
    x = x.reshape(clouds, -1, size, 1, channels)
    x = _fourier(x, signs, inverse.new_zeros(size, 1), False, 1.0, 0, None)
    # Without the ones, whose odd number of channels costs a fifth of the product's time.
    z = torch.bmm(blocks.flatten(0, 1), x.reshape(clouds * size, -1, channels))
    z = z.view(clouds, size, -1, basis, channels)
    z = _fourier(z, signs, inverse, True, 1 / size, int(constant), sums)
    return z.reshape(-1, channels + constant)


def put_together(blocks: Tensor, characters: Characters | None) -> Tensor:
    """Blocks [G, K, R, S / K] with their functions as they were before they were taken apart,
    where they are.

    **Equivariance:** none involved; the matrix stays the same.
    """
    if characters is None or not characters.both:
        return blocks
    back = characters.functions.weights.to(blocks)
    rows = blocks.unflatten(2, (-1, len(back)))
    return torch.einsum("ab,gkpas->gkpbs", back, rows).flatten(2, 3)


def with_ones(x: Tensor, channels: int = 1) -> Tensor:
    """Features [S, C] with so many channels of ones [S, C + channels].

    **Equivariance:** as ``x``.
    """
    return torch.cat([x, x.new_ones(x.shape[0], channels)], 1)

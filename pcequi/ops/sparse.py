"""Sparse products over a batch of clouds, the heart of the compressed layer.

A batch of block-diagonal matrices is stored as one CSR matrix whose column
numbers are *local* to the cloud, so that clouds are batched by concatenation
alone and columns fit in 16 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, ShapeError
from pcequi.ops.backends import HAS_NUMBA, in_fork, is_plain, parallel_kernel, wants_gradient
from pcequi.ops.fading import faded

_OUTSIDE = (
    "`col` has entries outside the columns of their cloud; the graph is damaged, or its levels "
    "belong to different graphs"
)


def grouped_spmm(
    x: Tensor, ptr: Tensor, col: Tensor, val: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Product of a block-diagonal sparse matrix with features.

    Args:
        x: features [S, C]; differentiable.
        ptr: row pointer [R + 1] into ``col`` and ``val``.
        col: column of each entry, counted within its cloud [nnz], any integer type.
        val: value of each entry [nnz]; not differentiable (geometry is given).
        rows: first row of each cloud [G + 1].
        columns: first row of ``x`` of each cloud [G + 1].

    Returns:
        [R, C], in the dtype of ``x``.

    Raises:
        ShapeError, ArgumentError: pointers or columns that do not fit (on the CPU).

    **Equivariance:** linear in ``x``; as invariant as ``val`` is.
    """
    if torch.compiler.is_compiling() or x.device.type == "meta":
        # Traced (torch.compile, torch.export): plain operations that need no values.
        return _product(x, ptr, col, val, rows, columns)
    if x.device.type == "cpu":  # looking would make a GPU wait, which checks by itself
        _check_sizes(x, ptr, col, val, rows, columns)
    product = _GroupedSpmm.forward if is_plain(x, val) else _GroupedSpmm.apply
    return product(x, ptr, col, val, rows, columns, False, len(ptr) - 1)


def _product(x, ptr, col, val, rows, columns) -> Tensor:
    row, source = _coordinates(ptr, col, rows, columns)
    return _scattered(x, source, row, val, ptr.shape[0] - 1)


def _scattered(x, source, target, val, size) -> Tensor:
    """Sums in single precision at least: atomics on a GPU round after every entry."""
    wide = torch.promote_types(x.dtype, torch.float32)
    part = x.index_select(0, source).to(wide) * val.to(wide)[:, None]
    return part.new_zeros(size, x.shape[1]).index_add_(0, target, part).to(x.dtype)


class _GroupedSpmm(torch.autograd.Function):
    """A x, or A^T x: each is the gradient of the other, so derivatives of any order exist."""

    @staticmethod
    def forward(x, ptr, col, val, rows, columns, transposed, size):
        # What torch.autograd maps over by itself (is_grads_batched, vectorize) has no memory.
        mapped = torch._C._functorch.is_legacy_batchedtensor(x)
        if HAS_NUMBA and x.device.type == "cpu" and not (mapped or in_fork()):
            return _compiled(x, ptr, col, val, rows, columns, transposed, size)
        row, source = _coordinates(ptr, col, rows, columns)
        target, source = (source, row) if transposed else (row, source)
        return _scattered(x, source, target, val, size)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *matrix, ctx.transposed, _ = inputs
        ctx.save_for_backward(*matrix)
        ctx.save_for_forward(*matrix)
        ctx.size, ctx.out_size = len(x), len(output)

    @staticmethod
    def backward(ctx, grad):
        grad = _GroupedSpmm.apply(grad, *ctx.saved_tensors, not ctx.transposed, ctx.size)
        return grad, *[None] * 7

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _GroupedSpmm.apply(tangent, *ctx.saved_tensors, ctx.transposed, ctx.out_size)

    @staticmethod
    def vmap(info, in_dims, x, *rest):
        """Many features of one matrix are more channels of it."""
        if any(dim is not None for dim in in_dims[1:]):
            raise ArgumentError(
                "`ptr`, `col` and `val` cannot be mapped over by vmap, only features; take a loop"
            )
        x = x.movedim(in_dims[0], 1)
        out = _GroupedSpmm.apply(x.flatten(1), *rest)
        return out.unflatten(1, x.shape[1:]), 1


def _compiled(x, ptr, col, val, rows, columns, transposed, size) -> Tensor:
    from pcequi.ops.compiled import sparse

    dtype, x, val = x.dtype, _compute_dtype(x), _compute_dtype(val)
    out = x.new_empty(size, x.shape[1])
    product = sparse.spmm_transposed if transposed else sparse.spmm
    with parallel_kernel():
        fits = product(*_numpy(rows, columns, ptr, col, val, x), out.numpy())
    if not fits:
        raise ArgumentError(_OUTSIDE)
    return out.to(dtype)


def _check_sizes(x: Tensor, ptr: Tensor, col: Tensor, val: Tensor, rows, columns) -> None:
    """What would make a kernel read or write beyond the ends."""
    ends = {"ptr": (ptr, len(col)), "rows": (rows, len(ptr) - 1), "columns": (columns, len(x))}
    for name, (pointer, wanted) in ends.items():
        # NumPy's calls take a fifth of the time of torch's.
        plain = type(pointer) is Tensor and is_plain(pointer)
        at = pointer.numpy() if plain else pointer
        if at[-1] != wanted or at[0] != 0 or (at[1:] < at[:-1]).any():
            raise ShapeError(
                f"`{name}` (from {int(at[0])} to {int(at[-1])}) must rise from 0 to "
                f"{wanted}; the graph is damaged, or its levels belong to different graphs"
            )
    if len(rows) != len(columns) or len(val) != len(col):
        raise ShapeError(
            f"`rows` (={len(rows)}) and `columns` (={len(columns)}), and `col` (={len(col)}) and "
            f"`val` (={len(val)}), must be equally many"
        )
    if not HAS_NUMBA or in_fork():  # whose kernels look at each entry anyway
        width = (columns[1:] - columns[:-1]).repeat_interleave(ptr[rows[1:]] - ptr[rows[:-1]])
        wide = col.long()  # torch compares no unsigned numbers of 16 bits
        if ((wide < 0) | (wide >= width)).any():
            raise ArgumentError(_OUTSIDE)


def _compute_dtype(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _numpy(*tensors: Tensor):
    return [t.detach().contiguous().numpy() for t in tensors]


def _coordinates(ptr, col, rows, columns):
    """Global (row, column) of every entry."""
    # Sizes by `shape`: len() would fix them in a traced graph.
    row = torch.repeat_interleave(
        torch.arange(ptr.shape[0] - 1, device=ptr.device),
        (ptr[1:] - ptr[:-1]).long(),
        output_size=col.shape[0],
    )
    cloud = torch.searchsorted(rows.contiguous(), row, right=True) - 1
    return row, col.long() + columns.long().index_select(0, cloud)


def row_pointer(counts: Tensor) -> Tensor:
    """Where each row begins, and the end [R + 1], from the entries of each [R].

    **Equivariance:** none involved.
    """
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def coalesce_rows(
    row: Tensor, col: Tensor, val: Tensor, num_rows: int, num_cols: int
) -> tuple[Tensor, Tensor, Tensor]:
    """COO entries to CSR, entries that share (row, column) added up once.

    Args:
        row, col: coordinates [nnz], in any order.
        val: values [nnz].
        num_rows, num_cols: size of the matrix.

    Returns:
        ``ptr`` [num_rows + 1], ``col`` [nnz'], ``val`` [nnz'] with nnz' <= nnz.

    Raises:
        ShapeError: ``row``, ``col`` and ``val`` are not equally many, or no whole numbers.
        ArgumentError: a row or a column outside the matrix (on the CPU).

    **Equivariance:** none involved; the matrix stays the same.
    """
    for name, index in (("row", row), ("col", col)):
        if val.dim() != 1 or index.shape != val.shape or index.is_floating_point():
            raise ShapeError(
                f"`{name}` (={list(index.shape)}, {index.dtype}) must be whole numbers, one for "
                f"each entry of `val` (={list(val.shape)})"
            )
    if val.device.type == "cpu" and len(val):
        for name, index, size in (("row", row, num_rows), ("col", col, num_cols)):
            least, most = int(index.min()), int(index.max())
            if least < 0 or most >= size:
                raise ArgumentError(f"`{name}` (from {least} to {most}) must be in [0, {size})")
    if HAS_NUMBA and val.device.type == "cpu" and not wants_gradient(val):
        from pcequi.ops.compiled import sparse

        out = sparse.coalesce(*_numpy(row, col, val), num_rows, num_cols)
        return tuple(map(torch.from_numpy, out))
    cell, inverse = torch.unique(row.long() * num_cols + col, return_inverse=True)
    total = val.new_zeros(len(cell)).index_add_(0, inverse, val)
    counts = torch.bincount(cell // num_cols, minlength=num_rows)
    return row_pointer(counts), cell % num_cols, total


def combined_rows(
    weight: Tensor,
    ptr: Tensor,
    col: Tensor,
    val: Tensor,
    columns: int,
    *,
    turns: tuple[Tensor, Tensor] | None = None,
    least: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums of the rows of poses: what several of them make together.

    Row (m, b) is the sum over poses p of ``weight[m, p]`` times row (p, b).

    Args:
        weight: [M, P].
        ptr: row pointer [P * B + 1]. col, val: entries [nnz].
        columns: of the matrix.
        turns: ``turns`` [K, B] and ``products`` [K, K] of ``turned_rows``, where rows of the
            first pose of each point alone are given [P / K * B + 1].
        least: entries up to this share of the largest of their row are left out, those up to
            a quarter more fade, see ``ops.faded``.

    Returns:
        ``ptr`` [M * B + 1], ``col`` and ``val``.

    Raises:
        ShapeError: the rows are not those of the poses of ``weight``, or ``col`` and ``val`` are
            not as many as ``ptr`` says.
        ArgumentError: a column outside the matrix (on the CPU), or ``columns`` is not those of
            all poses of some points, where ``turns`` are given.

    **Equivariance:** none involved; linear in the rows where ``least`` is 0.
    """
    size = 1 if turns is None else len(turns[0])
    points = weight.shape[-1] // size
    if weight.dim() != 2 or not points or (len(ptr) - 1) % points or weight.shape[1] % size:
        raise ShapeError(
            f"`weight` (={list(weight.shape)}) must be [M, P], of P poses whose rows `ptr` "
            f"(={len(ptr) - 1} rows) has"
        )
    if columns % size:
        raise ArgumentError(
            f"`columns` (={columns}) must be those of all poses of some points, a multiple of the "
            f"{size} elements of `turns`"
        )
    if val.device.type == "cpu":
        if int(ptr[0]) != 0 or (ptr[1:] < ptr[:-1]).any() or not len(val) == len(col) == ptr[-1]:
            raise ShapeError(
                f"`ptr` (from {int(ptr[0])} to {int(ptr[-1])}) must rise from 0 to as many as "
                f"`col` (={len(col)}) and `val` (={len(val)}) have"
            )
        wide = col.long()  # torch compares no unsigned numbers of 16 bits
        if len(col) and not 0 <= int(wide.min()) <= int(wide.max()) < columns:
            raise ArgumentError(
                f"`col` (from {int(wide.min())} to {int(wide.max())}) must be in [0, {columns})"
            )
    basis = (len(ptr) - 1) // points
    if not len(col):
        return ptr.new_zeros(len(weight) * basis + 1), col, val
    if HAS_NUMBA and val.device.type == "cpu":
        from pcequi.ops.compiled import sparse

        if turns is None:
            turns = ptr.new_zeros(1, basis) + torch.arange(basis), ptr.new_zeros(1, 1)
        arrays = _numpy(weight.to(val), ptr, col, val, *turns)
        return tuple(map(torch.from_numpy, sparse.combined(*arrays, columns, least)))
    if turns is not None:
        ptr, col, val = turned_rows(ptr, col, val, *turns)
    row = torch.repeat_interleave(
        torch.arange(len(ptr) - 1, device=ptr.device), ptr[1:] - ptr[:-1], output_size=len(col)
    )
    every = val.new_zeros((len(ptr) - 1) * columns)
    every = every.index_add_(0, row * columns + col.long(), val)
    rows = (weight.to(val) @ every.view(weight.shape[1], -1)).view(-1, columns)
    rows = faded(rows, least, 1)
    kept = rows != 0
    return row_pointer(kept.sum(1)), kept.nonzero()[:, 1], rows[kept]


def turned_rows(
    ptr: Tensor, col: Tensor, val: Tensor, turns: Tensor, products: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of all poses of some points, from those of the first pose of each.

    Rows are (point, function) and columns (point, pose). Row (s, k, b) has the entries
    of row (s, ``turns[k, b]``), with the pose q of their columns replaced by
    ``products[k, q]``.

    Args:
        ptr: row pointer [S * B + 1]. col, val: entries [nnz].
        turns: [K, B]. products: [K, K].

    Returns:
        ``ptr`` [S * K * B + 1], ``col`` and ``val`` [K * nnz].

    **Equivariance:** none involved; copies entries.
    """
    if HAS_NUMBA and val.device.type == "cpu":
        from pcequi.ops.compiled import sparse

        size = len(turns)
        # Torch's memory, which is filled for the first time faster than NumPy's.
        out = [
            ptr.new_empty(size * (len(ptr) - 1) + 1, dtype=torch.long),
            *(value.new_empty(size * len(value)) for value in (col, val)),
        ]
        sparse.turned(*_numpy(ptr, col, val, turns, products, *out))
        return tuple(out)
    size, basis = turns.shape
    count = (ptr[1:] - ptr[:-1]).view(-1, basis)
    row = torch.arange(count.numel(), device=ptr.device).view(-1, basis)[:, turns]  # [S, K, B]
    turn = torch.arange(size, device=ptr.device)[:, None].expand_as(row)
    copied = count[:, turns].flatten()
    start = copied.cumsum(0) - copied
    shift = (ptr[:-1][row.flatten()] - start).repeat_interleave(copied)
    entry = torch.arange(len(shift), device=ptr.device) + shift
    old, turn = col[entry].long(), turn.flatten().repeat_interleave(copied)
    new = old // size * size + products[turn, old % size]
    return torch.cat([ptr[:1], copied.cumsum(0)]), new.to(col.dtype), val[entry]

"""The sparse product as batched dense ones, where matrix units make zeros cheap.

On a GPU, and in bfloat16 on CPUs that multiply it, a product with blocks that are one sixth
full costs less than gathering the entries that are not zero. Of levels whose rows follow from
those of the first pose of each point (``turned_rows``) only these are kept and read: the
features are turned instead, and the same block is multiplied with all K turns of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.ops.backends import HAS_NUMBA

__all__ = ["RowTurns", "dense_blocks", "grouped_bmm"]


@dataclass(frozen=True)
class RowTurns:
    """Places that ``grouped_bmm`` exchanges where rows of one pose stand for all K of its point.

    Attributes:
        size: K.
        reads: pose that turn k has in the place of pose q, at [q * K + k]: [K * K].
        reads_back: place (q, k) in which turn k has pose j, at [j * K + k]: [K * K].
        writes: place (function, k) of each (k, function) [K * B].
        writes_back: the inverse permutation [K * B].

    **Equivariance:** constants of the settings.
    """

    size: int
    reads: Tensor
    reads_back: Tensor
    writes: Tensor
    writes_back: Tensor

    @classmethod
    def of(cls, turns: Tensor, products: Tensor) -> RowTurns:
        """From what ``turned_rows`` takes: ``turns`` [K, B] and ``products`` [K, K]."""
        size = len(turns)
        every = torch.arange(size, device=turns.device)
        reads = products.T.contiguous()  # [q, k]
        back = products.argsort(1).T * size + every  # [j, k]
        writes = (turns * size + every[:, None]).flatten()
        return cls(size, reads.flatten(), back.flatten(), writes, writes.argsort())

    def to(self, *args, **kwargs) -> RowTurns:
        """The same on another device, as ``Tensor.to``."""
        tensors = (self.reads, self.reads_back, self.writes, self.writes_back)
        return RowTurns(self.size, *(t.to(*args, **kwargs) for t in tensors))


class _Exchange(torch.autograd.Function):
    """``x.index_select(1, index)`` of x [N, P, C], where each place is read ``fold`` times
    and ``back`` lists who reads it. The gradient is a sum in a fixed order, without atomics."""

    @staticmethod
    def forward(x, index, back, fold):
        return x.index_select(1, index)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, back, ctx.fold = inputs
        ctx.save_for_backward(back)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx, grad):
        (back,) = ctx.saved_tensors
        grad = grad.index_select(1, back)
        if ctx.fold > 1:
            grad = grad.view(len(grad), -1, ctx.fold, grad.shape[2]).sum(2)
        return grad, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        (index,) = ctx.saved_tensors
        return tangent.index_select(1, index)


def dense_blocks(
    entries: Tensor, col: Tensor, val: Tensor, clouds: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """Rows of a batch of clouds with equally many rows and columns each, as dense blocks.

    Args:
        entries: entries of each row [G * R].
        col: column of each entry, counted within its cloud [nnz]; none twice in a row.
        val: value of each entry [nnz].
        clouds: G.
        columns: S.
        dtype: of the result.

    Returns:
        [G, R, S].

    **Equivariance:** none involved; the matrix stays the same.
    """
    if HAS_NUMBA and dtype == torch.bfloat16 and col.device.type == "cpu":
        from pcequi.ops.compiled import dense

        out = torch.zeros(len(entries) * columns, dtype=torch.int16)
        arrays = [t.contiguous().numpy() for t in (entries, col, val.float(), out)]
        dense.fill_bfloat16(*arrays, columns)
        return out.view(torch.bfloat16).view(clouds, -1, columns)
    row = torch.repeat_interleave(
        torch.arange(len(entries), device=col.device), entries.long(), output_size=len(col)
    )
    out = torch.zeros(len(entries) * columns, dtype=dtype, device=col.device)
    out[row * columns + col.long()] = val.to(dtype)
    return out.view(clouds, -1, columns)


def grouped_bmm(x: Tensor, blocks: Tensor, turned: RowTurns | None = None) -> Tensor:
    """Product of a block-diagonal matrix with features, as ``grouped_spmm``.

    Args:
        x: features [G * S, C]; differentiable.
        blocks: [G, R, S]; with ``turned`` the rows (point, function) of the first pose of
            each point, and columns (point, pose).
        turned: how the other poses' rows follow.

    Returns:
        [G * R, C] in the dtype of ``x``; with ``turned`` [G * K * R, C], rows (point, pose,
        function).

    **Equivariance:** linear in ``x``; as invariant as the blocks are.
    """
    clouds, rows, columns = blocks.shape
    channels = x.shape[1]
    blocks = blocks.to(x.dtype)
    if turned is None:
        return torch.bmm(blocks, x.view(clouds, columns, channels)).view(-1, channels)
    size = turned.size
    x = x.reshape(-1, size, channels)
    x = _Exchange.apply(x, turned.reads, turned.reads_back, size)
    z = torch.bmm(blocks, x.view(clouds, columns, size * channels))
    z = z.view(-1, len(turned.writes), channels)  # [points, (function, turn), C]
    return _Exchange.apply(z, turned.writes, turned.writes_back, 1).view(-1, channels)

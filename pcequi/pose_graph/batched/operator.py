"""The sparse operators of many clouds at once, made as dense matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.kernels import kernel_points
from pcequi.ops import Characters, faded, row_pointer, turned_rows
from pcequi.pair_kernel import invariant_basis
from pcequi.pose_graph.batched.near import CHUNK

__all__ = ["combined_rows", "grid_rows", "pair_rows", "space_planes", "to_blocks", "to_csr"]


def space_planes(points: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """The space basis as max(planes . (v, |v|^2) + rest, 0)^2: [B, 4] and [B].

    **Equivariance:** as ``kernels.space_basis``.
    """
    square = torch.full_like(points[:, :1], -1)
    planes = torch.cat([2 * points, square], 1) / width**2
    return planes, 1 - points.square().sum(1) / width**2


def grid_rows(
    pos: Tensor,
    rot: Tensor,
    turn: Tensor,
    source: Tensor,
    shares: list[Tensor],
    radius: float,
    num_points: int,
) -> Tensor:
    """Rows of A of some poses whose frames are those of all points.

    Args:
        pos: [B, T, 3], rot: [B, T, 3, 3], the poses whose rows are wanted.
        turn: which of the K frames each has [B, T].
        source: points of the level below [B, S, 3].
        shares: of their poses of each of the K rotations, or of the first alone where
            ``turn`` is zero everywhere: [B, S, M].
        radius, num_points: of the kernel.

    Returns:
        [B, T, basis, M].

    **Equivariance:** unchanged when all poses move together.
    """
    planes, rest = (t.to(pos) for t in space_planes(*kernel_points(num_points)))
    offset = (source[:, None] - pos[:, :, None]) @ (rot / radius)  # [B, T, S, 3]
    seen = torch.cat([offset, offset.square().sum(3, keepdim=True)], 3)
    value = (planes @ seen.mT + rest[:, None]).clamp_min_(0).square_()  # [B, T, basis, S]
    mass = value.sum((2, 3), keepdim=True)
    total = None
    for number, share in enumerate(shares):
        part = value
        if len(shares) > 1:
            part = value * (turn == number)[:, :, None, None]
        part = part.flatten(1, 2) @ share
        total = part if total is None else total + part
    return _by_mass(total.view(*value.shape[:3], -1), mass)


def pair_rows(
    pos: Tensor,
    normal: Tensor,
    source: Tensor,
    axes: Tensor,
    share: Tensor,
    radius: float,
    pairs: tuple[int, int, int, int],
) -> Tensor:
    """Rows of A of some points with normals [B, T, 3], for a kernel on pairs.

    ``source`` and ``axes`` [B, S, 3] are the points of the level below, and ``share``
    [B, S, M] is what they share: [B, T, basis, M].

    **Equivariance:** unchanged when all move together, and when normals change signs.
    """
    basis = pairs[0] * pairs[1] * pairs[2] * pairs[3]
    step = max(1, CHUNK // (pos.shape[1] * source.shape[1] * basis))
    parts = []
    for start in range(0, len(pos), step):
        part = slice(start, start + step)
        offset = (source[part, None] - pos[part, :, None]) / radius  # [b, T, S, 3]
        r = offset.norm(dim=3)
        tilt = (offset @ normal[part, :, :, None])[..., 0]
        far = (offset * axes[part, None]).sum(3)
        turn = normal[part] @ axes[part].mT
        numbers = (value.flatten() for value in (r, tilt, far, turn))
        value = invariant_basis(*numbers, pairs).view(*r.shape, basis).transpose(2, 3)
        mass = (1 - r * r).clamp_min_(0).sum(2)[:, :, None, None]
        total = value.flatten(1, 2) @ share[part]
        parts.append(_by_mass(total.view(*value.shape[:3], -1), mass))
    return torch.cat(parts)


def combined_rows(
    rows: Tensor, weight: Tensor, turns: tuple[Tensor, Tensor], least: float
) -> Tensor:
    """Rows of first poses that the rows of all poses make together, as ``ops.combined_rows``.

    Args:
        rows: of the first pose of each point [B, N, basis, M].
        weight: of each pose [B, T, N, K].
        turns: ``orbit_turns``, of a group of half turns.
        least: of ``ops.faded`` entries of a row.

    Returns:
        [B, T, basis, M].

    **Equivariance:** none involved; linear in the rows where ``least`` is 0.
    """
    total = None
    for part, turn, product in zip(weight.unbind(3), *(t.to(rows.device) for t in turns)):
        seen = rows[:, :, turn].unflatten(3, (-1, len(product)))[..., product]
        part = part @ seen.flatten(2)
        total = part if total is None else total + part
    total = total.view(len(rows), -1, *rows.shape[2:])
    return faded(total, least, 3)


def _by_mass(total: Tensor, mass: Tensor) -> Tensor:
    # No neighbour at all: zeros stay zeros.
    return total / torch.where(mass > 0, mass, 1)


def to_csr(rows: Tensor, turns: tuple[Tensor, Tensor] | None = None):
    """Dense rows [B, T, basis, M] as a ``LevelGraph`` keeps them.

    Args:
        turns: ``orbit_turns``, where the rows are those of first poses alone.

    Returns:
        ``entries``, ``col`` and ``val``.

    **Equivariance:** none involved.
    """
    flat = rows.flatten(0, 2)
    row, col = flat.nonzero(as_tuple=True)
    val = flat[row, col]
    entries = (flat != 0).sum(1)
    if turns is not None:
        ptr = row_pointer(entries)
        ptr, col, val = turned_rows(ptr, col, val, *(t.to(col.device) for t in turns))
        entries = ptr[1:] - ptr[:-1]
    return entries.to(torch.int32), col, val


def to_blocks(rows: Tensor, characters: Characters | None, dtype: torch.dtype) -> Tensor:
    """Dense rows [B, T, basis, M] as ``ops.grouped_bmm`` takes them: [B, T * basis, M], or taken
    apart by characters, where they are rows of first poses.

    **Equivariance:** none involved.
    """
    rows = rows.flatten(1, 2)
    if characters is None:
        return rows.to(dtype)
    signs = characters.signs.to(rows)
    apart = rows.unflatten(2, (-1, characters.size)) @ signs.T  # [B, R, S / K, character]
    return apart.movedim(3, 1).to(dtype, memory_format=torch.contiguous_format)

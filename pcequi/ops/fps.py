"""Greedy farthest-point sampling (FPS) in any dimension, with its assignment.

Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985):
the greedy choice is within a factor two of the best covering radius.

**Ties.** Candidates whose squared distance is within ``TIE`` (relative) of the
largest are tied. Among them the largest ``key`` wins. The caller passes a key
that does not depend on the cloud's orientation or order (for embeddings: a
fixed generic linear function of them). Candidates that tie in key too are
twins that a symmetry of the cloud exchanges: any of them gives the same
result up to that symmetry, and the first one is taken. A row that is as far
from a later pick as from its own, within ``TIE``, stays where it is: a frame
turned by +90 and by -90 degrees sees a cubic kernel from equal distances, so
such ties are common on any cloud.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.ops.backends import HAS_NUMBA

# Relative difference below which two squared distances count as equal: above what float32 points
# leave uncertain, whatever the type in which they are compared, and far below differences of shape.
TIE = 1e-5
# Squared distances below this share of the squared spread are zero.
ZERO = 1e-11
# So are those below this share of the largest squared norm: where all rows agree, their spread is
# rounding itself.
NOISE = 1e-13


def farthest_point_sampling(
    x: Tensor,
    num: int,
    *,
    key: Tensor | None = None,
    tolerance: float = 0.0,
    turned: Tensor | None = None,
    batch: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """FPS over the rows of ``x``, cloud by cloud.

    Args:
        x: embeddings or positions [P, D], P >= 1, float32 or float64.
        num: picks, at most P, of each cloud.
        key: tie-breaker [P]; by default the row order decides.
        tolerance: stop as soon as every row is within this distance of a pick
            (units of ``x``); 0 never stops early.
        turned: what each row looks like under the K elements of a group
            [P, K, D], the identity first; a pick then stands for all K of its rows.
        batch: sorted cloud of each row [P], or None for one cloud. The picks of the first cloud
            come first; clouds without rows have none.

    Returns:
        ``index`` [M] of the picks in order, the row farthest from the mean of ``x`` first
        (M = ``num`` unless ``tolerance`` stopped it), ``assignment`` [P] in [0, M), the
        nearest pick (the earliest of equals), and ``distance`` [P] to it. While distinct rows
        remain no pick repeats one; every pick is assigned to itself. With
        ``turned`` the assignment is pick * K + element, in [0, M * K).

    Raises:
        ArgumentError: ``num`` is not in [1, P], or not in every cloud, or ``tolerance`` negative.
        ShapeError: ``x`` is not of 32 or 64 bits, or ``key``, ``turned`` or ``batch`` does not fit
            it.
        DataError: squared distances between rows, or keys, are NaN or infinite; a batch that is
            not sorted.

    **Equivariance:** picks depend on distances and ``key`` alone, so they move
    with any isometry of ``x`` that leaves ``key`` in place, as far from the origin as its
    type can tell rows apart.
    """
    if batch is not None:
        return _each_cloud(x, num, key, tolerance, turned, batch)
    size = len(x)
    if not 1 <= num <= size:
        raise ArgumentError(
            f"`num` (={num}) must be between 1 and the number of rows (={size}); "
            "lower the budget or add poses"
        )
    check_rows(x)
    if not tolerance >= 0:
        raise ArgumentError(f"`tolerance` (={tolerance}) must be 0 or more")
    x = x.detach().contiguous()
    turned = x[:, None] if turned is None else turned.detach().to(x).contiguous()
    if turned.dim() != 3 or turned[:, 0].shape != x.shape:
        raise ShapeError(f"`turned` (={list(turned.shape)}) must be [{size}, K, {x.shape[1]}]")
    if key is None:
        key = torch.arange(size, 0, -1, dtype=x.dtype, device=x.device)
    if key.shape != (size,):
        raise ShapeError(f"`key` (={list(key.shape)}) must be one a row, [{size}]")
    key, stop = key.detach().to(x).contiguous(), float(tolerance) ** 2
    _check_finite(turned, key)
    if HAS_NUMBA and x.device.type == "cpu":
        from pcequi.ops.compiled import fps as kernels

        limits = TIE, ZERO, NOISE, stop
        found = kernels.fps(x.numpy(), turned.numpy(), num, key.numpy(), *limits)
        index, assignment, d2 = map(torch.from_numpy, found)
    else:
        index, assignment, d2 = _fps_torch(x, turned, num, key, stop)
    return index, assignment, d2.sqrt()


def _each_cloud(x, num, key, tolerance, turned, batch) -> tuple[Tensor, Tensor, Tensor]:
    """FPS of each cloud by itself, counted through all of them."""
    clouds, picks, found = check_batch("batch", batch, x).tolist(), 0, []
    group = 1 if turned is None or turned.dim() < 2 else turned.shape[1]
    for name, value in (("key", key), ("turned", turned)):
        if value is not None and len(value) != len(x):
            raise ShapeError(
                f"`{name}` (={list(value.shape)}) must have the rows of `x` (={len(x)})"
            )
    start = 0
    for rows in filter(None, clouds):
        some = slice(start, start + rows)
        own = {
            name: None if value is None else value[some]
            for name, value in (("key", key), ("turned", turned))
        }
        index, assignment, distance = farthest_point_sampling(
            x[some], num, tolerance=tolerance, **own
        )
        found.append((index + start, assignment + picks * group, distance))
        start, picks = start + rows, picks + len(index)
    if not found:
        raise ArgumentError(
            f"`num` (={num}) must be between 1 and the number of rows (=0); add points"
        )
    return tuple(map(torch.cat, zip(*found, strict=True)))


def check_batch(name: str, batch: Tensor, points: Tensor) -> Tensor:
    """How many of the points are of each cloud, by a sorted ``batch``.

    Raises:
        ShapeError: it is not of whole numbers, one a point.
        DataError: it is not sorted from 0 on.

    **Equivariance:** does not apply.
    """
    whole = not (batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool)
    if batch.shape != (len(points),) or not whole:
        raise ShapeError(
            f"`{name}` (={list(batch.shape)}, {batch.dtype}) must be whole numbers, [points] "
            f"(={len(points)})"
        )
    if torch.cat([batch[:1] < 0, batch[1:] < batch[:-1]]).any():
        raise DataError(f"`{name}` is not sorted from 0 on; sort the points by cloud first")
    return torch.bincount(batch)


def check_rows(x: Tensor) -> None:
    """Whether ``x`` are rows that can be compared.

    Raises:
        ShapeError: not [P, D] of 32 or 64 bits.

    **Equivariance:** does not apply.
    """
    if x.dim() != 2 or x.dtype not in (torch.float32, torch.float64):
        raise ShapeError(
            f"`x` (={list(x.shape)}, {x.dtype}) must be [rows, columns] of float32 or float64"
        )


def _check_finite(turned: Tensor, key: Tensor) -> None:
    """Whether rows [P, K, D] and keys [P] can be compared."""
    largest, most = torch.stack([turned.abs().max(), key.abs().max()]).tolist()  # one wait
    limit = torch.finfo(turned.dtype).max / 4  # twice the norm is the farthest apart
    if turned.shape[2] * largest * largest <= limit and math.isfinite(most):  # at least as much
        return
    reach = float(turned.norm(dim=2).max())
    if not reach * reach <= limit:
        raise DataError(
            f"`x` (largest norm {reach:.2g}, {turned.dtype}) is too large for squares of "
            "distances, or has NaN or infinite entries; scale it down or drop such rows"
        )
    if not math.isfinite(most):
        raise DataError("`key` has entries that are NaN or infinite; give finite ones")


def zero_square(x: Tensor, spread: Tensor) -> float:
    """Squared distances that are rounding, for rows [P, D] of squared distances ``spread`` [P]
    from their mean.

    **Equivariance:** unchanged by an isometry about the origin.
    """
    norm = float(x.square().sum(1).max())
    return max(float(spread.max()) * ZERO, norm * NOISE)


def largest(value: Tensor, key: Tensor, tie: float) -> Tensor:
    """Row of the largest value [P]; among tied ones the first of the largest key [P].

    **Equivariance:** as invariant as both are.
    """
    tied = value >= value.max() * (1 - tie)
    best = key.masked_fill(~tied, -torch.inf)
    slack = tie * key.abs().max()
    return (best >= best.max() - slack).int().argmax()


def _fps_torch(x, turned, num, key, stop):
    spread = (x - x.mean(0)).square().sum(1)
    zero = zero_square(x, spread)
    d2 = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    assignment = torch.zeros(len(x), dtype=torch.long, device=x.device)
    taken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    index = []
    # All that are farthest but for rounding are tied.
    pick = largest(spread.clamp_max((spread.max() - zero).clamp_min(0)), key, TIE)
    for m in range(num):
        index.append(pick)
        for number, row in enumerate(turned[pick], m * turned.shape[1]):
            new = (x - row).square().sum(1)
            # A tie belongs to the earlier pick, and copies count as ties.
            closer = new < d2 * (1 - TIE) - zero
            d2 = torch.where(closer, new, d2)
            assignment = torch.where(closer, number, assignment)
        assignment[pick] = m * turned.shape[1]
        d2[pick] = 0
        taken[pick] = True
        left = d2.masked_fill(taken, -1.0)
        worst = left.max()
        if stop > 0 and worst <= stop:
            break
        if worst <= zero:  # only copies of the picks remain: take any new row
            pick = (~taken).int().argmax()
        else:
            pick = largest(left, key, TIE)
    return torch.stack(index), assignment, d2

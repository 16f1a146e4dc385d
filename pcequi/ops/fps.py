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

import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.ops.backends import HAS_NUMBA

# Relative difference below which two squared distances count as equal: far
# above float64 rounding of the embeddings, far below differences of shape.
TIE = {torch.float64: 1e-8, torch.float32: 1e-5}
# Squared distances below this share of the squared spread are zero.
ZERO = {torch.float64: 1e-14, torch.float32: 1e-11}


def farthest_point_sampling(
    x: Tensor,
    num: int,
    *,
    start: int | None = None,
    key: Tensor | None = None,
    tolerance: float = 0.0,
    turned: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """FPS over the rows of ``x`` (one cloud).

    Args:
        x: embeddings or positions [P, D], P >= 1, float32 or float64.
        num: picks, at most P.
        start: first pick; by default the row farthest from the mean of ``x``.
        key: tie-breaker [P]; by default the row order decides.
        tolerance: stop as soon as every row is within this distance of a pick
            (units of ``x``); 0 never stops early.
        turned: what each row looks like under the K elements of a group
            [P, K, D], the identity first; a pick then stands for all K of its rows.

    Returns:
        ``index`` [M] of the picks in order (M = ``num`` unless ``tolerance``
        stopped it), ``assignment`` [P] in [0, M), the nearest pick (the
        earliest of equals), and ``distance`` [P] to it. While distinct rows
        remain no pick repeats one; every pick is assigned to itself. With
        ``turned`` the assignment is pick * K + element, in [0, M * K).

    Raises:
        ArgumentError: ``num`` is not in [1, P].

    **Equivariance:** picks depend on distances and ``key`` alone, so they move
    with any isometry of ``x`` that leaves ``key`` in place.
    """
    size = len(x)
    if not 1 <= num <= size:
        raise ArgumentError(
            f"`num` (={num}) must be between 1 and the number of rows (={size}); "
            "lower the budget or add poses"
        )
    x = x.detach().contiguous()
    turned = x[:, None] if turned is None else turned.detach().contiguous()
    if key is None:
        key = torch.arange(size, 0, -1, dtype=x.dtype, device=x.device)
    stop = max(float(tolerance) ** 2, -1.0)
    start = -1 if start is None else int(start)
    if HAS_NUMBA and x.device.type == "cpu":
        from pcequi.ops.compiled import fps as kernels

        limits = TIE[x.dtype], ZERO[x.dtype], stop
        found = kernels.fps(x.numpy(), turned.numpy(), num, start, key.numpy(), *limits)
        index, assignment, d2 = map(torch.from_numpy, found)
    else:
        index, assignment, d2 = _fps_torch(x, turned, num, start, key, stop)
    return index, assignment, d2.sqrt()


def largest(value: Tensor, key: Tensor, tie: float) -> Tensor:
    """Row of the largest value [P]; among tied ones the first of the largest key [P].

    **Equivariance:** as invariant as both are.
    """
    tied = value >= value.max() * (1 - tie)
    best = key.masked_fill(~tied, -torch.inf)
    slack = tie * key.abs().max()
    return (best >= best.max() - slack).int().argmax()


def _fps_torch(x, turned, num, start, key, stop):
    spread = (x - x.mean(0)).square().sum(1)
    zero = float(spread.max()) * ZERO[x.dtype]
    d2 = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    assignment = torch.zeros(len(x), dtype=torch.long, device=x.device)
    taken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    index = []
    if start < 0:
        start = largest(spread, key, TIE[x.dtype])
    pick = torch.as_tensor(start, device=x.device)
    for m in range(num):
        index.append(pick)
        for number, row in enumerate(turned[pick], m * turned.shape[1]):
            new = (x - row).square().sum(1)
            # A tie belongs to the earlier pick, and copies count as ties.
            closer = new < d2 * (1 - TIE[x.dtype]) - zero
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
            pick = largest(left, key, TIE[x.dtype])
    return torch.stack(index), assignment, d2

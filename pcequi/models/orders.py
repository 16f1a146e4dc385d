"""The order of a frame's axes where a cloud leaves it in doubt, and the mean over the orders.

The frames "manhattan" and "principal" number their axes by the cloud's variance along them, the
half turns "D2" cover their signs. Where two variances are nearly equal the order is an
accident, and a network that saw a table with its legs along the third axis may meet one with
them along the second. The kernels' points are closed under a change of the order, so that the
same graph serves all six: the network with the functions of its kernels exchanged sees what it
would see of the cloud with its axes exchanged.

An order (i, j, k) has the share of a Plackett-Luce model with the scores s = variance ** (1 / w),

    s_i / (s_i + s_j + s_k) * s_j / (s_j + s_k),

less a tenth, and none if that is negative; what is left is scaled to add up to one. What the
network pools is averaged with these shares. They are continuous, and belong to axes, not to their
numbers: where two variances cross, the numbers change and the mean does not, as long as the axes
and the representatives stay (principal axes turn where variances are equal).

Sources: Dym, Lawrence and Siegel, "Equivariant frames and the impossibility of continuous
canonicalization", ICML 2024, for weighted frames; Plackett, Applied Statistics, 1975.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pcequi.constants import constant
from pcequi.errors import ArgumentError
from pcequi.orbits import basis_turns
from pcequi.pose_graph import Level, PoseGraph
from pcequi.poses import CentroidPoses, GridPoses

__all__ = ["averaged_logits", "averaged_pooled", "axis_orders", "order_shares", "order_turns"]

# Chosen on 1,969 held-out shapes of ModelNet40's training split (docs/decisions.md, 31).
WIDTH = 0.3
LEAST = 0.1
# Variances below this share of the largest count as one: flat clouds have none.
_FLAT = 1e-4
_ORDERS = tuple(itertools.permutations(range(3)))


@constant
def axis_orders() -> Tensor:
    """Rotations [6, 3, 3] that number the axes of a frame anew: of frame R the axes of
    ``R @ axis_orders()[q]`` are those of R, up to signs, in the q-th order. The first is the
    identity.

    **Equivariance:** a constant.
    """
    turns = []
    for order in _ORDERS:
        turn = torch.eye(3, dtype=torch.float64)[:, list(order)]
        turn[:, 2] *= torch.linalg.det(turn).round()
        turns.append(turn)
    return torch.stack(turns)


def order_turns(levels: Sequence[Level]) -> list[Tensor] | None:
    """How the axes' orders permute the functions of each level [6, B], so that function b seen
    from a frame in order q is function ``[q, b]`` seen from the frame itself.

    Args:
        levels: of a network.

    Returns:
        One a level; None where the order of the axes is not by variance, or is covered by the
        frames themselves, or the functions are not permuted.

    **Equivariance:** does not apply.
    """
    align = getattr(levels[0].poses, "align", None)
    for level in levels:
        grid = type(level.poses) in (GridPoses, CentroidPoses)  # others may order them otherwise
        if not grid or level.poses.rotations != "D2" or level.poses.align != align:
            return None
        if level.pairs is not None or level.kernel_rotations != 1 or level.normals:
            return None
    turns = [basis_turns(axis_orders(), level.kernel_points) for level in levels]
    if align not in ("manhattan", "principal") or any(turn is None for turn in turns):
        return None
    each = 1 + levels[0].in_channels  # numbers of a function that lifts, side by side
    turns[0] = (turns[0][:, :, None] * each + torch.arange(each, device="cpu")).flatten(1)
    return turns


def order_shares(graph: PoseGraph) -> Tensor:
    """Share of each order of the axes [G, 6], those of a cloud add up to one.

    By the variances of all points of a cloud along the axes of its frame, whatever is sampled.

    Args:
        graph: of G clouds, whose frames have axes that ``order_turns`` knows.

    Raises:
        ArgumentError: the graph does not say how its clouds are spread.

    **Equivariance:** invariant; where the frame's axes are numbered in another order, the shares
    are.
    """
    if (spread := graph.levels[0].spread) is None:
        raise ArgumentError(
            "`graph` (=without `spread` on its first level) does not say how clouds are spread; "
            "build it by `build_pose_graph`, or take `model(graph)`, the first order alone"
        )
    variance = spread.double()
    most = variance.amax(1, keepdim=True)
    variance = torch.where(most > 0, variance / most.where(most > 0, 1), 1).clamp_min(_FLAT)
    score = variance ** (1 / WIDTH)
    drawn = score[:, list(map(list, _ORDERS))]  # three things, one after the other [G, 6, 3]
    left = drawn[..., 1] + drawn[..., 2]
    # Plackett and Luce: the probability to draw them in this order.
    share = drawn[..., 0] / score.sum(1, keepdim=True) * drawn[..., 1] / left
    share = (share - LEAST).clamp_min(0)
    return share / share.sum(1, keepdim=True)


def averaged_pooled(model: nn.Module, data: Data | Batch | PoseGraph) -> Tensor:
    """What a network pools, averaged over the orders of the axes that the clouds leave in doubt.

    The network runs once, and once more for each other order, on the clouds where that has a
    share: twice a cloud on average for ModelNet40, six times for a cube.

    Args:
        model: a ``GroupConvClassifier``.
        data: a ``Data``, ``Batch`` or ``PoseGraph`` of G clouds.

    Returns:
        [G, C]; what ``model.pooled`` gives where the levels have no such orders, and while the
        network trains.

    Raises:
        ArgumentError: as the network's, or the graph does not say how the clouds are spread.

    **Equivariance:** invariant; with Manhattan axes and the same representatives also continuous
    where two variances of a cloud cross.
    """
    graph = data if isinstance(data, PoseGraph) else PoseGraph.load(data)
    pooled = model.pooled(graph)
    turns = None if model.training else order_turns(model.levels)
    if turns is None:
        return pooled
    share = order_shares(graph).to(pooled)
    out = pooled * share[:, :1]
    for order in range(1, share.shape[1]):
        clouds = share[:, order].nonzero()[:, 0]
        if len(clouds) == 0:
            continue
        some = graph.take(clouds) if len(clouds) < len(share) else graph
        seen = model.pooled(some, [turn[order].to(pooled.device) for turn in turns])
        out = out.index_add(0, clouds, seen * share[clouds, order, None])
    return out


def averaged_logits(model: nn.Module, data: Data | Batch | PoseGraph) -> Tensor:
    """Logits [G, num_classes] from ``averaged_pooled``: what ``pcequi predict`` and ``evaluate`` go
    by.

    Args:
        model, data: as ``averaged_pooled`` takes.

    Returns:
        What ``model.head`` makes of it; ``model(data)`` where there is nothing to average.

    Raises:
        ArgumentError: as ``averaged_pooled``.

    **Equivariance:** as ``averaged_pooled``.
    """
    if model.training or order_turns(model.levels) is None:
        return model(data)
    return model.head(averaged_pooled(model, data))

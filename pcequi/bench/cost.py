"""What a network's work must cost: its operations and bytes, over what the machine reaches."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.bench.measure import Timing, interleaved
from pcequi.models import GroupConvClassifier
from pcequi.models.orders import order_shares, order_turns
from pcequi.pose_graph import LevelGraph, PoseGraph

__all__ = [
    "COPIED",
    "MATRIX",
    "ceilings",
    "floor_seconds",
    "least_bytes",
    "predict_flops",
    "step_cost",
    "step_flops",
]

#: Rows and columns of the matrices whose product says how fast a CPU multiplies.
MATRIX = 1024
#: Bytes that are copied to see how fast: more than the caches of a CPU hold.
COPIED = 2**28


def step_flops(model: GroupConvClassifier, graph: PoseGraph) -> float:
    """FLOPs of a training step: products forward and twice backward (A has no gradient of its
    own, and is multiplied once there).

    **Equivariance:** does not apply.
    """
    return _body(model, graph, 6.0, 4.0) + _linear(model.head, len(graph.levels[0].count), 6.0)


def predict_flops(model: GroupConvClassifier, graph: PoseGraph) -> float:
    """FLOPs of ``averaged_logits``: of a pass over all clouds, and of one for each other order of
    the axes over those that it is in doubt for.

    **Equivariance:** does not apply.
    """
    clouds = len(graph.levels[0].count)
    flops = _body(model, graph, 2.0, 2.0) + _linear(model.head, clouds, 2.0)
    if order_turns(model.levels) is None:
        return flops
    for share in order_shares(graph).T[1:]:
        if len(some := share.nonzero()[:, 0]):
            flops += _body(model, graph.take(some), 2.0, 2.0)
    return flops


def _body(model: GroupConvClassifier, graph: PoseGraph, learned: float, fixed: float) -> float:
    """FLOPs of all but the head: so many for each multiplication by something learned, and by
    something given."""
    flops = _linear(model.lift, graph.levels[0].num, learned)
    for block, level in zip(model.blocks, graph.levels[1:]):
        conv = block.conv
        cells = len(level.val) if level.blocks is None else level.blocks.numel()
        flops += fixed * cells * (conv.in_channels - _apart(level))
        flops += learned * level.num * conv.weight.numel()
        flops += _linear(block.pointwise, level.num, learned)
        if block.bypass is not None:
            flops += _linear(block.bypass, level.num, learned)
        flops += fixed * level.num * conv.out_channels  # the mean
    return flops


def _apart(level: LevelGraph) -> bool:
    """Whether blocks are taken apart: the constant channel is the sums of their rows then."""
    return level.blocks is not None and level.characters is not None


def _linear(part: torch.nn.Module, rows: int, each: float) -> float:
    layers = [module for module in part.modules() if isinstance(module, torch.nn.Linear)]
    return sum(each * rows * layer.in_features * layer.out_features for layer in layers)


def step_cost(model: GroupConvClassifier, graph: PoseGraph) -> tuple[float, float]:
    """FLOPs of a training step on a batch with ``blocks``, and bytes of a model of its traffic on
    a GPU.

    Bytes, in bfloat16: what goes into a product and what comes out, written and read once each
    way (so twice where one product follows the other), blocks read twice. In single precision:
    weights, gradients and AdamW's two moments read and written. No lower bound: weights, and what
    was just written, may still lie in the cache of a large GPU.

    **Equivariance:** does not apply.
    """
    moved = 0.0
    clouds, lifted = len(graph.levels[0].count), graph.levels[0].num
    for part, rows in ((model.lift, lifted), (model.head, clouds)):
        for module in part.modules():
            if isinstance(module, torch.nn.Linear):
                moved += 8.0 * rows * (module.in_features + module.out_features)
    for block, level in zip(model.blocks, graph.levels[1:]):
        # A GPU writes more constant channels than the one that the weights read, which no other
        # way would have to.
        z = level.num * block.conv.weight.shape[0]
        out = level.num * block.conv.out_channels
        moved += 2.0 * (2 * level.blocks.numel() + 4 * z + 8 * out)
    moved += 7 * 4.0 * sum(p.numel() for p in model.parameters())
    return step_flops(model, graph), moved


def least_bytes(model: GroupConvClassifier, graph: PoseGraph, training: bool) -> float:
    """Bytes that must be moved where nothing lies in a cache before: what the network reads of
    the graph, and its weights; in training, weights and AdamW's two moments read and written.

    What is made in between may stay in the caches, and is not counted.

    **Equivariance:** does not apply.
    """
    names = ("count", "weight", "lift", "bypass", "entries", "col", "val", "blocks")
    tensors = (getattr(level, name) for level in graph.levels for name in names)
    given = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
    weights = sum(p.nbytes for p in model.parameters())
    return given + (6.0 if training else 1.0) * weights


def ceilings(rounds: int, casts: bool = True) -> Timing:
    """Seconds in which this CPU copies ``COPIED`` bytes, and multiplies matrices of
    ``MATRIX`` rows and columns in float32 and, with ``casts``, bfloat16.

    **Equivariance:** does not apply.
    """
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    a, b = torch.rand(2, MATRIX, MATRIX)
    c, d = a.bfloat16(), b.bfloat16()
    steps = {"copy": lambda: target.copy_(source), "matmul": lambda: a @ b}
    if casts:
        steps["matmul_bfloat16"] = lambda: c @ d
    return interleaved(steps, rounds)


def floor_seconds(
    flops: float, moved: float, rates: dict[str, float], precision: str = "float32"
) -> float:
    """The least time of so many FLOPs and bytes, side by side.

    Args:
        flops, moved: of the work.
        rates: ``copy_gb_per_s``, ``matmul_gflop_per_s`` and ``matmul_bfloat16_gflop_per_s``.
        precision: with "bfloat16" the faster of both rates of products counts: some stay in
            float32.

    **Equivariance:** does not apply.
    """
    fastest = rates["matmul_gflop_per_s"]
    if precision == "bfloat16":
        fastest = max(fastest, rates["matmul_bfloat16_gflop_per_s"])
    return max(flops / (1e9 * fastest), moved / (1e9 * rates["copy_gb_per_s"]))

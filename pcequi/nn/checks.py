"""What layers ask of their arguments; no GPU waits for it."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, ShapeError
from pcequi.pose_graph import LevelGraph

__all__ = [
    "check_anchors",
    "check_edge_index",
    "check_edges",
    "check_features",
    "check_level",
    "check_turn",
    "check_type",
]

_WHOLE = (torch.int32, torch.int64)


def _seen(value: object) -> str:
    return f"{list(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else repr(value)[:60]


def check_type(x: Tensor, weight: Tensor) -> None:
    """Whether features are of the type of a layer's weights, or will be cast to it.

    Raises:
        ShapeError: they are not.

    **Equivariance:** does not apply.
    """
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(weight.device.type):
        raise ShapeError(
            f"`x` (={x.dtype}) must be of the type of the layer's weights (={weight.dtype}); take "
            "`x.to(layer.weight.dtype)`, or `layer.to(x.dtype)`"
        )


def check_edge_index(edge_index: Tensor) -> Tensor:
    """Edges [2, E] as the whole numbers of 64 bits that PyG's sums ask for.

    Raises:
        ShapeError: they are none.

    **Equivariance:** does not apply.
    """
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.is_floating_point():
        raise ShapeError(
            f"`edge_index` (={list(edge_index.shape)}, {edge_index.dtype}) must be whole "
            "numbers, [2, edges]: sources above, targets below"
        )
    return edge_index.long()


def check_edges(edge_index: Tensor, size: tuple[int, int]) -> None:
    """Whether all edges [2, E], on a CPU, are between nodes that are there.

    Raises:
        ShapeError: one is not.

    **Equivariance:** does not apply.
    """
    if edge_index.numel() == 0:
        return
    least, most = edge_index.amin(1).tolist(), edge_index.amax(1).tolist()
    if min(least) < 0 or most[0] >= size[0] or most[1] >= size[1]:
        raise ShapeError(
            f"`edge_index` (from {least} to {most}) must name sources below {size[0]} and targets "
            f"below {size[1]}"
        )


def check_anchors(anchor: Tensor, edges: int, anchors: int) -> None:
    """Whether each of so many edges has an anchor of the kernel.

    Raises:
        ShapeError: one has not.

    **Equivariance:** does not apply.
    """
    if anchor.shape != (edges,):
        raise ShapeError(
            f"`relative_pose[2]` (={list(anchor.shape)}) must be [edges] (={[edges]}), "
            "the anchor of each edge"
        )
    if torch.compiler.is_compiling() or anchor.device.type != "cpu" or not anchor.numel():
        return
    if not 0 <= int(anchor.min()) <= int(anchor.max()) < anchors:
        raise ShapeError(
            f"`relative_pose[2]` (from {int(anchor.min())} to {int(anchor.max())}) must name "
            f"anchors of the kernel, 0 to {anchors - 1}; take `level.kernel()` of the same level"
        )


def check_level(level: LevelGraph, basis: int) -> None:
    """Whether a level has the matrix A of a kernel of so many functions.

    Raises:
        ArgumentError: it has not, or is none.

    **Equivariance:** does not apply.
    """
    if not isinstance(level, LevelGraph):
        raise ArgumentError(
            f"`level` (={type(level).__name__}) must be a LevelGraph, one of `graph.levels`"
        )
    if level.entries is None and level.blocks is None:
        raise ArgumentError(
            "`level` (=a lifting level) has no sparse matrix, for it reads nothing below; take "
            "graph.levels[1] or one above it, and `nn.LiftBlock` for this one"
        )
    if level.basis != basis:
        raise ArgumentError(
            f"`level` (=with {level.basis} basis functions) must have those of the layer's "
            f"kernel (={basis}); make the layer with `Level.kernel()` of its level"
        )


def check_features(x: Tensor, level: LevelGraph, sources: Tensor, channels: int) -> None:
    """Whether features are those of the level below, which has so many representatives of each
    cloud as ``sources`` says.

    Raises:
        ShapeError: they are not.

    **Equivariance:** does not apply.
    """
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != channels:
        seen = list(x.shape) if isinstance(x, Tensor) else _seen(x)
        raise ShapeError(f"`x` (={seen}) must be [representatives below, channels (={channels})]")
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # it would fix sizes
        return
    below = "take `count` of the level below"
    clouds = level.count.shape[0]
    if not isinstance(sources, Tensor) or sources.shape != (clouds,) or sources.dtype not in _WHOLE:
        raise ShapeError(
            f"`sources` (={_seen(sources)}) must be whole numbers [clouds] (={[clouds]}): {below}"
        )
    if sources.device.type == "cpu" and int(sources.sum()) != x.shape[0]:
        raise ShapeError(
            f"`sources` (={int(sources.sum())} in all) must be as many as `x` has rows "
            f"(={x.shape[0]}): {below}, and features of all its representatives"
        )


def check_turn(turn: Tensor, basis: int) -> None:
    """Whether a permutation of so many basis functions has their number; it is not looked at.

    Raises:
        ShapeError: it has not.

    **Equivariance:** does not apply.
    """
    if not isinstance(turn, Tensor) or turn.shape != (basis,) or turn.dtype not in _WHOLE:
        raise ShapeError(
            f"`turn` (={_seen(turn)}) must be a permutation of the kernel's functions, whole "
            f"numbers [{basis}]"
        )

"""Training steps side by side: ours, and those of what would be used instead."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcequi.bench.dgcnn import DGCNN
from pcequi.bench.measure import Timing, interleaved, peak_bytes
from pcequi.bench.pointnet2 import PointNet2
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level
from pcequi.training.rows import fast_blocks, load_batch

__all__ = ["GraphStep", "against_dense", "against_others", "compared"]

Steps = dict[str, Callable[[], object]]
Peaks = dict[str, int | None]


class GraphStep:
    """A training step of a network on the graphs of a few clouds, repeated; A as ``fit``
    takes it in this precision.

    **Equivariance:** does not apply.
    """

    def __init__(
        self,
        levels: list[Level],
        clouds: list[Tensor],
        channels: list[int],
        precision: str = "float32",
    ):
        rows, blocks = torch.arange(len(clouds)), fast_blocks(precision, "cpu")
        model = GroupConvClassifier(levels, 40, channels=channels)
        with tempfile.TemporaryDirectory() as folder:
            store = GraphStore.build(folder, clouds, levels, workers=1)
            batch = load_batch(model, store, rows, "cpu", blocks)
        self.step, self.casts = _training(model, rows % 40, batch), precision == "bfloat16"

    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.casts):
            self.step()


def _training(model: nn.Module, target: Tensor, *given) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(*given).float(), target).backward()
        optimizer.step()

    return step


def compared(steps: Steps, rounds: int, warmup: int = 0) -> tuple[Timing, Peaks]:
    """Seconds of steps that take turns, and bytes that each takes at its peak.

    Args:
        steps: by name; each runs twice before its time counts.
        rounds: measured.
        warmup: rounds before them.

    **Equivariance:** does not apply.
    """
    for step in steps.values():
        step()  # from here on AdamW has its state, and only a step's own memory is counted
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    return interleaved(steps, rounds, warmup), peaks


def against_dense(
    label: str,
    levels: list[Level],
    clouds: list[Tensor],
    channels: list[int],
    rounds: int,
    casts: bool = True,
) -> tuple[Timing, Peaks]:
    """Our step and that of the dense network.

    Args:
        label: under which the dense one is found; ours has "_compressed" behind it.
        levels, channels: of the network.
        clouds: of a batch.
        rounds: measured.
        casts: also with automatic casts to bfloat16.

    Returns:
        As ``compared``.

    **Equivariance:** does not apply.
    """
    dense = [level.with_budget() for level in levels]
    steps = {
        f"{label}_compressed": GraphStep(levels, clouds, channels),
        label: GraphStep(dense, clouds, channels),
    }
    if casts:
        steps |= {
            f"{label}_compressed_bfloat16": GraphStep(levels, clouds, channels, "bfloat16"),
            f"{label}_bfloat16": GraphStep(dense, clouds, channels, "bfloat16"),
        }
    return compared(steps, rounds)


def against_others(
    levels: list[Level], clouds: list[Tensor], channels: list[int], rounds: int
) -> tuple[Timing, Peaks]:
    """Our step, from graphs that are ready, and those of networks of PyG's layers in float32: of
    DGCNN, and of PointNet++ with its neighbours searched in the step and before it.

    Args, Returns:
        As ``against_dense``.

    **Equivariance:** does not apply.
    """
    pos, target = torch.stack(clouds), torch.arange(len(clouds)) % 40
    searching, ready = PointNet2(40), PointNet2(40)
    steps = {
        "ours": GraphStep(levels, clouds, channels),
        "dgcnn": _training(DGCNN(40), target, pos),
        "pointnet2": _training(searching, target, pos),
        "pointnet2_ready": _training(ready, target, pos, ready.balls(pos)),
    }
    return compared(steps, rounds)

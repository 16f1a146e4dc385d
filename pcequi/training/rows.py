"""Which clouds are trained on, and reading them ahead of use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from pcequi.errors import ArgumentError
from pcequi.graph_store import GraphStore
from pcequi.pose_graph import PoseGraph

__all__ = ["load_batch", "prefetch", "split_rows"]


def load_batch(
    model: nn.Module, store: GraphStore, rows: Tensor, device: torch.device | str
) -> PoseGraph:
    """The graphs of some clouds where a network runs: float32, or float64 if it is.

    **Equivariance:** as the graphs.
    """
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    return store.batch(rows).to(device, dtype)


def prefetch(function: Callable, items: Iterable, depth: int = 2) -> Iterator:
    """Results of ``function`` over ``items``, made ahead of use by one thread.

    **Equivariance:** does not apply.
    """
    with ThreadPoolExecutor(1) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def split_rows(labels: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Hold out a share of each class.

    Args:
        labels: [n].
        share: in [0, 1); each class keeps at least one cloud to train on.
        seed: of the choice.

    Returns:
        Rows to train on and rows held out, both sorted.

    Raises:
        ArgumentError: ``share`` is outside its range.

    **Equivariance:** does not apply.
    """
    if not 0 <= share < 1:
        raise ArgumentError(f"`val_share` (={share}) must be in [0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=generator)]
        held[order[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]

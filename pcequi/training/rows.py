"""Which clouds are trained on, and reading them ahead of use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from pcequi.errors import ArgumentError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_ready import ready_graphs
from pcequi.graph_store import GraphStore
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.training.precision import multiplies_bfloat16

__all__ = ["built_batch", "device_graphs", "fast_blocks", "load_batch", "prefetch", "split_rows"]

#: Entries for each cell of dense blocks from which these are faster on a CPU
#: (``docs/decisions.md``, 17, 23 and 38): zeros are multiplied too. Blocks that K characters take
#: apart have a K-th of the cells of A.
LEAST_FILL = {torch.bfloat16: 0.15, torch.float32: 0.25}

# Share of a GPU's free memory that graphs may take, and bytes that they leave for steps.
_SHARE, _LEFT = 0.8, 2e9
# Batches that are made ahead of use.
_AHEAD = 2


def fast_blocks(precision: str, device: torch.device | str) -> torch.dtype | None:
    """The type of dense blocks with which training and predictions are faster than with their
    entries, where a level is filled enough.

    On CPUs a step of the default network takes three quarters of the time in float32
    (``docs/decisions.md``, 38), and four fifths with automatic casts to bfloat16 where that is
    multiplied.

    Args:
        precision: of ``FitSettings``.
        device: where the network runs.

    Returns:
        None: take the entries.

    **Equivariance:** does not apply.
    """
    if torch.device(device).type != "cpu":
        return None
    if precision == "bfloat16":
        return torch.bfloat16 if multiplies_bfloat16(device) else None
    return torch.float32


def load_batch(
    model: nn.Module,
    store: GraphStore | DeviceGraphs,
    rows: Tensor,
    device: torch.device | str,
    blocks: torch.dtype | None = None,
) -> PoseGraph:
    """The graphs of some clouds where a network runs: float32, or float64 if it is.

    ``blocks`` is as ``GraphStore.batch`` takes it, for networks in float32, and of levels that
    are filled enough for it (``LEAST_FILL``).

    **Equivariance:** as the graphs.
    """
    if isinstance(store, DeviceGraphs):
        return store.batch(rows.to(store.device))
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    if blocks is not None and dtype == torch.float32:
        least = LEAST_FILL.get(blocks, LEAST_FILL[torch.float32])
        return store.batch(rows, blocks, least_fill=least, twofold=True).to(device)
    return store.batch(rows).to(device, dtype)


def built_batch(
    clouds: Sequence[Tensor],
    levels: Sequence[Level],
    dtype: torch.dtype,
    device: torch.device | str,
) -> PoseGraph:
    """The graphs of some clouds, each [N, 3], made for a prediction where a network runs in
    ``dtype``; as ``load_batch`` gives those of a store.

    **Equivariance:** as ``build_pose_graph``.
    """
    blocks = fast_blocks("float32", device)
    if blocks is not None and dtype == blocks:
        return ready_graphs(clouds, levels, blocks, LEAST_FILL[blocks], twofold=True)
    made = [build_pose_graph(pos, levels, dtype=dtype) for pos in clouds]
    return PoseGraph.batch(made).to(device)


def device_graphs(
    store: GraphStore | DeviceGraphs, device: torch.device | str, dtype: torch.dtype
) -> GraphStore | DeviceGraphs:
    """The graphs of a store in a GPU's memory, where they fit there; else the store.

    Args:
        store: of clouds; what lies on a device already is returned as it is.
        device: where the network runs.
        dtype: what it computes in.

    **Equivariance:** as the graphs.
    """
    device = torch.device(device)
    if device.type != "cuda" or isinstance(store, DeviceGraphs):
        return store
    torch.cuda.empty_cache()  # What earlier graphs left there is free as well.
    free = torch.cuda.mem_get_info(device)[0] - _LEFT
    if DeviceGraphs.bytes_needed(store, dtype) > _SHARE * free:
        return store
    try:
        return DeviceGraphs.load(store, device, dtype)
    except ArgumentError:  # clouds of different numbers of representatives
        return store


def prefetch(function: Callable, items: Iterable) -> Iterator:
    """Results of ``function`` over ``items``, made ahead of use by one thread.

    **Equivariance:** does not apply.
    """
    with ThreadPoolExecutor(1) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def split_rows(labels: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Hold out a share of each class, at least one cloud if it has more and the share is above 0.

    Args:
        labels: [n].
        share: in [0, 1); each class keeps at least one cloud to train on.
        seed: of the choice.

    Returns:
        Rows to train on and rows held out, both sorted.

    Raises:
        ArgumentError: ``share`` is outside its range, or nothing can be held out.

    **Equivariance:** does not apply.
    """
    if not 0 <= share < 1:
        raise ArgumentError(f"`val_share` (={share}) must be in [0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=generator)]
        wanted = max(round(share * len(rows)), share > 0)
        held[order[: min(wanted, len(rows) - 1)]] = True
    if share and not held.any():
        raise ArgumentError(
            f"`val_share` (={share}) holds nothing out, as each class has one cloud to train on; "
            "add clouds, or leave it out"
        )
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]

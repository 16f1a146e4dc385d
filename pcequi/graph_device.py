"""Precomputed pose graphs in the memory of a device, batched there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, FileError
from pcequi.graph_store import GraphStore
from pcequi.ops import RowTurns, dense_blocks
from pcequi.pose_graph import LevelGraph, PoseGraph

__all__ = ["DeviceGraphs"]

# Clouds that are read from the store together.
_STEP = 512


class DeviceGraphs:
    """All graphs of a store on a device, A as dense blocks.

    A batch is a few copies inside the device, with nothing for the host to do
    or to wait for. Positions and frames of the representatives are left out: no
    network reads them.

    Args:
        store: whose clouds all have the same numbers of representatives.
        device: where the graphs go.
        dtype: of the blocks: what the network computes in.
        progress: called with (clouds done, clouds in all).

    Raises:
        ArgumentError: clouds have different numbers of representatives.
        FileError: the store is damaged.

    **Equivariance:** holds what the store holds, with A rounded to ``dtype``.
    """

    def __init__(
        self,
        store: GraphStore,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.device, self.size = torch.device(device), len(store)
        self.levels = store.levels
        counts = _even_counts(store)
        self._each = counts
        self._turned = [
            None if turns is None else RowTurns.of(*turns).to(self.device) for turns in store.turns
        ]
        self._tensors: list[dict[str, Tensor]] = [{} for _ in counts]
        for start in range(0, self.size, _STEP):
            rows = range(start, min(start + _STEP, self.size))
            below = 0
            for number, values in enumerate(store.packed(rows)):
                if (values["count"] != counts[number]).any():
                    raise _uneven(store, number)
                self._put(number, rows, self._blocks(store, number, values, below, dtype))
                below = counts[number]
            if progress:
                progress(rows.stop, self.size)

    def _blocks(self, store, number: int, values: dict, below: int, dtype) -> dict[str, Tensor]:
        """What is kept of a level of some clouds: [clouds, ...] each."""
        clouds = len(values["count"])
        kept = {"weight": values["weight"].float().view(clouds, -1).to(self.device)}
        if number == 0:
            kept["lift"] = values["lift"].view(clouds, self._each[0], -1).to(self.device)
            return kept
        entries, col, val = values["entries"], values["col"], values["val"]
        turned = self._turned[number]
        points = self._each[number] // (1 if turned is None else turned.size)
        fits = len(entries) == clouds * points * self.levels[number].basis
        if not fits or int(entries.sum()) != len(col) or not _inside(col, below):
            raise FileError(
                f"a chunk of {store.folder} is damaged (its rows do not fit its entries); "
                "precompute again, which finds and mends it"
            )
        parts = (part.to(self.device) for part in (entries, col, val))
        kept["blocks"] = dense_blocks(*parts, clouds, below, dtype)
        return kept

    def _put(self, number: int, rows: range, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            if name not in self._tensors[number]:
                self._tensors[number][name] = value.new_empty(self.size, *value.shape[1:])
            self._tensors[number][name][rows.start : rows.stop] = value

    def __len__(self) -> int:
        return self.size

    @staticmethod
    def bytes_needed(store: GraphStore, dtype: torch.dtype = torch.float32) -> int:
        """Memory that the graphs of a store take on a device.

        Raises:
            ArgumentError, FileError: as the class.
        """
        total, below, width = 0, 0, torch.empty(0, dtype=dtype).element_size()
        first = store.packed([0])
        for number, (level, each) in enumerate(zip(store.levels, _even_counts(store))):
            turns = store.turns[number]
            points = each if turns is None else each // len(turns[0])
            total += 4 * each + width * points * level.basis * below
            if number == 0:
                total += first[0]["lift"].nbytes
            below = each
        return total * len(store)

    def batch(self, rows: Tensor, out: PoseGraph | None = None) -> PoseGraph:
        """The graphs of some clouds as one.

        Args:
            rows: [G], on the device; not looked at, so a row outside is an error of the device.
            out: of an earlier batch of as many clouds, whose memory is filled again.

        Returns:
            A ``PoseGraph`` with ``blocks``, without ``pos`` and ``rot``.
        """
        levels = []
        for number, (tensors, each) in enumerate(zip(self._tensors, self._each)):
            old = None if out is None else out.levels[number]
            found = {}
            for name, tensor in tensors.items():
                into = (
                    None if old is None else getattr(old, name).view(len(rows), *tensor.shape[1:])
                )
                taken = torch.index_select(tensor, 0, rows, out=into)
                found[name] = taken if name == "blocks" else taken.flatten(0, 1)
            if old is not None:
                levels.append(old)
                continue
            count = torch.full((len(rows),), each, dtype=torch.long, device=self.device)
            basis = self.levels[number].basis if "blocks" in found else 0
            turned = self._turned[number]
            level = LevelGraph(count, found.pop("weight"), None, None, basis, **found)
            level.turned, level.each = turned, each
            levels.append(level)
        return PoseGraph(levels)


def _even_counts(store: GraphStore) -> list[int]:
    """Representatives of each level of the first cloud of a store.

    **Equivariance:** does not apply.
    """
    return [int(values["count"][0]) for values in store.packed([0])]


def _inside(col: Tensor, size: int) -> bool:
    return not len(col) or (int(col.min()) >= 0 and int(col.max()) < size)


def _uneven(store: GraphStore, number: int) -> ArgumentError:
    return ArgumentError(
        f"`store` (={str(store.folder)!r}) has clouds with different numbers of representatives "
        f"at level {number}; read its batches from the store itself"
    )

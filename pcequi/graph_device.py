"""Precomputed pose graphs in the memory of a device, batched there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from pcequi.clouds import check_floating
from pcequi.errors import ArgumentError
from pcequi.graph_store import GraphStore
from pcequi.ops import dense_blocks, put_together
from pcequi.pose_graph import Level, LevelGraph, PoseGraph, block_characters, first_rows
from pcequi.pose_graph.batched import build_parts

__all__ = ["DeviceGraphs"]

# Clouds that are read from a store together.
_STEP = 512
# Tensors of the first level, and those with a row for each cloud.
_OF_FIRST = ("lift", "spread")
_OF_CLOUDS = ("blocks", "spread")


class DeviceGraphs:
    """Graphs of many clouds on a device, A as dense blocks.

    A batch is a few copies inside the device, with nothing for the host to do
    or to wait for. Positions and frames of the representatives are left out. Made by ``build``,
    ``load`` or ``collect``.

    Args:
        levels: of the network.
        parts: which clouds, and of each level their tensors, as ``collect`` makes them.
        size: clouds in all.

    Attributes:
        levels: as given.
        device: where the graphs lie.

    Raises:
        ArgumentError: clouds have different numbers of representatives.

    **Equivariance:** holds the graphs that it is given, with A rounded.
    """

    def __init__(self, levels: Sequence[Level], parts: Iterable[tuple], size: int):
        self.levels, self.size = list(levels), size
        self._tensors: list[dict[str, Tensor]] = [{} for _ in self.levels]
        for rows, part in parts:
            for tensors, values in zip(self._tensors, part):
                for name, value in values.items():
                    if name not in tensors:
                        tensors[name] = value.new_empty(size, *value.shape[1:])
                    if value.shape[1:] != tensors[name].shape[1:]:
                        raise _uneven(tensors["weight"].shape[1], values["weight"].shape[1])
                    tensors[name][rows] = value
        self.device = self._tensors[0]["weight"].device
        self._each = [tensors["weight"].shape[1] for tensors in self._tensors]
        self._characters = [
            found if found is None else found.to(self.device)
            for found in block_characters(self.levels)
        ]

    @classmethod
    def build(
        cls,
        clouds: Sequence[Tensor],
        levels: Sequence[Level],
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        progress: Callable[[int, int], None] | None = None,
    ) -> DeviceGraphs:
        """Graphs of clouds, made on the device: those of ``build_pose_graphs``, whose A is never
        written as entries.

        Args:
            clouds: each [N, 3], any floating dtype, of any size.
            levels: of the network.
            device: where the graphs are made, and lie.
            dtype: of the blocks: what the network computes in.
            progress: called with (clouds done, clouds in all).

        Raises:
            ArgumentError: there is no cloud, clouds have different numbers of representatives, or
                ``dtype`` is not floating.
            ShapeError, DataError: a cloud is unusable.

        **Equivariance:** as ``build_pose_graph``, with A rounded.
        """
        check_floating(dtype)

        def parts():
            done = 0
            for numbers, graph in build_parts(clouds, levels, torch.device(device), dtype):
                yield torch.tensor(numbers, device=device), _from_graph(graph, levels, dtype)
                done += len(numbers)
                if progress:
                    progress(done, len(clouds))

        return cls(levels, parts(), len(clouds))

    @classmethod
    def load(
        cls,
        store: GraphStore,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        progress: Callable[[int, int], None] | None = None,
    ) -> DeviceGraphs:
        """All graphs of a store.

        Args:
            store: whose clouds all have the same numbers of representatives.
            device: where the graphs go.
            dtype: of the blocks: what the network computes in.
            progress: called with (clouds done, clouds in all).

        Raises:
            ArgumentError: clouds have different numbers of representatives, or ``dtype`` is not
                floating.
            FileError: the store is damaged.

        **Equivariance:** as the class.
        """
        check_floating(dtype)

        def graphs():
            for start in range(0, len(store), _STEP):
                stop = min(start + _STEP, len(store))
                yield store.batch(range(start, stop), blocks=dtype).to(device)
                if progress:
                    progress(stop, len(store))

        return cls.collect(graphs(), store.levels, len(store), dtype)

    @classmethod
    def collect(
        cls,
        graphs: Iterable[PoseGraph],
        levels: Sequence[Level],
        size: int,
        dtype: torch.dtype = torch.float32,
    ) -> DeviceGraphs:
        """Graphs that were just made, where they lie.

        Args:
            graphs: of some clouds each, see ``pose_graph.build_pose_graph``.
            levels: of which they were made.
            size: clouds in all.
            dtype: of the blocks.

        Raises:
            ArgumentError: clouds have different numbers of representatives, or ``dtype`` is not
                floating.

        **Equivariance:** as the class.
        """
        check_floating(dtype)

        def parts():
            done = 0
            for graph in graphs:
                part = _from_graph(graph, levels, dtype)
                yield slice(done, done + len(part[0]["weight"])), part
                done += len(part[0]["weight"])

        return cls(levels, parts(), size)

    def __len__(self) -> int:
        return self.size

    @staticmethod
    def bytes_needed(store: GraphStore, dtype: torch.dtype = torch.float32) -> int:
        """Memory that the graphs of a store take on a device.

        Raises:
            FileError: the store is damaged.
        """
        total, below, width = 0, 0, torch.empty(0, dtype=dtype).element_size()
        for number, values in enumerate(store.packed([0])):
            if "bypass" in values:
                total += 4 * values["bypass"].numel()
            each, characters = int(values["count"]), store.characters[number]
            points = each if characters is None else each // characters.size
            total += 4 * each + width * points * store.levels[number].basis * below
            if number == 0:
                total += sum(4 * values[name].numel() for name in _OF_FIRST if name in values)
            below = each
        return total * len(store)

    def batch(self, rows: Tensor) -> PoseGraph:
        """The graphs of some clouds as one.

        Args:
            rows: [G], on the device; not looked at, so a row outside is an error of the device.

        Returns:
            A ``PoseGraph`` with ``blocks`` and without ``pos`` and ``rot``.
        """
        levels = []
        for number, (tensors, each) in enumerate(zip(self._tensors, self._each)):
            found = {}
            for name, tensor in tensors.items():
                taken = tensor.index_select(0, rows)
                found[name] = taken if name in _OF_CLOUDS else taken.flatten(0, 1)
            count = torch.full((len(rows),), each, dtype=torch.long, device=self.device)
            basis = self.levels[number].basis if "blocks" in found else 0
            level = LevelGraph(count=count, pos=None, rot=None, basis=basis, **found)
            level.characters, level.each = self._characters[number], each
            levels.append(level)
        return PoseGraph(levels)


def _from_graph(graph: PoseGraph, levels: Sequence[Level], dtype) -> list[dict[str, Tensor]]:
    part: list[dict[str, Tensor]] = []
    for level, characters in zip(graph.levels, block_characters(levels)):
        each, clouds = _even(level.count), len(level.count)
        below = part[-1]["weight"].shape[1] if part else 0
        part.append({"weight": level.weight.float().view(clouds, each)})
        if below == 0:
            part[0]["lift"] = level.lift.float().view(clouds, each, -1)
            if level.spread is not None:
                part[0]["spread"] = level.spread.float()
            continue
        if level.bypass is not None:
            part[-1]["bypass"] = level.bypass.float().view(clouds, each, -1)
        if level.blocks is not None:
            part[-1]["blocks"] = put_together(level.blocks, level.characters)
            continue
        sparse = level.entries, level.col, level.val
        if characters is not None:
            sparse = first_rows(level, characters.turns)
            characters = characters.to(level.val.device)
        part[-1]["blocks"] = dense_blocks(*sparse, clouds, below, dtype, characters)
    return part


def _even(count: Tensor) -> int:
    each = int(count[0])
    if (count != each).any():
        raise _uneven(each, int(count[count != each][0]))
    return each


def _uneven(one: int, other: int) -> ArgumentError:
    return ArgumentError(
        f"`graphs` or `clouds` have different numbers of representatives ({one} and {other}); give "
        "levels a budget that every cloud has (`num`), or read the batches of a `GraphStore`"
    )

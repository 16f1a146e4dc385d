"""One chunk of a graph store: a safetensors file of the graphs of some clouds.

Chunks are read by position, not mapped: a store that is larger than memory
takes no more of it than a batch, and a file that is cut off while it is in use
is an error instead of the end of the process.

The header carries a CRC-32 of each tensor (over its name, type, shape and
bytes) and the key of the store. Opening checks all that the header and the
size of the file say, which costs microseconds; ``Chunk.verify`` reads it all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from pcequi.errors import FileError
from pcequi.files import write_bytes
from pcequi.pose_graph import TENSORS, Level, alignment
from pcequi.tensor_files import (
    DTYPES,
    KINDS,
    StoredTensor,
    damaged,
    opened,
    read_header,
    read_into,
    stamp_of,
)

__all__ = ["Chunk", "open_chunk", "read_graphs", "tensor_names", "write_chunk"]

_LIFTED = ("lift", "spread")
_SPARSE = ("entries", "col", "val")


def tensor_names(levels: Sequence[Level]) -> list[str]:
    """Names of the tensors in a chunk, without those that say where clouds begin.

    **Equivariance:** does not apply.
    """
    names = []
    for number, level in enumerate(levels):
        absent = _LIFTED if number else (*_SPARSE, "bypass")
        if number == 0 and not alignment(level):
            absent += ("spread",)
        if number and not level.bypass:
            absent += ("bypass",)
        names += [f"{number}.{name}" for name in TENSORS if name not in absent]
    return names


@dataclass
class Chunk:
    """An open chunk: what its header says, and no tensor but the first rows.

    Attributes:
        path: of the file.
        tensors: by name, see ``tensor_names``.
        ptr: first row of each cloud, and the end, of each of ``tensor_names``:
            int64 [names, clouds + 1].
        sums: CRC-32 by name.
        stamp: what tells this file from another that takes its place.

    **Equivariance:** as the graphs in it.
    """

    path: Path
    tensors: dict[str, StoredTensor]
    ptr: np.ndarray
    sums: dict[str, int]
    stamp: tuple[int, ...]

    def verify(self) -> None:
        """Read the whole file and compare it with its checksums.

        Raises:
            FileError: a tensor is not what was written.
        """
        with opened(self.path) as file:
            for name, stored in self.tensors.items():
                content = np.empty(stored.bytes, np.uint8)
                read_into(file, stored.start, memoryview(content), self.path)
                if _sum(name, stored.kind, stored.shape, content) != self.sums[name]:
                    raise damaged(self.path, f"the checksum of {name!r} differs")


def write_chunk(path: Path, graphs: Sequence[dict[str, Tensor]], key: str) -> None:
    """Write the packed graphs of some clouds as one file, whole or not at all.

    Args:
        path: of the file.
        graphs: a dictionary a cloud, as ``graph_build.pack`` makes them.
        key: of the store that it belongs to.

    Raises:
        FileError: the disk is full, or the folder cannot be written.

    **Equivariance:** as the graphs.
    """
    tensors: dict[str, Tensor] = {}
    for name in graphs[0]:
        parts = [graph[name] for graph in graphs]
        tensors[name + ".ptr"] = torch.tensor([0] + [len(part) for part in parts]).cumsum(0)
        tensors[name] = torch.cat(parts)
    kinds = {DTYPES[np.dtype(kind)]: name for name, kind in KINDS.items()}
    sums = {
        name: _sum(name, kinds[value.dtype], tuple(value.shape), value.numpy())
        for name, value in tensors.items()
    }
    # One entry: safetensors writes several in any order, and a store should not vary.
    write_bytes(path, save(tensors, {"pcequi": json.dumps({"store": key, "crc32": sums})}))


def open_chunk(path: Path, names: Sequence[str], clouds: int, key: str) -> Chunk:
    """Read the header of a chunk and check everything that it says.

    Args:
        path: of the file.
        names: ``tensor_names`` of the store's levels.
        clouds: that it must hold.
        key: of the store that it must belong to.

    Raises:
        FileError: the file is missing, damaged, or of another store.

    **Equivariance:** does not apply.
    """
    with opened(path) as file:
        stamp = stamp_of(file)
        tensors, note = read_header(file, path)
        if set(tensors) != {full for name in names for full in (name, name + ".ptr")}:
            raise damaged(path, "it does not hold the tensors of this store's levels")
        if note.get("store") != key:
            raise damaged(path, f"it belongs to the store {note.get('store')!r}")
        ptr = np.empty((len(names), clouds + 1), np.int64)
        for name, rows in zip(names, ptr):
            first = tensors[name + ".ptr"]
            if first.kind != "I64" or first.shape != (clouds + 1,):
                raise damaged(path, f"it does not hold {clouds} clouds")
            read_into(file, first.start, memoryview(rows.view(np.uint8)), path)
            if rows[0] != 0 or (np.diff(rows) < 0).any() or rows[-1] != tensors[name].shape[0]:
                raise damaged(path, f"the rows of {name!r} do not fit its clouds")
    sums = note.get("crc32")
    if not isinstance(sums, dict) or set(sums) != set(tensors):
        raise damaged(path, "its checksums are not those of its tensors")
    return Chunk(path, tensors, ptr, sums, stamp)


def read_graphs(places: Sequence[tuple[Chunk, int]], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of some clouds, one after the other.

    Args:
        places: chunk and number within it of each cloud.
        names: ``tensor_names`` of their store.

    Returns:
        By name; where chunks differ in integer type, the wider one.

    Raises:
        FileError: a file is gone or has changed since it was opened.

    **Equivariance:** as the graphs.
    """
    spans = [chunk.ptr[:, row : row + 2].tolist() for chunk, row in places]
    layouts = [[chunk.tensors[name] for name in names] for chunk, _ in places]
    out, views = [], []
    for number in range(len(names)):
        kinds = [KINDS[kind] for kind in {layout[number].kind for layout in layouts}]
        num = sum(span[number][1] - span[number][0] for span in spans)
        row = layouts[0][number].shape[1:]
        # Torch's memory: NumPy's costs half as much again to fill for the first time.
        out.append(torch.empty((num, *row), dtype=DTYPES[np.result_type(*kinds)]))
        views.append(memoryview(out[-1].numpy().reshape(-1).view(np.uint8)))
    filled = [0] * len(names)
    for (chunk, _), span, layout in zip(places, spans, layouts):
        with opened(chunk.path) as file:
            if stamp_of(file) != chunk.stamp:
                raise FileError(
                    f"{chunk.path} changed while it was in use; open the store again (resume)"
                )
            for number, ((start, stop), stored) in enumerate(zip(span, layout)):
                size, first = stored.row_bytes, filled[number]
                place, length = stored.start + start * size, (stop - start) * size
                if DTYPES[KINDS[stored.kind]] is out[number].dtype:
                    filled[number] = first + length
                    read_into(file, place, views[number][first : first + length], chunk.path)
                    continue
                narrow = np.empty(length, np.uint8)
                read_into(file, place, memoryview(narrow), chunk.path)
                part = torch.from_numpy(narrow.view(KINDS[stored.kind])).to(out[number].dtype)
                filled[number] = last = first + part.numel() * part.element_size()
                views[number][first:last] = memoryview(part.numpy().view(np.uint8))
    return dict(zip(names, out))


def _sum(name: str, kind: str, shape: tuple[int, ...], content: np.ndarray) -> int:
    about = zlib.crc32(f"{name} {kind} {list(shape)}".encode())
    return zlib.crc32(np.ascontiguousarray(content).reshape(-1).view(np.uint8), about)

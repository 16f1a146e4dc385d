"""Precomputed pose graphs of many clouds, on disk.

A store is a folder: ``store.json`` (settings and their key) and numbered
chunks, see ``graph_chunks``. Chunks are written whole or not at all, so an
interrupted precomputation goes on where it stopped, and several processes that
precompute the same store share its chunks. Every build reads all chunks that
are there (a second for four gigabytes) and makes damaged ones again.
Entries are 16-bit: columns are counted within a cloud, and a kernel value
rounded to 11 bits moves an output by less than training noise does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcequi.clouds import check_floating
from pcequi.errors import ArgumentError, DataError, FileError, ShapeError, check_count
from pcequi.files import locked, make_folder, write_bytes
from pcequi.graph_build import ChunkJob, clear_leftovers, is_good, run_jobs
from pcequi.graph_chunks import Chunk, open_chunk, read_graphs, tensor_names
from pcequi.graph_ready import ready_batch
from pcequi.pose_graph import TENSORS, Level, PoseGraph, block_characters, stored_turns
from pcequi.pose_graph.point_numbers import check_points_alone
from pcequi.ranks import ALONE, Ranks, local_cores

__all__ = ["GraphStore", "store_key"]

_LOG = logging.getLogger(__name__)
# Raise when the content of a store changes for the same settings.
VERSION = 11
CHUNK = 64
# Seconds in which a network folder shows what another machine wrote; NFS keeps names for 60.
PATIENCE = 90.0


def store_key(clouds: Sequence[Tensor], levels: Sequence[Level], rotations: Tensor | None) -> str:
    """Digest of everything that decides what a store holds: the points, the
    settings, the rotations and the version of the code.

    **Equivariance:** none: a turned cloud has another key.
    """
    digest = hashlib.sha256()
    for cloud in clouds:
        # With its shape: the same numbers cut into other clouds are other clouds.
        digest.update(f"{tuple(cloud.shape)} {cloud.dtype}".encode())
        digest.update(np.ascontiguousarray(_array(cloud)).tobytes())
    if rotations is not None:
        digest.update(np.ascontiguousarray(_array(rotations)).tobytes())
    settings = {"levels": [level.to_dict() for level in levels], "version": VERSION}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]


class GraphStore:
    """Precomputed graphs, read cloud by cloud or as training batches.

    Nothing but headers is kept in memory: a store may be larger than that.

    Args:
        folder: a folder that ``GraphStore.build`` finished.

    Attributes:
        turns: of each level how the rows of all poses follow from those that are kept
            (see ``pose_graph.orbit_turns``); None where all are kept.
        characters: of each level by what its dense blocks are taken apart, or None.

    Raises:
        FileError: the folder holds no finished store, or a chunk is missing, cut
            off, of another store, or its header is damaged.

    **Equivariance:** holds what ``build_pose_graph`` made; see there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            header = json.loads((self.folder / "store.json").read_text())
            self.levels = [Level.from_dict(level) for level in header["levels"]]
            self.size, key = int(header["size"]), header["key"]
            if self.size < 1 or not self.levels:
                raise ValueError("it is empty")
        except (
            OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
            RecursionError,
        ) as error:  # fmt: skip
            raise FileError(
                f"`folder` (={str(folder)!r}) holds no finished graph store "
                f"(store.json: {error}); precompute again, which finishes it"
            ) from error
        self.turns = stored_turns(self.levels)
        self.characters = block_characters(self.levels)
        self._names = tensor_names(self.levels)
        self.chunks: list[Chunk] = [
            open_chunk(_path(self.folder, start), self._names, count, key)
            for start, count in _spans(self.size)
        ]

    def __len__(self) -> int:
        return self.size

    def batch(
        self,
        rows: Sequence[int] | Tensor,
        blocks: torch.dtype | None = None,
        *,
        least_fill: float = 0.0,
        twofold: bool = False,
    ) -> PoseGraph:
        """The graphs of some clouds as one batched ``PoseGraph``, ready to use.

        Args:
            rows: of the clouds [G].
            blocks: A as dense blocks of this type, where all these clouds have the same
                numbers of representatives; None: as its entries.
            least_fill: levels keep their entries where these are fewer for each cell of the
                blocks, of which there are a K-th of A's where K characters take it apart.
            twofold: blocks in single precision of large batches have their functions taken apart
                as well, for products on a CPU (``ops.twofold_product``).

        Raises:
            ArgumentError: a row is outside the store, or ``blocks`` is no floating type.
            FileError: a chunk is gone or has changed since the store was opened, or is
                damaged where its rows are turned or made dense.
        """
        check_floating(blocks, "blocks")
        try:
            kept = self.packed(rows)
            return ready_batch(
                kept, self.levels, self.turns, self.characters, blocks, least_fill, twofold
            )
        except DataError as error:
            raise FileError(
                f"a chunk of {self.folder} is damaged (its {error}); precompute again, which finds "
                "and mends it"
            ) from error

    def packed(self, rows: Sequence[int] | Tensor) -> list[dict[str, Tensor]]:
        """Of each level the tensors that the store keeps of some clouds, see ``graph_build.pack``.

        Raises:
            ArgumentError, FileError: as ``batch``.
        """
        rows = [int(row) for row in rows]
        if not rows or min(rows) < 0 or max(rows) >= self.size:
            raise ArgumentError(f"`rows` (={rows}) must be at least one, from 0 to {self.size - 1}")
        places = [(self.chunks[row // CHUNK], row % CHUNK) for row in rows]
        tensors = read_graphs(places, self._names)
        levels = []
        for number in range(len(self.levels)):
            names = [name for name in TENSORS if f"{number}.{name}" in tensors]
            values = {name: tensors[f"{number}.{name}"] for name in names}
            halves = (name for name in ("val", "bypass") if name in values)
            values |= {name: values[name].float() for name in halves}
            levels.append(values)
        return levels

    def verify(self) -> None:
        """Read the whole store and compare it with its checksums.

        Raises:
            FileError: a chunk is not what was written; it names the file.
        """
        for chunk in self.chunks:
            chunk.verify()

    @classmethod
    def build(
        cls,
        folder: str | Path,
        clouds: Sequence[Tensor],
        levels: Sequence[Level],
        *,
        rotations: Tensor | None = None,
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        ranks: Ranks = ALONE,
    ) -> GraphStore:
        """Precompute the graphs of all clouds, or finish what was begun.

        Chunks that are there are read and compared with their checksums; what is
        damaged is made again, and a warning of the logger ``pcequi.graph_store``
        says so. Chunks that another process is making are left to it.

        Processes that were launched together (``ranks``) take every so-many-th
        chunk, help those that are behind, and return when all is there; the
        folder must be one that all their machines share.

        Args:
            folder: of all stores; this one's own name is its key.
            clouds: each [N, 3].
            levels: of the network.
            rotations: one rotation a cloud [len(clouds), 3, 3], applied first.
            workers: processes; by default one a core.
            progress: called with (clouds done, clouds in all).
            ranks: processes that call this together.

        Raises:
            DataError: a cloud is unusable; the message says which one.
            ArgumentError: the levels take more of a point than its place (``Level.in_channels``).
            FileError: the disk is full, or the folder cannot be written, or is not
                shared by all machines.
        """
        if len(clouds) == 0:
            raise DataError("`clouds` (=[]) is empty; there is nothing to precompute")
        for number, cloud in enumerate(clouds):
            if not isinstance(cloud, Tensor):  # What is wrong with it otherwise, workers say.
                kind = type(cloud).__name__
                raise ShapeError(f"`clouds[{number}]` (={kind}) must be a tensor of shape [N, 3]")
        check_points_alone(levels)
        if rotations is not None and rotations.shape != (len(clouds), 3, 3):
            raise ShapeError(
                f"`rotations` (={list(rotations.shape)}) must be one a cloud, of shape "
                f"[{len(clouds)}, 3, 3]"
            )
        check_count("workers", workers, none=True)
        key = store_key(clouds, levels, rotations)
        folder = Path(folder) / key
        make_folder(folder)
        starts = [start for start, _ in _spans(len(clouds))]

        def job(start: int) -> ChunkJob:
            part = slice(start, start + CHUNK)
            turns = None if rotations is None else _array(rotations[part])
            path = _path(folder, start)
            return ChunkJob(
                path, start, [_array(cloud) for cloud in clouds[part]], list(levels), turns, key
            )

        own = starts[ranks.rank :: ranks.size]
        jobs = [job(start) for start in own if not is_good(job(start))]
        done = len(own) - len(jobs)
        # Of the others' shares last chunks first: what their owners come to last.
        others = sorted(set(starts) - set(own), reverse=True)
        absent = [start for start in others if not os.path.exists(_path(folder, start))]
        jobs += [job(start)._replace(spare=True) for start in absent]
        workers = workers or local_cores()
        for made in run_jobs(jobs, min(workers, max(1, len(jobs))), say=ranks.size == 1):
            done += not made.spare
            if progress:
                progress(min(done * ranks.size * CHUNK, len(clouds)), len(clouds))
        ranks.wait()
        paths = [folder / "store.json", *(_path(folder, start) for start in starts)]
        if ranks.first:
            header = {"levels": [lv.to_dict() for lv in levels], "size": len(clouds), "key": key}
            _write_header(paths[0], json.loads(json.dumps(header)))
            clear_leftovers(folder)
        ranks.wait()
        if ranks.size > 1:
            _await_files(paths)
        return cls(folder)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _spans(size: int) -> Iterator[tuple[int, int]]:
    """First cloud and number of clouds of each chunk."""
    for start in range(0, size, CHUNK):
        yield start, min(CHUNK, size - start)


def _path(folder: Path, start: int) -> Path:
    return folder / f"chunk-{start // CHUNK:05d}.safetensors"


def _await_files(paths: Sequence[Path]) -> None:
    """Until files that other machines wrote show in a network folder, which may take a minute."""
    folder, end = paths[0].parent, time.monotonic() + PATIENCE
    while absent := sorted({path.name for path in paths} - set(os.listdir(folder))):
        if time.monotonic() > end:
            raise FileError(
                f"{folder} lacks {len(absent)} files that other processes wrote (such as "
                f"{absent[0]}); give a folder that all machines share"
            )
        time.sleep(0.2)


def _write_header(path: Path, header: dict) -> None:
    """Write the settings, unless they are there: a finished store may be read-only."""
    try:
        if json.loads(path.read_text()) == header:
            return
        reason = "describes another store"
    except FileNotFoundError:
        reason = None
    except (OSError, ValueError, RecursionError) as error:
        reason = f"is damaged ({error})"
    if reason:
        _LOG.warning("%s %s; it is written again now", path, reason)
    with locked(path.with_suffix(".lock"), wait=True):
        write_bytes(path, json.dumps(header, indent=1).encode())

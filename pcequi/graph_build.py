"""Making the chunks of a graph store, in one process or many.

Every chunk is made under a lock, so processes that precompute the same store
share its chunks: what one is making the others pass over, and wait for at the
end. A process that is killed leaves no lock, and no chunk but whole ones.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcequi.errors import FileError, PcequiError
from pcequi.files import locked
from pcequi.graph_chunks import open_chunk, tensor_names, write_chunk
from pcequi.pose_graph import (
    TENSORS,
    GraphBuilder,
    Level,
    PoseGraph,
    first_rows,
    stored_turns,
)
from pcequi.workers import one_thread, worker_map

__all__ = [
    "ChunkJob",
    "build_chunk",
    "build_stored_graph",
    "clear_leftovers",
    "is_good",
    "pack",
    "run_jobs",
]

_LOG = logging.getLogger(__name__)
_PACKED = {"entries": torch.int16, "col": torch.int16}
_PACKED |= {"val": torch.float16, "bypass": torch.float16}


class ChunkJob(NamedTuple):
    """A chunk to be made.

    Attributes:
        path: of the file.
        start: number of its first cloud, for messages.
        clouds: each [N, 3], as NumPy arrays: of torch's tensors processes send each other an
            open file each, or move all that shares their memory to a shared one.
        levels: of the network.
        rotations: one a cloud [len(clouds), 3, 3], an array, or None.
        key: of the store.
        wait: for another process that is making it.
        spare: the share of another process, made only where nothing is there and
            nobody is making it.

    **Equivariance:** does not apply.
    """

    path: Path
    start: int
    clouds: Sequence[np.ndarray]
    levels: Sequence[Level]
    rotations: np.ndarray | None
    key: str
    wait: bool = False
    spare: bool = False


def is_good(job: ChunkJob, say: bool = True) -> bool:
    """Whether a chunk is there and whole; with ``say``, damage is logged.

    **Equivariance:** does not apply.
    """
    if not os.path.exists(job.path):
        return False
    try:
        open_chunk(job.path, tensor_names(job.levels), len(job.clouds), job.key).verify()
    except FileError as error:
        if say:
            _LOG.warning("%s; it is made again now", str(error).rpartition(";")[0])
        return False
    return True


def run_jobs(jobs: Sequence[ChunkJob], workers: int, say: bool = True) -> Iterator[ChunkJob]:
    """Make chunks, by several processes where asked for; yields each that is there.

    With ``say``, waiting for another process is logged.

    Raises:
        PcequiError: of a kind that says what is wrong with a cloud or the disk; or
            a worker died.

    **Equivariance:** does not apply.
    """
    with worker_map(min(workers, max(1, len(jobs)))) as apply:
        yield from _share(apply, jobs, say)


def _share(apply, jobs: Sequence[ChunkJob], say: bool) -> Iterator[ChunkJob]:
    """Chunks that no other process is making first, then the rest."""
    busy = []
    for job, done in zip(jobs, apply(build_chunk, jobs)):
        if done:
            yield job
        elif not job.spare:
            busy.append(job._replace(wait=True))
    if busy and say:
        _LOG.warning("%d chunks are being made by another process; waiting for them", len(busy))
    for job, _ in zip(busy, apply(build_chunk, busy)):
        yield job


def build_chunk(job: ChunkJob) -> bool:
    """Make a chunk unless it is there; false where another process is making it.

    Raises:
        DataError, ShapeError: a cloud is unusable; the message says which one.
        FileError: the disk is full, or the folder cannot be written.

    **Equivariance:** as ``build_pose_graph``.
    """
    if job.spare and os.path.exists(job.path):
        return True
    with locked(job.path.with_suffix(".lock"), job.wait) as mine:
        if not mine:
            return False
        if is_good(job, say=False):
            return True
        if job.path.is_dir():
            raise FileError(f"{job.path} is a folder, not a file; remove it and run again")
        _remove_parts(job.path)
        write_chunk(job.path, _graphs(job), job.key)
    return True


def clear_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left beside the finished files of a folder.

    What a process that is still running holds stays.

    **Equivariance:** does not apply.
    """
    found = [entry.name for entry in os.scandir(folder)]
    locks = {name.removesuffix(".lock") for name in found if name.endswith(".lock")}
    parts = {name.split(".", 1)[0] for name in found if name.endswith(".part")}
    for stem in locks | parts:
        with suppress(FileError), locked(folder / f"{stem}.lock", wait=False) as mine:
            if mine:
                _remove_parts(folder / stem)


def _remove_parts(path: Path) -> None:
    # Nobody else writes here: the lock is held.
    for left in path.parent.glob(f"{glob.escape(path.stem)}.*.part"):
        left.unlink(missing_ok=True)


def _graphs(job: ChunkJob) -> list[dict[str, Tensor]]:
    graphs = []
    with one_thread():
        for local, cloud in enumerate(job.clouds):
            pos = torch.from_numpy(cloud).double()
            if job.rotations is not None:
                pos = pos @ torch.from_numpy(job.rotations[local]).double().T
            try:
                # Levels that are sampled at random: one seed a cloud, whoever makes its chunk.
                draw = torch.Generator().manual_seed(job.start + local)
                graphs.append(pack(build_stored_graph(pos, job.levels, draw), job.levels))
            except PcequiError as error:
                raise type(error)(f"cloud {job.start + local}: {error}") from error
    return graphs


def build_stored_graph(
    pos: Tensor, levels: Sequence[Level], generator: torch.Generator | None = None
) -> PoseGraph:
    """The graph of one cloud as a store keeps it: as ``build_pose_graph`` in single precision,
    with the rows of A of the first pose of each point alone where those of the others follow
    (``pose_graph.stored_turns``).

    Args:
        pos: one cloud [N, 3].
        levels: of the network.
        generator: for levels sampled at random.

    Raises:
        ShapeError, DataError: the cloud is unusable.

    **Equivariance:** as ``build_pose_graph``.
    """
    builder, graphs = GraphBuilder(pos, levels), []
    turns = stored_turns(builder.levels)
    builder.first_only = {number for number, found in enumerate(turns) if found is not None}
    for number in range(len(builder.levels)):
        step = builder.level(number)
        graphs.append(builder.finish(step, step.sample(generator=generator)))
    return PoseGraph(graphs).to(torch.float32)


def pack(graph: PoseGraph, levels: Sequence[Level]) -> dict[str, Tensor]:
    """The tensors of one cloud's graph in the types in which a store keeps them.

    Where the rows of A of all poses of a point follow from those of its first pose
    (``pose_graph.stored_turns``), only these are kept, or were made.

    **Equivariance:** as the graph, to the 16 bits that are kept.
    """
    packed = {}
    for number, (level, turns) in enumerate(zip(graph.levels, stored_turns(levels))):
        if turns is not None and len(level.entries) == level.num * level.basis:
            entries, col, val = first_rows(level, turns[0])
            level = replace(level, entries=entries, col=col, val=val)
        for name in TENSORS:
            value = getattr(level, name)
            if value is None:
                continue
            kind = _PACKED.get(name)
            if kind is torch.int16 and value.numel() and int(value.max()) > 32767:
                kind = torch.int32
            packed[f"{number}.{name}"] = (value if kind is None else value.to(kind)).contiguous()
    return packed

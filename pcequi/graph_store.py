"""Precomputed pose graphs of many clouds, on disk and memory-mapped.

A store is a folder: ``store.json`` (settings and their key) and numbered
chunks, each one safetensors file of concatenated tensors. Chunks are written
whole or not at all, so an interrupted precomputation goes on where it stopped.
Entries are 16-bit: columns are counted within a cloud, and a kernel value
rounded to 11 bits moves an output by less than training noise does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pcequi.errors import DataError, FileError, PcequiError
from pcequi.pose_graph import TENSORS, Level, LevelGraph, PoseGraph, build_pose_graph

# Raise when the content of a store changes for the same settings.
VERSION = 2
CHUNK = 64
_PACKED = {"entries": torch.int16, "col": torch.int16, "val": torch.float16}


def store_key(clouds: Sequence[Tensor], levels: Sequence[Level], rotations: Tensor | None) -> str:
    """Digest of everything that decides what a store holds: the points, the
    settings, the rotations and the version of the code.

    **Equivariance:** none: a turned cloud has another key.
    """
    digest = hashlib.sha256()
    for cloud in clouds:
        # With its shape: the same numbers cut into other clouds are other clouds.
        digest.update(f"{tuple(cloud.shape)} {cloud.dtype}".encode())
        digest.update(np.ascontiguousarray(cloud.numpy()).tobytes())
    if rotations is not None:
        digest.update(rotations.contiguous().numpy().tobytes())
    settings = {"levels": [level.to_dict() for level in levels], "version": VERSION}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]


class GraphStore:
    """Precomputed graphs, read cloud by cloud or as training batches.

    Args:
        folder: a folder that ``GraphStore.build`` finished.

    Raises:
        FileError: the folder holds no finished store, or a chunk is damaged.

    **Equivariance:** holds what ``build_pose_graph`` made; see there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            header = json.loads((self.folder / "store.json").read_text())
        except (OSError, ValueError) as error:
            raise FileError(f"`folder` (={str(folder)!r}) holds no finished graph store") from error
        self.levels = [Level.from_dict(level) for level in header["levels"]]
        self.size = header["size"]
        self.chunks = [
            _read_chunk(self.folder / f"chunk-{c:05d}.safetensors")
            for c in range(-(-self.size // CHUNK))
        ]

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int] | Tensor) -> PoseGraph:
        """The graphs of some clouds as one batched ``PoseGraph``, ready to use."""
        places = [divmod(int(row), CHUNK) for row in rows]
        levels = []
        for number, level in enumerate(self.levels):
            values = {}
            for name in TENSORS:
                full = f"{number}.{name}"
                if full not in self.chunks[0]:
                    continue
                parts = []
                for chunk, local in places:
                    tensors = self.chunks[chunk]
                    start, stop = tensors[full + ".ptr"][local : local + 2].tolist()
                    parts.append(tensors[full][start:stop])
                values[name] = torch.cat(parts)
            if "val" in values:
                values["val"] = values["val"].float()
            basis = level.basis if "entries" in values else 0
            levels.append(LevelGraph(basis=basis, **values))
        return PoseGraph(levels)

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
    ) -> GraphStore:
        """Precompute the graphs of all clouds, or finish what was begun.

        Args:
            folder: of all stores; this one's own name is its key.
            clouds: each [N, 3].
            levels: of the network.
            rotations: one rotation a cloud [len(clouds), 3, 3], applied first.
            workers: processes; by default one a core.
            progress: called with (clouds done, clouds in all).

        Raises:
            DataError: a cloud is unusable; the message says which one.
        """
        if len(clouds) == 0:
            raise DataError("`clouds` (=[]) is empty; there is nothing to precompute")
        folder = Path(folder) / store_key(clouds, levels, rotations)
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(clouds), CHUNK)
        missing = [
            s for s in starts if not (folder / f"chunk-{s // CHUNK:05d}.safetensors").exists()
        ]
        workers = min(workers or os.cpu_count() or 1, max(1, len(missing)))
        done = len(starts) - len(missing)
        jobs = (
            (
                folder,
                s,
                list(clouds[s : s + CHUNK]),
                list(levels),
                None if rotations is None else rotations[s : s + CHUNK],
            )
            for s in missing
        )
        for _ in _run(jobs, workers):
            done += 1
            if progress:
                progress(min(done * CHUNK, len(clouds)), len(clouds))
        header = {"levels": [level.to_dict() for level in levels], "size": len(clouds)}
        _write_text(folder / "store.json", json.dumps(header, indent=1))
        return cls(folder)


def _run(jobs, workers: int):
    if workers == 1:
        yield from map(_build_chunk, jobs)
        return
    # Spawned, not forked: a fork would inherit the parent's threads' locks.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_build_chunk, jobs)
        except BrokenProcessPool as error:
            raise PcequiError(
                "a worker of the precomputation died (out of memory?); run again with fewer "
                "`workers`: finished chunks are kept"
            ) from error


def _build_chunk(job) -> None:
    folder, start, clouds, levels, rotations = job
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pieces: dict[str, list[Tensor]] = {}
        for local, cloud in enumerate(clouds):
            pos = cloud.double()
            if rotations is not None:
                pos = pos @ rotations[local].double().T
            try:
                graph = build_pose_graph(pos, levels, dtype=torch.float32)
            except PcequiError as error:
                raise type(error)(f"cloud {start + local}: {error}") from error
            for name, value in pack(graph).items():
                pieces.setdefault(name, []).append(value)
        tensors = {}
        for name, values in pieces.items():
            sizes = torch.tensor([0] + [len(v) for v in values])
            tensors[name + ".ptr"] = sizes.cumsum(0)
            tensors[name] = torch.cat(values)
        path = folder / f"chunk-{start // CHUNK:05d}.safetensors"
        partial = path.with_suffix(f".{os.getpid()}.part")
        save_file(tensors, partial)
        os.replace(partial, path)
    finally:
        torch.set_num_threads(threads)


def pack(graph: PoseGraph) -> dict[str, Tensor]:
    """The tensors of one cloud's graph in the types in which a store keeps them.

    **Equivariance:** as the graph, to the 16 bits that are kept.
    """
    packed = {}
    for number, level in enumerate(graph.levels):
        for name in TENSORS:
            value = getattr(level, name)
            if value is None:
                continue
            kind = _PACKED.get(name)
            if kind is torch.int16 and value.numel() and int(value.max()) > 32767:
                kind = torch.int32
            packed[f"{number}.{name}"] = (value if kind is None else value.to(kind)).contiguous()
    return packed


def _read_chunk(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path} is missing or damaged; delete it and precompute again") from error


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(text)
    os.replace(partial, path)

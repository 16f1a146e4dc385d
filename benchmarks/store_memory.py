"""How much memory does reading a cache of graphs take that is far larger?

Writes a store of many small shapes with the store's own writer, from a few graphs that
are really computed, reads all of it once in random batches as training does, and notes
the memory of the process: its own (anonymous) apart from pages of files. The system
refuses the process more than ``--limit`` of its own while it reads. The store is removed
at the end:

    python benchmarks/store_memory.py [--shapes 100000] [--folder DIR]
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import torch
from common import write

from pcequi.datasets import Shapes
from pcequi.graph_build import build_stored_graph, pack
from pcequi.graph_chunks import write_chunk
from pcequi.graph_store import CHUNK, GraphStore
from pcequi.models.presets import preset
from pcequi.training.rows import prefetch
from pcequi.training.threads import set_threads

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "store-memory.png"
BATCH, COMPUTED, POINTS = 32, 256, 256


def write_store(folder: Path, shapes: int) -> GraphStore:
    """A store whose shapes are copies, in random order, of some computed ones."""
    levels = preset("small")["levels"]
    with tempfile.TemporaryDirectory() as scratch:
        made = Shapes(scratch, num_train=COMPUTED // 16, num_test=1, num_points=POINTS)
        clouds = [made[place].pos for place in range(COMPUTED)]
    # One chunk's worth at a time is what a build holds, too.
    graphs = [pack(build_stored_graph(pos.double(), levels), levels) for pos in clouds]
    first = GraphStore.build(folder, clouds[:CHUNK], levels, workers=1)
    key = first.folder.name
    for start in range(0, shapes, CHUNK):
        count = min(CHUNK, shapes - start)
        drawn = torch.randint(COMPUTED, (count,)).tolist()
        path = first.folder / f"chunk-{start // CHUNK:05d}.safetensors"
        write_chunk(path, [graphs[place] for place in drawn], key)
    header = first.folder / "store.json"
    header.write_text(header.read_text().replace(f'"size": {CHUNK}', f'"size": {shapes}'))
    return GraphStore(first.folder)


def memory() -> dict[str, float]:
    """Megabytes of this process: its own, and of files that are mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split()[0]: float(line.split()[1]) / 1e3 for line in lines if "kB" in line}
    return {"own": values["RssAnon:"], "files": values["RssFile:"] + values["RssShmem:"]}


def read_through(store: GraphStore, rows: torch.Tensor) -> list[dict]:
    """One epoch: what training reads, and the memory every hundredth batch."""
    begun, seen = time.monotonic(), [{"shapes": 0, "seconds": 0.0, **memory()}]
    total = torch.zeros(())
    for number, graph in enumerate(prefetch(store.batch, rows.split(BATCH)), start=1):
        # Every number is touched, as a network would.
        for level in graph.levels:
            total += level.val.sum() if level.val is not None else level.lift.sum()
        if number % 100 == 0 or number * BATCH >= len(rows):
            shapes = min(number * BATCH, len(rows))
            seen.append({"shapes": shapes, "seconds": time.monotonic() - begun, **memory()})
    assert torch.isfinite(total)
    return seen


def plot(seen: list[dict], size: float, path: Path) -> None:
    """Memory over the shapes that were read, with the size of the store above it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    shapes = [one["shapes"] / 1e3 for one in seen]
    least = min(one["files"] for one in seen)
    axes.axhline(size, color="tab:red", linestyle="--", label="the store on disk")
    axes.plot(shapes, [one["own"] for one in seen], color="tab:blue", label="the process's own")
    axes.plot(shapes, [one["files"] for one in seen], color="0.6", label="mapped files")
    axes.set(yscale="log", ylim=(least / 2, 4 * size), xlabel="shapes read, thousands", ylabel="MB")
    axes.legend(loc="upper right", ncols=3, fontsize="small", frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="for the store; by default a temporary one")
    parser.add_argument("--limit", type=int, default=256, help="MB more than at the start")
    args = parser.parse_args()
    set_threads(1)
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        begun = time.monotonic()
        store = write_store(folder, args.shapes)
        written = time.monotonic() - begun
        size = sum(file.stat().st_size for file in store.folder.iterdir()) / 1e6
        print(f"{len(store)} shapes, {size:.0f} MB, written in {written:.0f} s", flush=True)
        # A child: what was needed to write is not held while it reads.
        child = os.fork()
        if child == 0:
            lines = Path("/proc/self/status").read_text().splitlines()
            used = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) << 10
            most = used + (args.limit << 20)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            seen = read_through(store, torch.randperm(len(store)))
            figures = {
                "shapes": len(store),
                "points": POINTS,
                "store_mb": round(size, 1),
                "batch": BATCH,
                "own_mb_at_start": round(seen[0]["own"], 1),
                "own_mb_at_most": round(max(one["own"] for one in seen), 1),
                "allowed_mb_more": args.limit,
                "read_seconds": round(seen[-1]["seconds"], 1),
                "write_seconds": round(written, 1),
                "over_time": [{k: round(v, 1) for k, v in one.items()} for one in seen],
            }
            print({key: value for key, value in figures.items() if key != "over_time"})
            print(write("store-memory", figures))
            plot(seen, size, PICTURE)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit("the reading process failed")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

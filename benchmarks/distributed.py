"""Does a launched job end with the weights of one process, and what does sharing cost?

    python benchmarks/distributed.py [--preset small] [--clouds 128] [--epochs 2]

Precomputes and trains the same run with one process and with two, in float32
and in float64, and keeps differences and shapes a second in
``results/distributed.json``. Two processes that share the cores of one machine
prove nothing about speed: the figures say what sharing costs there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import write

from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.training import FitSettings, fit, load_split, predict_logits
from pcequi.training.launch import launched

# Batch norm takes out what the bias of the first one adds: its gradient is rounding alone, which
# Adam divides by its own size. The logits do not see it, nor the mean that tracks it.
FREE = ("lift.layers.0.bias", "lift.layers.2.running_mean")
NOTE = (
    "Two processes on the cores of one machine are no proof of speed. `cores_used` is how many "
    "cores the processes shared; where it is 1, two processes can at best reach the shapes a "
    "second of one, and what is missing is the cost of sharing."
)


def work(args) -> None:
    """What each process does; the first one saves what was found."""
    with launched("cpu") as (ranks, device):
        torch.set_num_threads(1)
        with ranks.first_goes_first():
            split = load_split("shapes", True, root=args.folder / "data", limit=args.clouds // 16)
        levels = GroupConvClassifier.from_preset(args.preset, 1).levels
        GraphStore.build(args.folder / "warm", split.clouds[:2], levels, workers=1, ranks=ranks)
        cache, start = args.folder / f"graphs{ranks.size}", time.perf_counter()
        store = GraphStore.build(cache, split.clouds, levels, workers=1, ranks=ranks)
        found = {"precompute": len(store) / (time.perf_counter() - start)}
        # Compiles what is compiled once.
        warm = GroupConvClassifier.from_preset(args.preset, len(split.classes))
        fit(warm, store, split.labels, FitSettings(epochs=1), quiet=True, ranks=ranks)
        settings = FitSettings(epochs=args.epochs, batch_size=args.batch_size, mixup=0.3)
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            model = GroupConvClassifier.from_preset(args.preset, len(split.classes)).to(dtype)
            start = time.process_time()
            history = fit(
                model, store, split.labels, settings, device=device, quiet=True, ranks=ranks
            )
            name = str(dtype).removeprefix("torch.")
            found[name] = {
                # Of the fastest epoch: other work disturbs.
                "train": len(store) / min(metrics["seconds"] for metrics in history),
                "cpu": time.process_time() - start,
                "weights": model.state_dict(),
                "logits": predict_logits(model, store, ranks=ranks),
            }
        found["parameters"] = sum(p.numel() for p in model.parameters())
        found["bytes"] = sum(chunk.path.stat().st_size for chunk in store.chunks)
        for kind in ("float32", "float64"):
            found[kind]["cpu"] = float(ranks.gather(torch.tensor([found[kind]["cpu"]])).sum())
        if ranks.first:
            torch.save(found, args.folder / f"found{ranks.size}.pt")


def difference(one: dict, other: dict, without=()) -> float:
    """Largest change of a tensor, relative to its own largest value."""
    changes = [
        float((one[name].double() - other[name].double()).abs().max())
        / max(float(one[name].double().abs().max()), 1e-12)
        for name in one
        if name not in without
    ]
    return max(changes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--preset", default="small")
    parser.add_argument("--clouds", type=int, default=128, help="a multiple of 16")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        work(args)
        return
    load = os.getloadavg()[0]  # Of other work on this machine.
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for size in (1, 2):
            command = [__file__, *sys.argv[1:], "--folder", folder]
            if size > 1:
                launcher = ["-m", "torch.distributed.run", "--standalone"]
                command = [*launcher, "--nproc-per-node", str(size), *command]
            threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
            subprocess.run([sys.executable, *command], check=True, env=os.environ | threads)
            found[size] = torch.load(Path(folder) / f"found{size}.pt")
    one, two = found[1], found[2]
    kinds = ("float32", "float64")
    figures = {
        "command": "python benchmarks/distributed.py",
        "note": NOTE,
        "settings": {k: v for k, v in vars(args).items() if k != "folder"},
        "parameters": one["parameters"],
        "cores_used": len(os.sched_getaffinity(0)),
        "load_before": round(load, 1),
        "bytes_per_shape": round(one["bytes"] / args.clouds),
        "difference": {
            kind: {
                "weights": difference(one[kind]["weights"], two[kind]["weights"], FREE),
                "logits": difference({"": one[kind]["logits"]}, {"": two[kind]["logits"]}),
                "without_influence": difference(
                    {name: one[kind]["weights"][name] for name in FREE},
                    {name: two[kind]["weights"][name] for name in FREE},
                ),
            }
            for kind in kinds
        },
        # Of all processes together, where other work on the machine disturbs less.
        "train_cpu_ms_per_shape": {
            kind: {
                size: round(1e3 * found[size][kind]["cpu"] / args.clouds / args.epochs, 2)
                for size in (1, 2)
            }
            for kind in kinds
        },
        "shapes_per_second": {
            "precompute": {size: round(found[size]["precompute"], 2) for size in (1, 2)},
            **{
                f"train_{kind}": {size: round(found[size][kind]["train"], 2) for size in (1, 2)}
                for kind in kinds
            },
        },
    }
    print(json.dumps(figures, indent=1))
    print(write("distributed", figures))


if __name__ == "__main__":
    main()

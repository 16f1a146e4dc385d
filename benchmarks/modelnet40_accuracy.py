"""Accuracy on rotated ModelNet40: last epoch, by protocol and seed.

    python benchmarks/modelnet40_accuracy.py --source FILE --seed 0

Trains under z (evaluated under z/SO3 and z/z) and under SO3 (SO3/SO3), one run
a seed, and merges what it finds into ``results/modelnet40-accuracy.json``. An
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from common import RESULTS, add_machine, circumstances, decisive

from pcequi.training.resample import KINDS
from pcequi.training.run_settings import RunSettings
from pcequi.training.runs import train_run
from pcequi.training.settings import FitSettings
from pcequi.training.threads import choose_device, set_threads

PROTOCOLS = {"z/SO3": ("z/z",), "SO3/SO3": ()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_training(parser)
    add_runs(parser)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--start", help="run whose weights the network begins with")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--bfloat16", action="store_true")
    add_machine(parser)
    args = parser.parse_args()
    set_threads(args.threads)
    for seed in args.seed:
        for protocol in args.protocol:
            precision = "bfloat16" if args.bfloat16 else "float32"
            settings = run_settings(args, protocol, args.preset, seed, precision)
            settings = replace(settings, start=args.start)
            kind = "" if args.resample_as == "shape" else f"{args.resample_as}-"
            kind += f"from-{Path(args.start).name}-" if args.start else ""
            name = f"accuracy-{kind}{args.preset}-{protocol.replace('/', '-')}-{seed}"
            run = Path(args.runs) / name
            report = train_run(
                settings,
                run,
                cache=args.cache,
                workers=args.workers,
                device=choose_device("auto"),
                resume=True,
            )
            merge(report, args.preset)


def add_training(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """Options that say how the networks of this file, of ``modelnet40_gpu`` and of claim 1 are
    trained; ``needed``: not without data."""
    parser.add_argument("--source", required=needed, help="packed file or folder of ModelNet40")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--mixup", type=float, default=0.3)
    parser.add_argument("--resamplings", type=int, default=3)
    parser.add_argument("--resample-as", default="shape", choices=KINDS)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Options of runs that are left in folders."""
    parser.add_argument("--protocol", nargs="+", default=list(PROTOCOLS), choices=list(PROTOCOLS))
    parser.add_argument("--runs", default="runs", help="folder of the runs")


def run_settings(args, protocol: str, preset: str, seed: int, precision: str) -> RunSettings:
    """One run of what ``add_training`` was told."""
    fit = FitSettings(
        epochs=args.epochs,
        lr=args.lr,
        weight_decay=args.weight_decay,
        mixup=args.mixup,
        seed=seed,
        precision=precision,
    )
    return RunSettings(
        data="modelnet40",
        source=args.source,
        protocol=protocol,
        also=PROTOCOLS[protocol],
        preset=preset,
        resamplings=args.resamplings,
        resample_as=args.resample_as,
        fit=fit,
    )


def merge(report: dict, preset: str) -> None:
    """Add a run's figures to the results, in place of those of the same run."""
    path = RESULTS / "modelnet40-accuracy.json"
    results = (
        json.loads(path.read_text())
        if path.exists()
        else {
            "command": "python benchmarks/modelnet40_accuracy.py --source FILE --seed 0",
            "data": "ModelNet40, official split, 1,024 points, xyz only",
            "reported": "last epoch, no epoch or weights picked on the test split",
            "runs": [],
        }
    )
    settings = decisive(report["settings"]) | {"also": report["settings"]["also"]}
    for protocol, accuracy in report["accuracy"].items():
        row = {
            "protocol": protocol,
            "preset": preset,
            "seed": report["seed"],
            "accuracy": accuracy,
            "mean_class_accuracy": report["mean_class_accuracy"][protocol],
            "epochs": report["epochs"],
            "parameters": report["parameters"],
            "shapes": report["shapes"],
            "seconds": report["seconds"],
            "agreement": report["agreement"],
            "settings": settings,
            "circumstances": circumstances(),
        }
        results["runs"] = [other for other in results["runs"] if _key(other) != _key(row)]
        results["runs"].append(row)
        print(f"{protocol} seed {row['seed']}: {accuracy:.2%}", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def _key(row: dict) -> dict:
    """Which training a figure is of, and under which protocol it was tested."""
    return {"tested": row["protocol"], **decisive(row["settings"])}


if __name__ == "__main__":
    main()

"""Put the network of a finished ModelNet40 run into the package, with its card.

    python tools/ship_network.py RUN NAME --cache CACHE

Weights are rounded to half precision; what the card says is measured with the rounded
weights, on the run's own test split, under every protocol of the run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from pcequi.networks import FOLDER
from pcequi.training.checkpoints import load_checkpoint, save_checkpoint
from pcequi.training.evaluate import evaluate_protocol
from pcequi.training.files import read_json
from pcequi.training.resample import SCAN
from pcequi.training.run_settings import load_run_settings, load_run_split

MOST = 5 * 2**20
SEEN = {
    "shape": "clean points spread over whole computer-made shapes: scans, parts of shapes, "
    "outliers and uneven density are outside of what it saw",
    "scan": "points of computer-made shapes, made like scans: noise of up to {jitter:.0%} of the "
    "radius, up to {hidden:.0%} of a shape hidden on one side, uneven density, at least half of "
    "the points that are seen. Stray points, and what stands around a thing, are outside of what "
    "it saw".format(**SCAN),
}
TEMPLATE = Path(__file__).with_name("network_card.md")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="name of the network in the package")
    parser.add_argument("--about", default="Names the class of a shape of unknown orientation.")
    parser.add_argument("--cache", help="of precomputed graphs")
    args = parser.parse_args()
    settings, made = load_run_settings(args.run), read_json(args.run / "report.json", "train first")
    checkpoint = load_checkpoint(args.run)
    model = checkpoint.model.half()
    extra = checkpoint.extra | {
        "resamplings": settings.resamplings,
        "resample_as": settings.resample_as,
    }
    test = load_run_split(settings, train=False)
    model.float()
    reports = {
        protocol: evaluate_protocol(
            model, test, protocol, seed=settings.fit.seed, cache=args.cache
        )[0]
        for protocol in settings.protocols
    }
    first = settings.protocols[0]
    card = TEMPLATE.read_text(encoding="utf-8").format(
        name=args.name,
        about=args.about,
        points=settings.num_points,
        num_classes=len(checkpoint.classes),
        preset=settings.preset,
        parameters=sum(p.numel() for p in model.parameters()),
        train=made["shapes"]["train"],
        test=made["shapes"]["test"],
        protocol=settings.protocol,
        epochs=settings.fit.epochs,
        resamplings=settings.resamplings,
        kind=" like scans" if settings.resample_as == "scan" else "",
        seen=SEEN[settings.resample_as],
        seed=settings.fit.seed,
        accuracy=", ".join(f"{r['accuracy']:.2%} {name}" for name, r in reports.items()),
        mean=", ".join(f"{r['mean_class_accuracy']:.2%} {name}" for name, r in reports.items()),
        first=first,
        rows="\n".join(_rows(reports[first], checkpoint.classes)),
    )
    # Made aside: the network that was there stays until all three files are right.
    with tempfile.TemporaryDirectory() as aside:
        weights = Path(aside) / f"{args.name}.safetensors"
        save_checkpoint(weights, model.half(), checkpoint.classes, extra)
        size = weights.stat().st_size
        if size >= MOST:
            sys.exit(f"{weights.name} would have {size / 2**20:.1f} MiB; at most 5 are shipped")
        weights.with_suffix(".md").write_text(card.replace("%", " %"), encoding="utf-8")
        for file in Path(aside).iterdir():
            shutil.copy(file, FOLDER)
    print(f"{FOLDER / weights.name} ({size / 2**20:.2f} MiB) and its card")


def _rows(report: dict, classes: list[str]) -> list[str]:
    confusion = torch.tensor(report["confusion"])
    wrong = confusion.clone().fill_diagonal_(0)
    order = sorted(range(len(classes)), key=lambda row: report["per_class"][classes[row]] or 0)
    rows = []
    for row in order:
        worst = int(wrong[row].argmax())
        taken = f"{classes[worst]} ({int(wrong[row, worst])})" if wrong[row, worst] else ""
        share = report["per_class"][classes[row]]
        right = "" if share is None else f"{share:.0%}"
        rows.append(f"| {classes[row]} | {int(confusion[row].sum())} | {right} | {taken} |")
    return rows


if __name__ == "__main__":
    main()

"""Put the network of a finished ModelNet40 run into the package, with its card.

    python tools/ship_network.py RUN NAME
    python benchmarks/shipped.py --source FILE

Weights are rounded to half precision; the second command measures these and writes what it
finds into the card.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from pcequi.networks import FOLDER
from pcequi.training.checkpoints import load_checkpoint, save_checkpoint
from pcequi.training.files import read_json
from pcequi.training.resample import SCAN
from pcequi.training.run_settings import load_run_settings

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
    args = parser.parse_args()
    settings, made = load_run_settings(args.run), read_json(args.run / "report.json", "train first")
    checkpoint = load_checkpoint(args.run)
    model = checkpoint.model.half()
    extra = checkpoint.extra | {
        "resamplings": settings.resamplings,
        "resample_as": settings.resample_as,
    }
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
    print(f"{FOLDER / weights.name} ({size / 2**20:.2f} MiB); its card waits for shipped.py")


if __name__ == "__main__":
    main()

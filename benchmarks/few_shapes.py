"""What few shapes of one's own are good for, and what helps (ModelNet40's training split)

    python benchmarks/few_shapes.py --source FILE

Trains the preset ``small`` on 3, 10 and 30 shapes a class of five classes, as ``pcequi train`` does
by default, longer, with resampled versions, and beginning with a network that has seen twenty other
classes; tests on other shapes of the five. Eight draws of classes, shapes and weights; no test
shape of ModelNet40 is read. Last epoch, mean over orders. Writes ``results/few-shapes.json`` and
the table in ``docs/own-data.md``. Graphs and finished trainings are kept under ``--cache``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from common import put_table, write
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "claims"))
import results
import study

from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, preset
from pcequi.models.classifier import LAST_LAYER
from pcequi.training.fit import fit, predict_logits
from pcequi.training.resample import resampled_clouds
from pcequi.training.settings import FitSettings
from pcequi.training.splits import Split, load_split

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
MARK = "python benchmarks/few_shapes.py --source FILE\n```\n"
SHAPES = (3, 10, 30)
CLASSES, TESTED, DRAWS, VERSIONS = 5, 40, 8, 7
LEVELS = preset("small")["levels"]


@dataclass(frozen=True)
class Way:
    """How a network is trained: what differs from ``pcequi train --preset small``."""

    name: str
    fit: dict = field(default_factory=dict)
    versions: int = 0
    start: bool = False


WAYS = (
    Way("as it is"),
    Way("`--epochs 100`", {"epochs": 100}),
    Way("`--epochs 100 --resamplings 7`", {"epochs": 100}, VERSIONS),
    Way("`--start`", start=True),
    Way("`--start --epochs 100 --resamplings 7`", {"epochs": 100}, VERSIONS, start=True),
)


def main() -> None:
    args = arguments()
    seen, own, tested = load(args)
    stores = [build(args, own.clouds)]
    for number in range(1, VERSIONS + 1 if not args.quick else 2):
        stores.append(build(args, resampled_clouds(own.clouds, number, 0)))
    test, start = build(args, tested.clouds), begun(args, seen)
    found = {(each, way.name): [] for each in args.shapes for way in WAYS}
    for draw in range(args.draws):
        for each in args.shapes:
            rows, labels, asked, answers = drawn(own, tested, each, draw)
            for way in WAYS:
                model = trained(args, way, draw, stores, rows, labels, start)
                hits = predict_logits(model, test, asked).argmax(1) == answers
                found[each, way.name].append(100 * float(hits.double().mean()))
            figures = ", ".join(f"{found[each, way.name][-1]:.1f}" for way in WAYS)
            print(f"draw {draw + 1} of {args.draws}, {each} a class: {figures} %", flush=True)
    finish(args, found, len(seen))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="packed file or folder of ModelNet40")
    parser.add_argument("--cache", default="runs/claims", help="of graphs and trainings")
    parser.add_argument("--quick", action="store_true", help="a minute on generated shapes")
    args = parser.parse_args()
    if not args.quick and not args.source:
        parser.error("--source FILE is needed (ModelNet40), or --quick")
    args.cache = Path(args.cache)
    args.shapes, args.draws = ((2, 3), 2) if args.quick else (SHAPES, DRAWS)
    study.set_threads(1)
    return args


def load(args) -> tuple[Split, Split, Split]:
    """All shapes of half of the classes; of the others, shapes to draw from and shapes to test on;
    each turned by a rotation of its own."""
    name, sizes = ("shapes", {"limit": 6}) if args.quick else ("modelnet40", {})
    split = load_split(name, True, root=args.cache / "data" / name, source=args.source, **sizes)
    generator = torch.Generator().manual_seed(0)
    classes = torch.randperm(len(split.classes), generator=generator)
    others, ours = classes.chunk(2)
    train, test = [], []
    for label in ours:
        rows = (split.labels == label).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        tested = min(TESTED, len(rows) // 3)
        test.append(rows[:tested])
        train.append(rows[tested : tested + max(SHAPES)])
    seen = torch.isin(split.labels, others).nonzero()[:, 0]
    return (
        study.turned(split, seen, True),
        study.turned(split, torch.cat(train), True),
        study.turned(split, torch.cat(test), False),
    )


def build(args, clouds: list[Tensor]) -> GraphStore:
    return GraphStore.build(args.cache / "graphs", clouds, LEVELS, workers=1)


def begun(args, seen: Split) -> dict[str, Tensor]:
    """Weights of a network that was trained on the other classes, as ``modelnet40-small`` is."""
    settings = FitSettings(epochs=2 if args.quick else 40, lr=2e-3, mixup=0.3)
    versions = 1 if args.quick else 3
    stores = [build(args, seen.clouds)]
    for number in range(1, versions + 1):
        stores.append(build(args, resampled_clouds(seen.clouds, number, 0)))
    model = network(len(seen.classes), 0)
    key = [stores[0].folder.name, versions, asdict(settings)]
    study.kept(args, model, key, lambda: timeless(fit(model, stores, seen.labels, settings)))
    return model.state_dict()


def timeless(history: list[dict]) -> float:
    """Seconds of a training, by its epochs."""
    return sum(epoch["seconds"] for epoch in history)


def network(classes: int, seed: int) -> GroupConvClassifier:
    torch.manual_seed(seed)
    return GroupConvClassifier(LEVELS, classes, preset("small")["channels"])


def drawn(own: Split, tested: Split, each: int, draw: int) -> tuple[Tensor, ...]:
    """Rows to train on and the labels of all rows, rows to test on and their labels: of five
    classes, which are numbered from 0. More shapes of a draw include those of fewer."""
    generator = torch.Generator().manual_seed(draw)
    present = own.labels.unique()
    classes = present[torch.randperm(len(present), generator=generator)[:CLASSES]]
    rows = []
    for label in classes:
        of = (own.labels == label).nonzero()[:, 0]
        rows.append(of[torch.randperm(len(of), generator=generator)[:each]])
    number = torch.zeros(len(own.classes), dtype=torch.long)
    number[classes] = torch.arange(len(classes))
    asked = torch.isin(tested.labels, classes).nonzero()[:, 0]
    return torch.cat(rows), number[own.labels], asked, number[tested.labels[asked]]


def trained(args, way: Way, draw: int, stores, rows, labels, start) -> GroupConvClassifier:
    settings = FitSettings(seed=draw, **way.fit)
    if args.quick:
        settings = replace(settings, epochs=2)
    model = network(CLASSES, draw)
    if way.start:
        model.load_state_dict(
            {
                name: weight if name in LAST_LAYER else start[name]
                for name, weight in model.state_dict().items()
            }
        )
    used = stores[: way.versions + 1]
    key = [used[0].folder.name, rows.tolist(), way.versions, way.start, asdict(settings)]

    def training() -> float:
        return timeless(fit(model, list(used), labels, settings, rows=rows, quiet=True))

    study.kept(args, model, key, training)
    return model


def finish(args, found: dict, seen: int) -> None:
    figures, lines = [], []
    for way in WAYS:
        cells = [way.name]
        for each in args.shapes:
            own = torch.tensor(found[each, way.name], dtype=torch.float64)
            gain = own - torch.tensor(found[each, WAYS[0].name], dtype=torch.float64)
            row = {
                "way": way.name,
                "shapes_a_class": each,
                "accuracy": float(own.mean()),
                "draws": own.tolist(),
                "gain": {
                    "points": float(gain.mean()),
                    "standard_error": float(gain.std() / len(gain) ** 0.5),
                },
            }
            figures.append(row)
            text = f"{row['accuracy']:.1f}"
            cells.append(text if way is WAYS[0] else f"{text} ({results.points(row['gain'])})")
        lines.append(cells)
    table = results.table(["", *(f"{each} shapes a class" for each in args.shapes)], lines)
    print("\n".join(table), flush=True)
    if args.quick:
        return
    of = f"ModelNet40's training split: {CLASSES} of 20 classes a draw, {seen} shapes of 20 others"
    write("few-shapes", {"data": of, "rows": figures, "table": table})
    put_table(PAGE, MARK, table)


if __name__ == "__main__":
    main()

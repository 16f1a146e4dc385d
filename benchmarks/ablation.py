"""What each choice in the default network is worth, held out (ModelNet40's training split)

    python benchmarks/ablation.py --source FILE --seeds 0 1

Trains the preset ``default`` as it is, and with one choice changed at a time, on a part of the
training split, and tests on another part of it; no test shape is read. Last epoch, mean over
orders. Writes ``results/ablation.json`` and the table in ``docs/decisions.md``. Graphs and finished
trainings are kept under ``--cache``, so an interrupted run goes on; after each seed the table
has what is finished.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from common import put_table, write

sys.path.insert(0, str(Path(__file__).parent / "claims"))
import results
import study

from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, GridPoses, TangentPoses
from pcequi.training.fit import fit
from pcequi.training.resample import resampled_clouds
from pcequi.training.settings import FitSettings
from pcequi.training.splits import Split, load_split

PAGE = Path(__file__).parents[1] / "docs" / "decisions.md"
MARK = "python benchmarks/ablation.py --source FILE --seeds 0 1\n```\n"
CHANNELS = preset("default")["channels"]
SETTINGS = FitSettings(epochs=10, lr=2e-3, mixup=0.3)  # but for the epochs as whole trainings are


class Part(torch.nn.Module):
    """One half of what the pooling gives; the other one is zero."""

    def __init__(self, pool: torch.nn.Module, first: bool):
        super().__init__()
        self.pool, self.first = pool, first

    def forward(self, x, level):
        mean, most = self.pool(x, level).chunk(2, 1)
        zero = torch.zeros_like(mean)
        return torch.cat([mean, zero] if self.first else [zero, most], 1)


@dataclass(frozen=True)
class Row:
    """A choice: what it is about, its name, and what of the network or the training it changes."""

    topic: str
    name: str
    levels: Callable[[list[Level]], list[Level]] = lambda levels: levels
    channels: list[int] = field(default_factory=lambda: CHANNELS)
    network: dict = field(default_factory=dict)
    pool: str = ""
    fit: dict = field(default_factory=dict)
    versions: int = 0
    kind: str = "shape"


def each(**changes) -> Callable:
    """All levels with other settings, of which a list has one value a level."""
    return lambda levels: [
        replace(one, **_of(number, changes)) for number, one in enumerate(levels)
    ]


def sampled(**changes) -> Callable:
    """The two sampled levels with other settings of the sampling, in the same way."""
    return lambda levels: [
        *(
            replace(one, sampling=replace(one.sampling, **_of(number, changes)))
            for number, one in enumerate(levels[:-1])
        ),
        levels[-1],
    ]


def _of(level: int, changes: dict) -> dict:
    return {k: v[level] if isinstance(v, list) else v for k, v in changes.items()}


def three(levels: list[Level]) -> list[Level]:
    """A third sampled level."""
    first, _, last = levels
    return [
        replace(first, radius=0.2),
        replace(first, radius=0.4, num_points=192),
        replace(first, radius=0.7, num_points=128),
        last,
    ]


def frames(first, last) -> Callable:
    """Other poses of the sampled levels, and of the last."""
    return each(poses=[first, first, last])


MANHATTAN = CentroidPoses("D2", align="manhattan")
ROWS = (
    Row("", "`default` as it is"),
    Row("input", "normals, estimated, beside the points on each level", each(normals=True)),
    Row("levels", "radii 0.2 / 0.4", each(radius=[0.2, 0.4, 1.4])),
    Row("levels", "radii 0.3 / 0.6", each(radius=[0.3, 0.6, 1.4])),
    Row("levels", "radius 1.1 of the last level", each(radius=[0.25, 0.5, 1.1])),
    Row("levels", "512 / 256 points", each(num_points=[512, 256, None])),
    Row("levels", "128 / 64 points", each(num_points=[128, 64, None])),
    Row("levels", "three sampled levels", three, [48, 96, 96, 192]),
    Row("kernel", "7 / 7 points, 15 on the last level", each(kernel_points=[7, 7, 15])),
    Row("kernel", "27 / 15 points", each(kernel_points=[27, 15, 27])),
    Row("kernel", "15 / 27 points", each(kernel_points=[15, 27, 27])),
    Row("kernel", "33 points on the last level", each(kernel_points=[15, 15, 33])),
    Row("representatives", "48 / 48", sampled(num=[48, 48])),
    Row("representatives", "128 / 64", sampled(num=[128, 64])),
    Row("representatives", "192 / 192", sampled(num=[192, 192])),
    Row("representatives", "medoids", sampled(center="medoid")),
    Row("representatives", "medoids, 256 / 128", sampled(num=[256, 128], center="medoid")),
    Row("representatives", "the nearest alone, its cluster's mean", sampled(blend=1)),
    Row("representatives", "3 blended", sampled(blend=3)),
    Row("representatives", "12 blended", sampled(blend=12)),
    Row("representatives", "no refinement", sampled(refine=0)),
    Row("representatives", "five steps of refinement", sampled(refine=5)),
    Row("representatives", "at random, two steps of refinement", sampled(method="random")),
    Row("representatives", "single poses instead of orbits", sampled(orbits=False)),
    Row(
        "frames",
        "principal axes",
        frames(GridPoses("D2", align="principal"), CentroidPoses("D2", align="principal")),
    ),
    Row("frames", "four angles about each point's normal", frames(TangentPoses(4), MANHATTAN)),
    Row(
        "frames",
        "24 on the last level, its axes in any order",
        each(poses=[*[GridPoses("D2", align="manhattan")] * 2, CentroidPoses("O", "manhattan")]),
    ),
    Row("last level", "sees past the sampling", each(bypass=[False, False, True])),
    Row("width", "32, 64, 128 channels (`small`)", channels=[32, 64, 128]),
    Row("width", "64, 128, 256 channels", channels=[64, 128, 256]),
    Row("width", "a hidden layer of 512 in the head", network={"head_channels": 512}),
    Row("pooling", "mean alone", pool="mean"),
    Row("pooling", "maximum alone", pool="maximum"),
    Row("loss", "no label smoothing", fit={"label_smoothing": 0.0}),
    Row("loss", "features not mixed in pairs", fit={"mixup": 0.0}),
    Row("loss", "mixed by Beta(1, 1)", fit={"mixup": 1.0}),
    Row("loss", "no dropout", network={"dropout": 0.0}),
    Row("schedule", "learning rate 0.001", fit={"lr": 1e-3}),
    Row("schedule", "learning rate 0.004", fit={"lr": 4e-3}),
    Row("schedule", "weight decay 0.2", fit={"weight_decay": 0.2}),
    Row("schedule", "weight decay 0.01", fit={"weight_decay": 0.01}),
    Row("schedule", "batches of 64", fit={"batch_size": 64}),
    Row("schedule", "20 epochs", fit={"epochs": 20}),
    Row("versions", "20 epochs, one version beside the clouds", fit={"epochs": 20}, versions=1),
    Row("versions", "20 epochs, three versions", fit={"epochs": 20}, versions=3),
    Row("versions", "20 epochs, three like scans", fit={"epochs": 20}, versions=3, kind="scan"),
)


def main() -> None:
    args = arguments()
    train, test = load(args)
    rows = ROWS[:3] if args.quick else ROWS
    found: dict[str, dict] = {row.name: {"hits": []} for row in rows}
    for seed in args.seeds:
        for number, row in enumerate(rows):
            start = time.perf_counter()
            measure(args, row, seed, train, test, found[row.name])
            took = time.perf_counter() - start
            accuracy = 100 * float(found[row.name]["hits"][-1].mean())
            line = f"seed {seed}, {number + 1} of {len(rows)}: {row.name}: {accuracy:.1f} %"
            print(f"{line} ({took:.0f} s)", flush=True)
        finish(args, rows, found, train, test)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="packed file or folder of ModelNet40")
    parser.add_argument("--cache", default="runs/claims", help="of graphs and trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--shapes", type=int, default=2000, help="to train on, and as many to test")
    parser.add_argument("--quick", action="store_true", help="three rows on generated shapes")
    args = parser.parse_args()
    if not args.quick and not args.source:
        parser.error("--source FILE is needed (ModelNet40), or --quick")
    args.cache = Path(args.cache)
    study.set_threads(1)
    return args


def load(args) -> tuple[Split, Split]:
    """Two parts of the training split, each shape turned by a rotation of its own."""
    name, sizes = ("shapes", {"limit": 4}) if args.quick else ("modelnet40", {})
    split = load_split(name, True, root=args.cache / "data" / name, source=args.source, **sizes)
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    num = min(args.shapes, len(split) // 2)
    return study.turned(split, order[:num], True), study.turned(split, order[num : 2 * num], False)


def measure(args, row: Row, seed: int, train: Split, test: Split, found: dict) -> None:
    """Train and test one row with one seed, and add it to what was found."""
    levels = row.levels(preset("default")["levels"])
    graphs = args.cache / "graphs"
    found.setdefault("graph_ms", study.build_cost(train, levels))
    stores = [GraphStore.build(graphs, train.clouds, levels, workers=1)]
    for number in range(1, row.versions + 1):
        clouds = resampled_clouds(train.clouds, number, 0, kind=row.kind)
        stores.append(GraphStore.build(graphs, clouds, levels, workers=1))
    held_out = GraphStore.build(graphs, test.clouds, levels, workers=1)
    settings = replace(SETTINGS, seed=seed, **row.fit)
    if args.quick:
        settings = replace(settings, epochs=2)
    torch.manual_seed(seed)
    model = GroupConvClassifier(levels, len(train.classes), row.channels, **row.network)
    if row.pool:
        model.pool = Part(model.pool, row.pool == "mean")

    def training() -> float:
        start = time.process_time()
        fit(model, list(stores), train.labels, settings, quiet=True)
        return time.process_time() - start

    key = [stores[0].folder.name, row.channels, row.network, row.pool, asdict(settings)]
    key += [row.versions, row.kind]
    seconds = study.kept(args, model, key, training)
    found.setdefault("training_s", []).append(seconds)
    found["parameters"] = sum(weight.numel() for weight in model.parameters())
    found["hits"].append(study.hits(model, held_out, test))


def finish(args, rows: tuple[Row, ...], found: dict, train: Split, test: Split) -> None:
    """Results and the table of what is finished."""
    base, lines, figures = found[rows[0].name]["hits"], [], []
    for row in rows:
        own = found[row.name]
        accuracy = results.summary(own["hits"])
        gain = results.difference(own["hits"], base)
        seconds = sum(own["training_s"]) / len(own["training_s"])
        cells = [row.topic, row.name, f"{accuracy['accuracy']:.1f}"]
        cells += ["" if row is rows[0] else results.points(gain), f"{own['graph_ms']:.1f}"]
        lines.append([*cells, f"{seconds:.0f}"])
        figures.append(
            {
                "topic": row.topic,
                "name": row.name,
                **accuracy,
                "gain": gain,
                "graph_ms": own["graph_ms"],
                "training_s": own["training_s"],
                "parameters": own["parameters"],
            }
        )
    head = ["", "", "held out, %", "gain", "graph, ms", "training, s"]
    table = results.table(head, lines)
    print("\n".join(table), flush=True)
    if args.quick:
        return
    of = f"ModelNet40's training split: {len(train)} shapes to train on, {len(test)} held out"
    write(
        "ablation",
        {"data": of, "times": results.TIMES, "seeds": args.seeds, "rows": figures, "table": table},
    )
    put_table(PAGE, MARK, table)


if __name__ == "__main__":
    main()

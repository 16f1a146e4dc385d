"""What the claims share: data, graphs of many budgets, training, testing.

Graphs and finished trainings are kept under ``--cache`` by what decides them, so
a run that was interrupted goes on, and claims share what they have in common.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from pcequi.bench.measure import peak_bytes
from pcequi.files import write_bytes
from pcequi.graph_build import pack
from pcequi.graph_chunks import write_chunk
from pcequi.graph_store import CHUNK, GraphStore, store_key
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import GraphBuilder, Level, PoseGraph, build_pose_graph
from pcequi.sampling import FeatureSampler
from pcequi.training.fit import fit, predict_logits
from pcequi.training.protocols import protocol_rotations
from pcequi.training.schedule import one_cycle
from pcequi.training.settings import FitSettings
from pcequi.training.splits import Split, load_split
from pcequi.training.threads import set_threads

# Representatives of level 1; level 2 has half as many, the last level four poses.
BUDGETS = (None, 256, 128, 64, 48, 32, 16)
QUICK_BUDGETS = (None, 48, 16)
POSES = (1024, 512)
CHANNELS = preset("small")["channels"]
# The claims are of free poses: the preset itself samples whole orbits.
FREE = FeatureSampler(refine=2, seeds=256)
# Representatives that a pose shares: the nearest alone, or a mean.
BLENDS = {1: "nearest", 6: "six blended"}


def arguments(
    doc: str, presets: tuple[str, ...] = (), columns: tuple[str, ...] = ()
) -> argparse.Namespace:
    """The options of every claim; which network, where there are several to choose from; and which
    columns of a table are measured anew, where they stand for themselves."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="packed file or folder of ModelNet40")
    parser.add_argument("--cache", default="runs/claims", help="of graphs and trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--quick", action="store_true", help="a minute on generated shapes")
    parser.add_argument("--out", help="folder of results; by default the project's own")
    if presets:
        parser.add_argument("--preset", choices=presets, default=presets[0])
    if columns:
        words = "measure these alone anew; the others stay as the results have them"
        parser.add_argument("--only", nargs="+", choices=columns, default=list(columns), help=words)
    args = parser.parse_args()
    args.cache = Path(args.cache)
    if args.quick and not args.out:
        args.out = args.cache / "quick"
    if not args.quick and "modelnet" in doc.lower() and not args.source:
        parser.error("--source FILE is needed (ModelNet40), or --quick")
    set_threads(1)
    return args


def load(args, name: str = "modelnet40", each: int = 60, test: int = 1200, points: int = 1024):
    """A fixed part of a data set, each shape turned by its own random rotation (SO3/SO3).

    Returns:
        Training and test ``Split``; with ``--quick`` a few shapes of the default set.
    """
    if args.quick:
        name, each, test, points = "shapes", 3, 32, min(points, 512)
    splits = []
    for train in (True, False):
        sizes = {"limit": each if train else -(-test // 16)} if name == "shapes" else {}
        root = args.cache / "data" / name
        source = args.source if name.startswith("modelnet") else None
        split = load_split(name, train, root=root, source=source, num_points=points, **sizes)
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        if train:
            labels = split.labels[order]
            rows = torch.cat([order[labels == label][:each] for label in labels.unique()])
        else:
            rows = order[:test]
        splits.append(turned(split, rows, train))
    return splits


def turned(split: Split, rows: Tensor, train: bool) -> Split:
    """Some shapes of a split, each turned by its own random rotation (SO3)."""
    turns = protocol_rotations("SO3", len(rows), train=train)
    clouds = [
        (split.clouds[row].double() @ turn.T).float()
        for row, turn in zip(rows.tolist(), turns, strict=True)
    ]
    return Split(split.name, train, clouds, split.labels[rows], split.classes)


def described(train: Split, test: Split) -> str:
    """The data of a claim, in words."""
    return f"{train.name}, {len(train)} shapes to train on, {len(test)} to test, SO3/SO3"


def budget_levels(num: int | None, **sampling) -> list[Level]:
    """The small network at ``num`` and ``num`` / 2 free representatives; None: dense."""
    first, second, last = preset("small")["levels"]
    budgets = (None, None) if num is None else (num, max(1, num // 2))
    return [
        *(
            replace(level, sampling=replace(FREE, num=budget, **sampling))
            for level, budget in zip((first, second), budgets, strict=True)
        ),
        last,
    ]


def share_of_poses(num: int | None) -> float:
    """Representatives over poses, both sampled levels together."""
    return 1.0 if num is None else (num + num // 2) / sum(POSES)


def stores(args, split: Split, networks: dict) -> dict[object, GraphStore]:
    """Graphs of the same clouds for several networks with the same poses, by name.

    The frame of a cloud and the order of its points are found once for all of them,
    which takes most of the time. Sampling at random is seeded by the cloud's number.
    """
    folder = args.cache / "graphs"
    keys = {name: store_key(split.clouds, levels, None) for name, levels in networks.items()}
    for start in range(0, len(split), CHUNK):
        places = {
            name: folder / key / f"chunk-{start // CHUNK:05d}.safetensors"
            for name, key in keys.items()
        }
        missing = {name: [] for name, place in places.items() if not place.exists()}
        for number in range(start, min(start + CHUNK, len(split)) if missing else start):
            first = GraphBuilder(split.clouds[number], networks[next(iter(missing))])
            for name, graphs in missing.items():
                builder = copy.copy(first)
                builder.levels, builder.below = list(networks[name]), None
                graphs.append(pack(_graph(builder, number), builder.levels))
                first.__dict__.setdefault("order", builder.order)
        for name, graphs in missing.items():
            places[name].parent.mkdir(parents=True, exist_ok=True)
            write_chunk(places[name], graphs, keys[name])
    return {
        name: GraphStore.build(folder, split.clouds, levels, workers=1)
        for name, levels in networks.items()
    }


def _graph(builder: GraphBuilder, seed: int) -> PoseGraph:
    generator, parts = torch.Generator().manual_seed(seed), []
    for number in range(len(builder.levels)):
        step = builder.level(number)
        parts.append(builder.finish(step, step.sample(generator=generator)))
    return PoseGraph(parts).to(torch.float32)


def build_cost(split: Split, levels: list[Level], shapes: int = 24) -> float:
    """Milliseconds of CPU in which one shape's graph is built alone: the median."""
    seconds = []
    for number in range(-1, min(shapes, len(split))):
        start = time.process_time()
        build_pose_graph(split.clouds[number], levels, dtype=torch.float32)
        seconds.append(time.process_time() - start)
    return 1e3 * median(seconds[1:])


def step_cost(model, store, split) -> tuple[float, float]:
    """Milliseconds of CPU a shape, and megabytes at the peak, of a training step."""
    rows = list(range(min(32, len(store))))
    graph, optimizer = store.batch(rows), torch.optim.AdamW(model.parameters(), 1e-4)

    def step():
        model.train()
        F.cross_entropy(model(graph), split.labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    memory, seconds = peak_bytes(step) or 0, []
    for _ in range(7):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return 1e3 * median(seconds) / len(rows), memory / 2**20


def kilobytes(store: GraphStore) -> float:
    """Of one shape on disk."""
    return sum(file.stat().st_size for file in store.folder.iterdir()) / len(store) / 1e3


def new_model(levels: list[Level], classes: int, seed: int, channels=None) -> GroupConvClassifier:
    """A network with weights of a seed, the same at every budget; by default the small one."""
    torch.manual_seed(seed)
    return GroupConvClassifier(levels, classes, channels=channels or CHANNELS)


def trained(args, store: GraphStore, split: Split, seed: int = 0, epochs=10, channels=None):
    """A network trained on a store, and the CPU seconds (one thread) that took."""
    epochs = 2 if args.quick else epochs
    settings = FitSettings(epochs=epochs, lr=2e-3, mixup=0.3, seed=seed, precision="bfloat16")
    model = new_model(store.levels, len(split.classes), seed, channels)

    def train() -> float:
        start = time.process_time()
        fit(model, store, split.labels, settings, quiet=True)
        return time.process_time() - start

    return model, kept(args, model, (store.folder.name, asdict(settings)), train)


def train_steps(model, forward, labels: Tensor, epochs: int, seed: int, cast=True) -> float:
    """Train any network as ``fit`` does, but for the mixing of clouds in pairs.

    Args:
        model: holds the weights.
        forward: from rows [n] to logits [n, classes].
        labels: of all rows.
        epochs, seed: of the training.
        cast: to bfloat16, automatically.

    Returns:
        CPU seconds of one thread.
    """
    torch.manual_seed(seed)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    )
    batches = -(-len(labels) // 32)
    start, step = time.process_time(), 0
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).tensor_split(batches):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(step, batches * epochs, 2e-3, 0.15)
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                logits = forward(rows)
            loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        print(f"  loss {float(loss.detach()):.2f}", end="", flush=True)
    print(flush=True)
    model.eval()
    return time.process_time() - start


def kept(args, model: torch.nn.Module, key: object, train) -> float:
    """Load the weights that ``train`` gave for this key before, or train and keep them.

    Returns:
        CPU seconds of the training.
    """
    digest = hashlib.sha256(json.dumps([type(model).__name__, key]).encode()).hexdigest()[:16]
    path = args.cache / "trained" / f"{digest}.pt"
    if not path.exists():
        seconds = train()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save({"weights": model.state_dict(), "seconds": seconds}, part)
        write_bytes(path, part.read_bytes())
        part.unlink()
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["weights"])
    model.eval()
    return state["seconds"]


def hits(model, store: GraphStore, split: Split) -> Tensor:
    """Which clouds get their own class [n], float64."""
    return (predict_logits(model, store).argmax(1) == split.labels).double()

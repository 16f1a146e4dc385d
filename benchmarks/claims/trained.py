"""Claim 1 on whole trainings (ModelNet40)

    python benchmarks/claims/trained.py --source FILE --seeds 0 1 2

The preset ``default`` trained on all of ModelNet40 as networks are that users get (z/SO3, 40
epochs, three resampled versions, bfloat16 casts, last epoch), from all of its 1,024 and 512
poses down to 2 %, and tested at the same budget; on CPU cores also with rows fitted to all poses
(``FeatureSampler.center`` of "mean"). Seeds share their graphs. On a GPU they are
trained side by side, and three quarters of the poses are the most, since four versions of more
do not fit into its memory; on CPU cores, one after the other, it takes hours. What is done is
kept under ``--cache``, so that an interrupted run goes on, and several may share the budgets
(``--budget``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import results  # first: it says where the modules of the benchmarks are
import study
import torch
from common import decisive
from modelnet40_accuracy import add_training, run_settings
from modelnet40_gpu import Run, ask, make_graphs, train
from whole import POSES, levels_of

from pcequi.graph_device import DeviceGraphs
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import build_pose_graph
from pcequi.ranks import local_cores
from pcequi.training.fit import fit, predict_logits
from pcequi.training.protocols import protocol_rotations
from pcequi.training.resample import resampled_clouds
from pcequi.training.run_settings import load_run_split
from pcequi.training.threads import set_threads

PRESET, PROTOCOL = "default", "z/SO3"
DENSE = POSES[PRESET]
# Representatives of both levels, and what they stand for.
BUDGETS = {
    "cpu": (
        *((*one, "medoid") for one in ((256, 128), (38, 38), DENSE, (96, 96), (18, 18))),
        *((*one, "mean") for one in ((38, 38), (96, 96), (256, 128), (18, 18))),
    ),
    "cuda": tuple(
        (*one, "medoid") for one in ((256, 128), (38, 38), (768, 384), (96, 96), (18, 18))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training(parser, needed=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="a minute on generated shapes")
    parser.add_argument("--budget", type=int, nargs=2, action="append", help="these alone")
    parser.add_argument("--cache", default="runs/claims", help="of graphs and trainings")
    parser.add_argument("--out", help="folder of results; by default the project's own")
    args = parser.parse_args()
    args.cache, device = Path(args.cache), "cuda" if torch.cuda.is_available() else "cpu"
    if not args.quick and not args.source:
        parser.error("--source FILE is needed (ModelNet40), or --quick")
    if args.quick:
        args.epochs, args.resamplings, args.seeds = 2, 1, args.seeds[:1]
        args.budget = args.budget or [list(one[:2]) for one in BUDGETS[device][-3:]]
        args.out = args.cache / "quick"
    settings = [run_settings(args, PROTOCOL, PRESET, seed, "bfloat16") for seed in args.seeds]
    if args.quick:
        few = {"data": "shapes", "source": None, "limit": 3, "num_points": 512}
        settings = [replace(one, **few) for one in settings]
    # What is kept is of these settings, on this kind of device.
    said = json.dumps([device, *(decisive(one.to_dict()) for one in settings)], sort_keys=True)
    folder = args.cache / "trained" / hashlib.sha256(said.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    ends = {"medoid": "", "mean": "-mean"}
    paths = {one: folder / f"{one[0]}-{one[1]}{ends[one[2]]}.pt" for one in BUDGETS[device]}
    data, test = (load_run_split(settings[0], part) for part in (True, False))
    if device == "cuda":
        side = OnGPU(args, settings, data, test)
    else:
        side = OnCPU(args, settings, data, test, folder)
    for budget in BUDGETS[device]:
        if args.budget and list(budget[:2]) not in args.budget:
            continue
        if not paths[budget].exists():
            print(*budget, flush=True)
            num = (None, None) if budget[:2] == DENSE else budget[:2]
            levels = levels_of(PRESET, num, False, budget[2])
            logits, seconds = side.trained(levels)
            hits = [(one.argmax(1) == test.labels).double() for one in logits]
            torch.save({"hits": hits, "seconds": seconds}, paths[budget])
        done = {one: torch.load(path) for one, path in paths.items() if path.exists()}
        write(args, device, done, (len(data), len(test)))


def new_model(levels, classes: int, seed: int) -> GroupConvClassifier:
    return study.new_model(levels, classes, seed, preset(PRESET)["channels"])


class OnCPU:
    """Seeds one after the other, by one thread; versions of the clouds are kept on disk."""

    def __init__(self, args, settings, data, test, folder):
        set_threads(1)
        self.args, self.settings, self.folder = args, settings, folder
        self.versions, self.test = [], turned(test, args.seeds[0], "SO3", False)
        for number in range(args.resamplings + 1):
            clouds = data.clouds
            if number:
                clouds = resampled_clouds(clouds, number, args.seeds[0], kind=args.resample_as)
            split = replace(data, clouds=clouds)
            self.versions.append(turned(split, args.seeds[0] + number, "z", True))

    def trained(self, levels):
        start, stores = time.process_time(), []
        for split in (*self.versions, self.test):
            stores.append(study.stores(self.args, split, {"": levels})[""])
        built, logits = time.process_time(), []
        for one in self.settings:
            model = new_model(levels, len(self.test.classes), one.fit.seed)
            key = f"{stores[0].folder.name}-{one.fit.seed}"
            fit(model, stores[:-1], self.versions[0].labels, one.fit, quiet=True, resume=True,
                folder=self.folder / key)  # fmt: skip
            logits.append(predict_logits(model.half().float(), stores[-1]))
        return logits, (built - start, time.process_time() - built)


class OnGPU:
    """Seeds side by side, on graphs that stay on the GPU."""

    def __init__(self, args, settings, data, test):
        self.settings, self.data = settings, data
        pool = ProcessPoolExecutor(local_cores(), mp_context=get_context("spawn"))
        seed, numbers = args.seeds[0], range(args.resamplings + 1)
        self.asked = ask(pool, data.clouds, "z", True, seed, numbers, args.resample_as)
        (self.tested,) = ask(pool, test.clouds, "SO3", False, seed, range(1))
        levels = levels_of(PRESET, (256, 128), False)  # what is compiled once, for both ways
        cloud = torch.rand(1100, 3, generator=torch.Generator().manual_seed(0))
        build_pose_graph(cloud, levels)
        DeviceGraphs.build([cloud.cuda()], levels, "cuda", torch.bfloat16)
        for part in (*(part for parts in self.asked for part in parts), *self.tested):
            part.result()

    def trained(self, levels):
        start = time.perf_counter()
        versions = [make_graphs(parts, levels, torch.bfloat16) for parts in self.asked]
        torch.cuda.synchronize()
        built, classes = time.perf_counter(), len(self.data.classes)
        runs = [Run(new_model(levels, classes, one.fit.seed), one.fit) for one in self.settings]
        train(runs, versions, self.data.labels, torch.arange(len(self.data)))
        ended = time.perf_counter()
        del versions
        graphs = make_graphs(self.tested, levels, torch.float32)
        models = [run.model.half().float() for run in runs]
        logits = [predict_logits(m, graphs, device="cuda") for m in models]
        return logits, (built - start, ended - built)


def turned(split, seed: int, kind: str, train: bool):
    """A split, each shape turned by its own rotation."""
    turns = protocol_rotations(kind, len(split), train=train, seed=seed)
    clouds = [cloud.double() @ turn.T for cloud, turn in zip(split.clouds, turns)]
    return replace(split, clouds=clouds)


def write(args, device: str, done: dict, sizes: tuple[int, int]) -> None:
    """What is known so far, the most representatives first; ``sizes`` of the two splits."""
    order = sorted(done, key=lambda one: (one[2], sum(one[:2])), reverse=True)  # medoids first
    rows, lines = [], []
    for budget in order:
        hits, (build, training) = done[budget]["hits"], done[budget]["seconds"]
        found = {
            **results.summary(hits),
            "share_of_poses": sum(budget[:2]) / sum(DENSE),
            "against_most": results.difference(hits, done[order[0]]["hits"]),
            "build_seconds": build,
            "train_seconds": training / len(hits),
        }
        rows.append({"representatives": list(budget[:2]), "center": budget[2], **found})
        name = f"{budget[0]:,} / {budget[1]:,}"
        lines.append(
            [
                f"dense ({name})" if budget[:2] == DENSE else name,
                "fitted" if budget[2] == "mean" else "",
                f"{100 * found['share_of_poses']:.1f} %",
                results.percent(found),
                results.points(found["against_most"]),
                f"{build:.0f}",
                f"{found['train_seconds']:.0f}",
            ]
        )
    unit = "s" if device == "cuda" else "CPU s"
    head = ["representatives", "rows", "of the poses", "accuracy, %", "against the most, points"]
    head += [f"graphs of four versions, {unit}", f"training a seed, {unit}"]
    figure, (one,) = results.axes()
    said = {"medoid": f"{args.epochs} epochs, {sizes[0]:,} shapes", "mean": "the same, fitted rows"}
    for color, (center, label) in zip(results.COLORS, said.items(), strict=False):
        own = [row for row in rows if row["center"] == center]
        if own:
            results.curve(one, [100 * r["share_of_poses"] for r in own], own, label, color)
    results.against_share(one, [100 * row["share_of_poses"] for row in rows], rows[0]["accuracy"])
    times = {"times": "seconds of one GPU, by the clock"} if device == "cuda" else {}
    data = "generated shapes" if args.quick else "ModelNet40"
    figures = {
        **times,
        "data": f"{data}, {sizes[0]:,} shapes to train on, {sizes[1]:,} to test, {PROTOCOL}",
        "rows": rows,
    }
    name = "1-gpu" if device == "cuda" else "1-trained"
    results.finish(args, name, figures, results.table(head, lines), figure)


if __name__ == "__main__":
    main()

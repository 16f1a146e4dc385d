"""Claim 1 on whole trainings, on one GPU (ModelNet40)

    python benchmarks/claims/whole_gpu.py --source FILE --seeds 0 1 2

The preset ``default`` trained on all of ModelNet40 as networks are that users get (z/SO3, 40
epochs, three resampled versions, last epoch), from three quarters of its 1,024 and 512 poses
down to 2 %, and tested at the same budget. Seeds are trained side by side, and share their
graphs. What is done is written after each budget.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import results  # first: it says where the modules of the benchmarks are
import torch
from modelnet40_accuracy import add_training, run_settings
from modelnet40_gpu import Run, ask, make_graphs, train
from whole import POSES, levels_of

from pcequi.graph_device import DeviceGraphs
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import build_pose_graph
from pcequi.ranks import local_cores
from pcequi.training.fit import predict_logits
from pcequi.training.run_settings import load_run_split

# Three quarters of the poses are what fits into the memory of a large GPU in four versions.
BUDGETS = ((38, 38), (256, 128), (768, 384), (96, 96), (18, 18))
PRESET, PROTOCOL = "default", "z/SO3"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_training(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", help="folder of results; by default the project's own")
    args = parser.parse_args()
    args.quick = False
    settings = [run_settings(args, PROTOCOL, PRESET, seed, "bfloat16") for seed in args.seeds]
    pool = ProcessPoolExecutor(local_cores(), mp_context=get_context("spawn"))
    data, test = (load_run_split(settings[0], part) for part in (True, False))
    numbers = range(args.resamplings + 1)
    asked = ask(pool, data.clouds, "z", True, args.seeds[0], numbers, args.resample_as)
    (tested,) = ask(pool, test.clouds, "SO3", False, args.seeds[0], range(1))
    warm_up()
    for part in (*(part for parts in asked for part in parts), *tested):
        part.result()
    print("resampled", flush=True)
    found, hits = {}, {}
    for budget in BUDGETS:
        levels, start = levels_of(PRESET, budget, False), time.perf_counter()
        versions = [make_graphs(parts, levels, torch.bfloat16) for parts in asked]
        torch.cuda.synchronize()
        built, runs = time.perf_counter(), []
        for one in settings:
            torch.manual_seed(one.fit.seed)
            channels = preset(PRESET)["channels"]
            runs.append(
                Run(GroupConvClassifier(levels, len(data.classes), channels=channels), one.fit)
            )
        train(runs, versions, data.labels, torch.arange(len(data)))
        trained, bytes_each = time.perf_counter(), torch.cuda.memory_allocated()
        del versions
        graphs = make_graphs(tested, levels, torch.float32)
        logits = [predict_logits(r.model, graphs, batch_size=256, device="cuda") for r in runs]
        hits[budget] = [(one.argmax(1) == test.labels).double() for one in logits]
        found[budget] = {
            **results.summary(hits[budget]),
            "share_of_poses": sum(budget) / sum(POSES[PRESET]),
            "build_seconds": (built - start) / len(asked),
            "train_seconds": trained - built,
            "gigabytes": bytes_each / 1e9,
        }
        del graphs, runs
        torch.cuda.empty_cache()
        write(args, found, hits)


def warm_up() -> None:
    """What is compiled and loaded once, for both ways of building graphs."""
    levels = levels_of(PRESET, BUDGETS[0], False)
    cloud = torch.rand(1100, 3, generator=torch.Generator().manual_seed(0))
    build_pose_graph(cloud, levels)
    DeviceGraphs.build([cloud.cuda()], levels, "cuda", torch.bfloat16)


def write(args, found: dict, hits: dict) -> None:
    """What is known so far, the most representatives first."""
    order = sorted(found, key=sum, reverse=True)
    for budget in order:
        found[budget]["against_most"] = results.difference(hits[budget], hits[order[0]])
    rows = [
        [
            f"{budget[0]} / {budget[1]}",
            f"{100 * found[budget]['share_of_poses']:.1f} %",
            results.percent(found[budget]),
            results.points(found[budget]["against_most"]),
            f"{found[budget]['build_seconds']:.1f}",
            f"{found[budget]['train_seconds']:.0f}",
        ]
        for budget in order
    ]
    head = ["representatives", "of the poses", "accuracy, %", "against the most, points"]
    head += ["graphs of 9,843 shapes, s", f"training {len(args.seeds)} seeds, s"]
    figure, (one,) = results.axes()
    shares = [100 * found[budget]["share_of_poses"] for budget in order]
    results.curve(one, shares, [found[budget] for budget in order], "40 epochs, 9,843 shapes")
    results.against_share(one, shares, found[order[0]]["accuracy"])
    figures = {
        "times": "seconds of one GPU, by the clock",
        "data": f"ModelNet40, 9,843 shapes to train on, 2,468 to test, {PROTOCOL}",
        "rows": [{"representatives": list(budget), **found[budget]} for budget in order],
    }
    results.finish(args, "1-gpu", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

"""Claim 1 again, on six times as many poses: is it the share or the number? (ModelNet40)

    python benchmarks/claims/frames.py --source FILE

The small network with 24 frames a point instead of four on its first two levels:
6,144 and 3,072 poses. Dense graphs of these do not fit; 1,024 / 512 are the most here.
"""

from __future__ import annotations

from dataclasses import replace

import results
import study

from pcequi.poses import GridPoses

BUDGETS = (1024, 307, 128, 48)
POSES = 256 * 24 + 128 * 24


def levels_of(num: int) -> list:
    first, second, last = study.budget_levels(num)
    grid = GridPoses("O", align="manhattan")
    return [replace(first, poses=grid), replace(second, poses=grid), last]


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    networks = {num: levels_of(num) for num in (BUDGETS[1:] if args.quick else BUDGETS)}
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for num, levels in networks.items():
        runs = [study.trained(args, graphs[num], train, seed) for seed in args.seeds]
        hits[num] = [study.hits(model, tests[num], test) for model, _ in runs]
        found[num] = {
            **results.summary(hits[num]),
            "share_of_poses": (num + num // 2) / POSES,
            "against_most": results.difference(hits[num], hits[next(iter(hits))]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
        }
        print(num, results.percent(found[num]), flush=True)
    rows = [
        [
            f"{num} / {num // 2}",
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            results.points(f["against_most"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
        ]
        for num, f in found.items()
    ]
    head = ["representatives", "of the poses", "accuracy, %", "against the most, points"]
    head += ["training, CPU s", "graph, ms a shape"]
    figure, (one,) = results.axes()
    results.curve(one, list(found), list(found.values()))
    results.ticks(one, list(found))
    one.set(xlabel="representatives of level 1 (level 2: half)", ylabel="accuracy, %")
    figures = {
        "data": study.described(train, test),
        "budgets": found,
    }
    results.finish(args, "1-frames", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

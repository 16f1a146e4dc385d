"""Claim 1: how many representatives does accuracy need? (ModelNet40)

    python benchmarks/claims/budget.py --source FILE --seeds 0 1

Trains and tests the small network at each budget, from dense down to 16; poses share
the output of the nearest representative, or a mean of six, which stand for a pose each or for rows
fitted to all poses (``FeatureSampler.center`` of "mean").
"""

from __future__ import annotations

import results
import study

# How many representatives a pose shares, and what these stand for.
NEAREST = (1, "medoid")
WAYS = {NEAREST: "nearest", (6, "medoid"): "six blended", (6, "mean"): "six blended, fitted"}


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    budgets = study.QUICK_BUDGETS if args.quick else study.BUDGETS
    networks = {
        (num, way): study.budget_levels(num, blend=way[0], center=way[1])
        for way in WAYS
        for num in budgets
        if num or way == NEAREST  # dense graphs share nothing
    }
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for key, levels in networks.items():
        runs = [study.trained(args, graphs[key], train, seed) for seed in args.seeds]
        hits[key] = [study.hits(model, tests[key], test) for model, _ in runs]
        found[key] = {
            **results.summary(hits[key]),
            "share_of_poses": study.share_of_poses(key[0]),
            "against_dense": results.difference(hits[key], hits[None, NEAREST]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
            "kilobytes": study.kilobytes(graphs[key]),
        }
        print(key, results.percent(found[key]), flush=True)
    rows = [
        [
            f"{num} / {num // 2}" if num else "dense (1,024 / 512)",
            WAYS[way] if num else "",
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            "" if num is None else results.points(f["against_dense"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
            f"{f['kilobytes']:.0f}",
        ]
        for (num, way), f in found.items()
    ]
    head = ["representatives", "shared", "of the poses", "accuracy, %", "against dense, points"]
    head += ["training, CPU s", "graph, ms a shape", "kB a shape"]
    figure, (one,) = results.axes()
    shares = [100 * study.share_of_poses(num) for num in budgets]
    for color, (way, name) in zip(results.COLORS, WAYS.items(), strict=False):
        own = [found[num, way if num else NEAREST] for num in budgets]
        results.curve(one, shares, own, name, color)
    results.against_share(one, shares, found[None, NEAREST]["accuracy"])
    figures = {
        "data": study.described(train, test),
        "rows": [
            {"representatives": num or "dense", "blend": way[0], "center": way[1], **f}
            for (num, way), f in found.items()
        ],
    }
    results.finish(args, "1-budget", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

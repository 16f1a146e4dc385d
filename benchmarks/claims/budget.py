"""Claim 1: how many representatives does accuracy need? (ModelNet40)

    python benchmarks/claims/budget.py --source FILE --seeds 0 1

Trains and tests the small network at each budget, from dense down to 16.
"""

from __future__ import annotations

import results
import study


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    budgets = study.QUICK_BUDGETS if args.quick else study.BUDGETS
    networks = {num: study.budget_levels(num) for num in budgets}
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for num in budgets:
        runs = [study.trained(args, graphs[num], train, seed) for seed in args.seeds]
        hits[num] = [study.hits(model, tests[num], test) for model, _ in runs]
        found[num] = {
            **results.summary(hits[num]),
            "share_of_poses": study.share_of_poses(num),
            "against_dense": results.difference(hits[num], hits[None]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, networks[num]),
            "kilobytes": study.kilobytes(graphs[num]),
        }
        print(num or "dense", results.percent(found[num]), flush=True)
    rows = [
        [
            f"{num} / {num // 2}" if num else "dense (1,024 / 512)",
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            "" if num is None else results.points(f["against_dense"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
            f"{f['kilobytes']:.0f}",
        ]
        for num, f in found.items()
    ]
    head = ["representatives", "of the poses", "accuracy, %", "against dense, points"]
    head += ["training, CPU s", "graph, ms a shape", "kB a shape"]
    figure, (one,) = results.axes()
    shares = [100 * f["share_of_poses"] for f in found.values()]
    results.curve(one, shares, list(found.values()))
    one.axhspan(
        found[None]["accuracy"] - 0.5,
        found[None]["accuracy"],
        color="#b5261e",
        alpha=0.15,
        lw=0,
        label="0.5 points below dense",
    )
    one.axvline(5, color="#4d4d4d", lw=0.8, ls="--", label="5 % of the poses")
    results.ticks(one, shares, [f"{share:.3g}" for share in shares])
    one.set(xlabel="representatives, % of the poses", ylabel="accuracy, %")
    one.legend(frameon=False, loc="lower right")
    figures = {
        "data": study.described(train, test),
        "budgets": {num or "dense": f for num, f in found.items()},
    }
    results.finish(args, "1-budget", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

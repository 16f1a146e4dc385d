"""Claim 1 again, on six times as many poses: is it the share or the number? (ModelNet40)

    python benchmarks/claims/frames.py --source FILE --seeds 0 1 2

The small network with 24 frames a point instead of four on its first two levels:
6,144 and 3,072 poses. Dense graphs of these do not fit; 1,024 / 512 are the most here.
"""

from __future__ import annotations

from dataclasses import replace

import results
import study

from pcequi.poses import GridPoses

# Representatives of level 1, and how many of them a pose shares.
BUDGETS = ((1024, 1), (307, 1), (128, 1), (48, 1), (1024, 6), (307, 6))
POSES = 256 * 24 + 128 * 24


def levels_of(num: int, blend: int) -> list:
    first, second, last = study.budget_levels(num, blend=blend)
    grid = GridPoses("O", align="manhattan")
    return [replace(first, poses=grid), replace(second, poses=grid), last]


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    networks = {key: levels_of(*key) for key in (BUDGETS[2:4] if args.quick else BUDGETS)}
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for key, levels in networks.items():
        runs = [study.trained(args, graphs[key], train, seed) for seed in args.seeds]
        hits[key] = [study.hits(model, tests[key], test) for model, _ in runs]
        most = next(other for other in networks if other[1] == key[1])
        found[key] = {
            **results.summary(hits[key]),
            "share_of_poses": (key[0] + key[0] // 2) / POSES,
            "against_most": results.difference(hits[key], hits[most]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
        }
        print(key, results.percent(found[key]), flush=True)
    rows = [
        [
            f"{num} / {num // 2}",
            study.BLENDS[blend],
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            results.points(f["against_most"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
        ]
        for (num, blend), f in found.items()
    ]
    head = ["representatives", "shared", "of the poses", "accuracy, %", "against the most, points"]
    head += ["training, CPU s", "graph, ms a shape"]
    figure, (one,) = results.axes()
    for color, (blend, name) in zip(results.COLORS, study.BLENDS.items(), strict=False):
        own = {num: f for (num, shared), f in found.items() if shared == blend}
        results.curve(one, list(own), list(own.values()), name, color)
    results.ticks(one, sorted({num for num, _ in found}))
    one.legend(frameon=False, loc="lower right")
    one.set(xlabel="representatives of level 1 (level 2: half)", ylabel="accuracy, %")
    figures = {
        "data": study.described(train, test),
        "rows": [
            {"representatives": num, "blend": blend, **f} for (num, blend), f in found.items()
        ],
    }
    results.finish(args, "1-frames", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

"""Claim 1 again, on six times as many poses: is it the share or the number? (ModelNet40)

    python benchmarks/claims/frames.py --source FILE --seeds 0 1 2

The small network with 24 frames a point instead of four on its first two levels: 6,144 and
3,072 poses. Half as many representatives on the second level, and once, at 5 % of the poses, as
many on each. Graphs of all poses take 12 GB of the cache.
"""

from __future__ import annotations

from dataclasses import replace

import results
import study

from pcequi.poses import GridPoses

POSES = (6144, 3072)
DENSE = (None, None, 1)
# Representatives of both levels, and how many of them a pose shares.
BUDGETS = (
    DENSE,
    (1024, 512, 1),
    (307, 153, 1),
    (128, 64, 1),
    (48, 24, 1),
    (1024, 512, 6),
    (307, 153, 6),
    (230, 230, 6),
)


def levels_of(first: int | None, second: int | None, blend: int) -> list:
    *sampled, last = study.budget_levels(None, blend=blend)
    grid = GridPoses("O", align="manhattan")
    return [
        *(
            replace(level, poses=grid, sampling=replace(level.sampling, num=num))
            for level, num in zip(sampled, (first, second), strict=True)
        ),
        last,
    ]


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    networks = {key: levels_of(*key) for key in (BUDGETS[3:5] if args.quick else BUDGETS)}
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for key, levels in networks.items():
        runs = [study.trained(args, graphs[key], train, seed) for seed in args.seeds]
        hits[key] = [study.hits(model, tests[key], test) for model, _ in runs]
        found[key] = {
            **results.summary(hits[key]),
            "share_of_poses": 1.0 if key == DENSE else sum(key[:2]) / sum(POSES),
            "against_most": results.difference(hits[key], hits[next(iter(networks))]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
            "kilobytes": study.kilobytes(graphs[key]),
        }
        print(key, results.percent(found[key]), flush=True)
    rows = [
        [
            "dense (6,144 / 3,072)" if key == DENSE else f"{key[0]:,} / {key[1]}",
            "" if key == DENSE else study.BLENDS[key[2]],
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            results.points(f["against_most"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
            f"{f['kilobytes']:.0f}",
        ]
        for key, f in found.items()
    ]
    head = ["representatives", "shared", "of the poses", "accuracy, %", "against dense, points"]
    head += ["training, CPU s", "graph, ms a shape", "kB a shape"]
    figure, (one,) = results.axes()
    shares = {key: 100 * f["share_of_poses"] for key, f in found.items()}
    halved = [key for key in found if key == DENSE or key[0] != key[1]]
    for color, (blend, name) in zip(results.COLORS, study.BLENDS.items(), strict=False):
        own = [key for key in halved if key == DENSE or key[2] == blend]
        results.curve(one, [shares[k] for k in own], [found[k] for k in own], name, color)
    even = [key for key in found if key not in halved]
    label = "six blended, as many on each level"
    if even:
        x, y = [shares[k] for k in even], [found[k] for k in even]
        results.curve(one, x, y, label, results.COLORS[2], linestyle="none")
    top = next(iter(found.values()))["accuracy"]
    results.against_share(one, [shares[key] for key in halved if key[2] == 1], top)
    figures = {
        "data": study.described(train, test),
        "rows": [
            {
                "representatives": "dense" if key == DENSE else list(key[:2]),
                "blend": key[2],
                **f,
            }
            for key, f in found.items()
        ],
    }
    results.finish(args, "1-frames", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

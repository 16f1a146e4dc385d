"""Claim 1 again, on six times as many poses: is it the share or the number? (ModelNet40)

    python benchmarks/claims/frames.py --source FILE --seeds 0 1 2

The small network with 24 frames a point instead of four on its first two levels: 6,144 and
3,072 poses. Half as many representatives on the second level, or, at 5 % of the poses and below,
as many on each, also with rows fitted to all poses (``FeatureSampler.center`` of "mean") and with a
last level that sees past the sampling (``Level.bypass``). Graphs of all poses take 12 GB of the
cache, twice.
"""

from __future__ import annotations

from dataclasses import replace

import results
import study

from pcequi.poses import GridPoses

POSES = (6144, 3072)
DENSE = (None, None, 1, False, "medoid")
# Representatives of both levels, how many of them a pose shares, whether the last level sees
# past the sampling, and what representatives stand for.
BUDGETS = (
    DENSE,
    (1024, 512, 1, False, "medoid"),
    (307, 153, 1, False, "medoid"),
    (128, 64, 1, False, "medoid"),
    (48, 24, 1, False, "medoid"),
    (1024, 512, 6, False, "medoid"),
    (307, 153, 6, False, "medoid"),
    (230, 230, 6, False, "medoid"),
    (96, 96, 6, False, "medoid"),
    (230, 230, 6, False, "mean"),
    (96, 96, 6, False, "mean"),
    (None, None, 1, True, "medoid"),
    (230, 230, 6, True, "medoid"),
    (96, 96, 6, True, "medoid"),
)


def levels_of(first: int | None, second: int | None, blend: int, bypass: bool, center: str) -> list:
    *sampled, last = study.budget_levels(None, blend=blend, center=center)
    last = replace(last, bypass=bypass)
    grid = GridPoses("O", align="manhattan")
    return [
        *(
            replace(level, poses=grid, sampling=replace(level.sampling, num=num))
            for level, num in zip(sampled, (first, second), strict=True)
        ),
        last,
    ]


def _dense(key: tuple, networks: dict) -> tuple:
    """The densest that there is, with a bypass where this one has it."""
    return next(other for other in networks if other[3] == key[3])


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
            "share_of_poses": 1.0 if key[0] is None else sum(key[:2]) / sum(POSES),
            "against_most": results.difference(hits[key], hits[_dense(key, networks)]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
            "kilobytes": study.kilobytes(graphs[key]),
        }
        print(key, results.percent(found[key]), flush=True)
    rows = [
        [
            "dense (6,144 / 3,072)" if key[0] is None else f"{key[0]:,} / {key[1]}",
            "" if key[0] is None else study.BLENDS[key[2]] + ", fitted" * (key[4] == "mean"),
            "yes" if key[3] else "",
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            results.points(f["against_most"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
            f"{f['kilobytes']:.0f}",
        ]
        for key, f in found.items()
    ]
    head = ["representatives", "shared", "bypass", "of the poses", "accuracy, %"]
    head += ["against dense alike, points", "training, CPU s", "graph, ms a shape", "kB a shape"]
    figure, (one,) = results.axes()
    shares = {key: 100 * f["share_of_poses"] for key, f in found.items()}
    curves = {
        "the nearest": [key for key in found if key == DENSE or key[2:4] == (1, False)],
        "six blended": [key for key in found if key == DENSE or key[2:] == (6, False, "medoid")],
        "six blended, fitted": [key for key in found if key == DENSE or key[4] == "mean"],
        "six blended, bypass": [key for key in found if key[3]],
    }
    for color, (label, own) in zip(results.COLORS, curves.items(), strict=False):
        own.sort(key=shares.get, reverse=True)
        results.curve(one, [shares[k] for k in own], [found[k] for k in own], label, color)
    top = next(iter(found.values()))["accuracy"]
    results.against_share(one, [shares[key] for key in curves["the nearest"]], top)
    figures = {
        "data": study.described(train, test),
        "rows": [
            {
                "representatives": "dense" if key[0] is None else list(key[:2]),
                "blend": key[2],
                "bypass": key[3],
                "center": key[4],
                **f,
            }
            for key, f in found.items()
        ],
    }
    results.finish(args, "1-frames", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

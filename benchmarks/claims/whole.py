"""Claim 1 on the network that users get: the preset default, from dense down (ModelNet40)

    python benchmarks/claims/whole.py --source FILE --seeds 0 1

The default network has 2,048, 1,024 and 512 poses on its three sampled levels. Trains
and tests it dense and at smaller and smaller budgets; poses share a mean of six.
"""

from __future__ import annotations

from dataclasses import replace

import results
import study

from pcequi.models import preset

POSES = (2048, 1024, 512)
DENSE = (None, None, None)
BUDGETS = (
    DENSE,
    (512, 512, 256),
    (256, 256, 128),
    (128, 128, 64),
    (72, 72, 32),
    (32, 32, 16),
)


def levels_of(budget: tuple) -> list:
    *sampled, last = preset("default")["levels"]
    pairs = zip(sampled, budget, strict=True)
    return [*(replace(one, sampling=replace(one.sampling, num=num)) for one, num in pairs), last]


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    networks = {key: levels_of(key) for key in (BUDGETS[3:] if args.quick else BUDGETS)}
    channels = preset("default")["channels"]
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for key, levels in networks.items():
        runs = [study.trained(args, graphs[key], train, s, channels=channels) for s in args.seeds]
        hits[key] = [study.hits(model, tests[key], test) for model, _ in runs]
        found[key] = {
            **results.summary(hits[key]),
            "share_of_poses": 1.0 if key == DENSE else sum(key) / sum(POSES),
            "against_most": results.difference(hits[key], hits[next(iter(networks))]),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
            "kilobytes": study.kilobytes(graphs[key]),
        }
        print(key, results.percent(found[key]), flush=True)
    rows = [
        [
            "dense (2,048 / 1,024 / 512)" if key == DENSE else " / ".join(map(str, key)),
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            results.points(f["against_most"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
            f"{f['kilobytes']:.0f}",
        ]
        for key, f in found.items()
    ]
    head = ["representatives", "of the poses", "accuracy, %", "against dense, points"]
    head += ["training, CPU s", "graph, ms a shape", "kB a shape"]
    figure, (one,) = results.axes()
    shares = [100 * f["share_of_poses"] for f in found.values()]
    results.curve(one, shares, list(found.values()), "default network, six blended")
    results.against_share(one, shares, next(iter(found.values()))["accuracy"])
    figures = {
        "data": study.described(train, test),
        "rows": [
            {"representatives": "dense" if key == DENSE else list(key), **f}
            for key, f in found.items()
        ],
    }
    results.finish(args, "1-default", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

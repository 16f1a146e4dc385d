"""Claim 1 on networks that users get, from dense down (ModelNet40)

    python benchmarks/claims/whole.py --source FILE --seeds 0 1
    python benchmarks/claims/whole.py --source FILE --seeds 0 1 --preset large

The preset ``default`` has 1,024 and 512 poses on its sampled levels, ``large`` 2,048, 1,024
and 512. Trains and tests them dense and at smaller and smaller budgets, with half as many
representatives on the last sampled level, and with as many on each; poses share a mean of six.
``default`` with as many on each is also asked with rows fitted to all poses
(``FeatureSampler.center`` of "mean"), and with a last level that sees past the sampling
(``Level.bypass``).
"""

from __future__ import annotations

from dataclasses import replace

import results
import study

from pcequi.models import preset

# Of the sampled levels: all poses, then representatives.
POSES = {"default": (1024, 512), "large": (2048, 1024, 512)}
BUDGETS = {
    "default": ((512, 256), (256, 128), (128, 64), (48, 24), (24, 12)),
    "large": ((512, 512, 256), (256, 256, 128), (128, 128, 64), (72, 72, 32), (32, 32, 16)),
}
# About as many in all, shared out evenly.
EVEN = {
    "default": ((256, 256), (192, 192), (96, 96), (38, 38), (18, 18)),
    "large": ((104, 104, 104), (58, 58, 58)),
}


# Of these networks also fitted rows and a bypass, evenly shared out.
MORE = ("default",)


def levels_of(name: str, budget: tuple, bypass: bool, center: str = "medoid") -> list:
    *sampled, last = preset(name)["levels"]
    pairs = zip(sampled, budget, strict=True)
    sampled = [
        replace(one, sampling=replace(one.sampling, num=num, center=center)) for one, num in pairs
    ]
    return [*sampled, replace(last, bypass=bypass)]


def _said(numbers: tuple) -> str:
    return " / ".join(f"{number:,}" for number in numbers)


def main() -> None:
    args = study.arguments(__doc__, presets=tuple(POSES))
    train, test = study.load(args)
    poses, even = POSES[args.preset], EVEN[args.preset]
    budgets = sorted(BUDGETS[args.preset] + even, key=sum, reverse=True)
    dense = (None,) * len(poses)
    keys = [(one, False) for one in (budgets[-3:] if args.quick else (dense, *budgets))]
    if args.preset in MORE:
        few = even[-2:] if args.quick else even
        keys += [(one, False, "mean") for one in few]
        keys += [(one, True) for one in (few if args.quick else (dense, *few))]
    networks = {key: levels_of(args.preset, *key) for key in keys}
    channels = preset(args.preset)["channels"]
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for key, levels in networks.items():
        runs = [study.trained(args, graphs[key], train, s, channels=channels) for s in args.seeds]
        hits[key] = [study.hits(model, tests[key], test) for model, _ in runs]
        found[key] = {
            **results.summary(hits[key]),
            "share_of_poses": 1.0 if key[0] == dense else sum(key[0]) / sum(poses),
            "against_most": results.difference(
                hits[key], hits[next(other for other in networks if other[1] == key[1])]
            ),
            "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
            "build_ms": study.build_cost(test, levels),
            "kilobytes": study.kilobytes(graphs[key]),
        }
        print(key, results.percent(found[key]), flush=True)
    rows = [
        [
            f"dense ({_said(poses)})" if key[0] == dense else _said(key[0]),
            *(["fitted" * (key[2:] == ("mean",)), "yes" * key[1]] if args.preset in MORE else []),
            f"{100 * f['share_of_poses']:.1f} %",
            results.percent(f),
            results.points(f["against_most"]),
            f"{f['train_seconds']:.0f}",
            f"{f['build_ms']:.0f}",
            f"{f['kilobytes']:.0f}",
        ]
        for key, f in found.items()
    ]
    head = ["representatives", *(["rows", "bypass"] if args.preset in MORE else []), "of the poses"]
    head += ["accuracy, %", "against dense alike, points", "training, CPU s"]
    head += ["graph, ms a shape", "kB a shape"]
    figure, (one,) = results.axes()
    shares = {key: 100 * f["share_of_poses"] for key, f in found.items()}
    halved = [key for key in found if key[0] not in even and not key[1]]
    curves = [
        ("half as many on the last of them", halved),
        ("as many on each sampled level", [k for k in found if k[0] in even and k[1:] == (False,)]),
        ("as many on each, fitted", [key for key in found if len(key) > 2]),
        ("as many on each, bypass", [key for key in found if key[1]]),
    ]
    for (label, own), color in zip(curves, results.COLORS, strict=False):
        if own:
            results.curve(one, [shares[k] for k in own], [found[k] for k in own], label, color)
    results.against_share(one, [shares[k] for k in halved], next(iter(found.values()))["accuracy"])
    figures = {
        "data": study.described(train, test),
        "rows": [
            {
                "representatives": "dense" if key[0] == dense else list(key[0]),
                "center": key[2] if len(key) > 2 else "medoid",
                "bypass": key[1],
                **f,
            }
            for key, f in found.items()
        ],
    }
    results.finish(args, f"1-{args.preset}", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

"""Claim 2: is feature space the place to sample? (ModelNet40)

    python benchmarks/claims/sampling.py --source FILE --seeds 0

The same network on representatives chosen in seven ways, at equal budgets. Lloyd steps and
blending follow a random choice too, so that what farthest-point sampling itself is worth can be
seen. The table gives what each costs, and the plot puts accuracy over the time of a training step.
"""

from __future__ import annotations

import results
import study
import torch

from pcequi.pose_graph import build_pose_graph

METHODS = {
    "spatial FPS": {"method": "spatial", "refine": 0},
    "random poses": {"method": "random", "refine": 0},
    "random, 2 Lloyd steps": {"method": "random", "refine": 2},
    "random, 2 Lloyd steps, six blended": {"method": "random", "refine": 2, "blend": 6},
    "FPS in feature space": {"refine": 0},
    "FPS, 2 Lloyd steps": {"refine": 2},
    "FPS, 2 Lloyd steps, six blended": {"refine": 2, "blend": 6},
}
# What FPS is worth where all else is alike: against the random choice of the same name.
PAIRS = {name: name.replace("FPS", "random") for name in METHODS if name.startswith("FPS, ")}
PAIRS["FPS in feature space"] = "random poses"
BUDGETS = (16, 48)


def lost(clouds: list[torch.Tensor], levels) -> float:
    """Share of the variance of level 1's embeddings that is lost, mean over clouds."""
    shares = []
    for number, cloud in enumerate(clouds):
        generator = torch.Generator().manual_seed(number)
        _, sampled = build_pose_graph(cloud, levels[:1], generator=generator, embeddings=True)
        z = sampled[0].embedding.flatten(0, 1)
        spread = (z - z.mean(0)).square().sum(1).mean()
        chosen = sampled[0].chosen
        error = z - chosen.spread(z[chosen.index])
        shares.append(float(error.square().sum(1).mean() / spread))
    return sum(shares) / len(shares)


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    networks = {
        (num, name): study.budget_levels(num, **method)
        for num in BUDGETS
        for name, method in METHODS.items()
    }
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found, hits = {}, {}
    for key, levels in networks.items():
        runs = [study.trained(args, graphs[key], train, seed) for seed in args.seeds]
        hits[key] = [study.hits(model, tests[key], test) for model, _ in runs]
        found[key] = {
            **results.summary(hits[key]),
            "step_ms": study.step_cost(runs[0][0], graphs[key], train)[0],
            "build_ms": study.build_cost(test, levels),
            "variance_lost": lost(test.clouds[:24], levels),
        }
        print(key, results.percent(found[key]), flush=True)
    rows, refined = [], "FPS, 2 Lloyd steps"
    for num, name in networks:
        f = found[num, name]
        f["gain_of_refined_fps"] = results.difference(hits[num, refined], hits[num, name])
        if name in PAIRS:
            f["gain_on_random"] = results.difference(hits[num, name], hits[num, PAIRS[name]])
        rows.append(
            [
                f"{num} / {num // 2}",
                name,
                results.percent(f),
                results.points(f["gain_on_random"]) if name in PAIRS else "",
                "" if name == refined else results.points(f["gain_of_refined_fps"]),
                f"{f['variance_lost']:.2f}",
                f"{f['step_ms']:.2f}",
                f"{f['build_ms']:.0f}",
            ]
        )
    head = ["representatives", "chosen by", "accuracy, %", "gains on random alike, points"]
    head += [
        "FPS, 2 Lloyd steps gain on it, points",
        "variance lost",
        "training, ms a shape",
        "graph, ms a shape",
    ]
    figure, (left, right) = results.axes(2, 10.5, 3.3)
    for name, method in METHODS.items():
        own = [found[num, name] for num in BUDGETS]
        color = results.COLORS[("spatial", "random", "fps").index(method.get("method", "fps"))]
        style = ":" if "blend" in method else "--" if method["refine"] else "-"
        results.curve(left, BUDGETS, own, name, color, linestyle=style)
        results.curve(right, [f["step_ms"] for f in own], own, name, color, linestyle=style)
    results.ticks(left, BUDGETS)
    left.set(xlabel="representatives of level 1 (level 2: half)", ylabel="accuracy, %")
    right.set(xlabel="training, CPU ms a shape")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figures = {
        "data": study.described(train, test),
        "rows": [{"budget": num, "method": name, **f} for (num, name), f in found.items()],
    }
    results.finish(args, "2-sampling", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

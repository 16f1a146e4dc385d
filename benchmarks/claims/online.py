"""Claim 3: sampled once from geometry, or at every step on learned features? (ModelNet40)

    python benchmarks/claims/online.py --source FILE --seeds 0

The ten classes of ModelNet10. Networks are trained both ways, each is tested both
ways, and both ways are trained by the same plain loop.
"""

from __future__ import annotations

import time

import results
import study
import torch

from pcequi.models import forward_online

BUDGETS = (48, 16)
WAYS = ("precomputed", "online")


def online_forward(model, levels, clouds):
    """From rows to logits, every level sampled on the features below it."""
    other = model.with_levels(levels)
    return lambda rows: forward_online(other, [clouds[row] for row in rows.tolist()])


def precomputed_forward(model, store):
    return lambda rows: model(store.batch(rows))


@torch.no_grad()
def tested(forward, test) -> tuple[torch.Tensor, float]:
    """Hits [n], and CPU milliseconds a shape."""
    start = time.process_time()
    rows = torch.arange(len(test)).split(50)
    logits = torch.cat([forward(some).float() for some in rows])
    seconds = time.process_time() - start
    return (logits.argmax(1) == test.labels).double(), 1e3 * seconds / len(test)


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args, "modelnet10", 30, 400)
    networks = {num: study.budget_levels(num) for num in (BUDGETS[1:] if args.quick else BUDGETS)}
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    epochs, found = 2 if args.quick else 10, []
    for num, levels in networks.items():
        for way in WAYS:
            hits, spent = {other: [] for other in WAYS}, []
            for seed in args.seeds:
                model = study.new_model(levels, len(train.classes), seed)
                forward = (
                    precomputed_forward(model, graphs[num])
                    if way == "precomputed"
                    else online_forward(model, levels, train.clouds)
                )
                key = (graphs[num].folder.name, way, epochs, seed)

                def fit(model=model, forward=forward, seed=seed) -> float:
                    return study.train_steps(model, forward, train.labels, epochs, seed, cast=False)

                spent.append(study.kept(args, model, key, fit))
                hit, _ = tested(precomputed_forward(model, tests[num]), test)
                hits["precomputed"].append(hit)
                hit, test_ms = tested(online_forward(model, levels, test.clouds), test)
                hits["online"].append(hit)
            row = {
                "representatives": num,
                "trained": way,
                "train_ms": 1e3 * sum(spent) / len(spent) / (epochs * len(train)),
                "build_ms": study.build_cost(test, levels),
                "online_test_ms": test_ms,
                **{f"tested_{other}": results.summary(hits[other]) for other in WAYS},
            }
            if way == "precomputed":
                reference = hits[way]
            row["gain"] = results.difference(hits[way], reference)
            found.append(row)
            print(num, way, *(results.percent(row[f"tested_{o}"]) for o in WAYS), flush=True)
    rows = [
        [f"{row['representatives']} / {row['representatives'] // 2}", row["trained"]]
        + [results.percent(row[f"tested_{way}"]) for way in WAYS]
        + [results.points(row["gain"]) if row["trained"] == "online" else ""]
        + [f"{row['train_ms']:.2f}", "" if row["trained"] == "online" else f"{row['build_ms']:.0f}"]
        for row in found
    ]
    head = ["representatives", "trained", "tested precomputed, %", "tested online, %"]
    head += ["online all through against precomputed, points"]
    head += ["training, CPU ms a shape and epoch", "graph, CPU ms a shape (once)"]
    figure, (left, right) = results.axes(2, 8.0, 3.2)
    names = [f"{row['trained']}\n{row['representatives']}" for row in found]
    place = torch.arange(len(found)).tolist()
    for shift, way, color in zip((-0.1, 0.1), WAYS, results.COLORS, strict=False):
        own = [row[f"tested_{way}"] for row in found]
        at = [x + shift for x in place]
        results.curve(left, at, own, f"tested {way}", color, linestyle="none")
    right.bar(place, [row["train_ms"] for row in found], 0.5, color=results.COLORS[2])
    left.legend(frameon=False, fontsize=8)
    left.set(ylabel="accuracy, %")
    right.set(ylabel="training, CPU ms a shape and epoch", yscale="log")
    for one in (left, right):
        one.set_xticks(place, names, fontsize=8)
        one.set_xlabel("trained, representatives")
    figures = {"data": f"{len(train)} shapes to train on, {len(test)} to test", "rows": found}
    results.finish(args, "3-online", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

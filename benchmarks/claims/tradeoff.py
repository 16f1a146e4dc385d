"""Claim 4: what does a second of training buy, at several budgets? (ModelNet40)

    python benchmarks/claims/tradeoff.py --source FILE --seeds 0

Whole trainings of several lengths, each with its own schedule of the learning rate.
"""

from __future__ import annotations

import results
import study

# Epochs of the trainings at each budget: about as long at the end, but for the least.
EPOCHS = {16: (3, 10, 30), 48: (3, 10, 30), 128: (3, 10, 20), None: (3, 10)}


def draw(found: list[dict]):
    """Accuracy over training time, without and with the making of graphs."""
    figure, (left, right) = results.axes(2, 8.4, 3.3)
    budgets = list(dict.fromkeys(row["representatives"] for row in found))
    for one, label in ((left, "training"), (right, "graphs and training")):
        times = {}
        for color, num in zip(results.COLORS, budgets, strict=False):
            own = [row for row in found if row["representatives"] == num]
            times[num] = [
                row["train_seconds"] + (row["build_seconds"] if one is right else 0) for row in own
            ]
            results.curve(one, times[num], own, str(num), color)
        every = sum(times.values(), [])
        steps = [first * 10.0**power for power in range(-2, 6) for first in (1, 2, 5)]
        shown = [x for x in steps if min(every) * 0.8 < x < max(every) * 1.25]
        results.ticks(one, shown, [f"{x:g}" for x in shown])
        one.set(xlabel=f"{label}, CPU seconds")
    left.set(ylabel="accuracy, %")
    left.legend(frameon=False, title="representatives", fontsize=8)
    return figure


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    lengths = dict.fromkeys(study.QUICK_BUDGETS, (2,)) if args.quick else EPOCHS
    networks = {num: study.budget_levels(num) for num in lengths}
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found = []
    for num in lengths:
        build_ms = study.build_cost(test, networks[num])
        for epochs in lengths[num]:
            runs = [study.trained(args, graphs[num], train, seed, epochs) for seed in args.seeds]
            row = {
                "representatives": num or "dense",
                "epochs": epochs,
                **results.summary([study.hits(model, tests[num], test) for model, _ in runs]),
                "train_seconds": sum(seconds for _, seconds in runs) / len(runs),
                "build_seconds": build_ms * len(train) / 1e3,
            }
            found.append(row)
            print(num, epochs, results.percent(row), flush=True)
    rows = [
        [
            row["representatives"],
            row["epochs"],
            results.percent(row),
            f"{row['train_seconds']:.0f}",
            f"{row['build_seconds']:.0f}",
        ]
        for row in found
    ]
    head = ["representatives", "epochs", "accuracy, %", "training, CPU s", "graphs, CPU s (once)"]
    figure = draw(found)
    figures = {
        "data": study.described(train, test),
        "rows": found,
    }
    results.finish(args, "4-tradeoff", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

"""Claim 6: train at one budget, test at another. (ModelNet40)

    python benchmarks/claims/matrix.py --source FILE --seeds 0 1

The networks are those of claim 1.
"""

from __future__ import annotations

import results
import study


def draw(one, values: list[list[float]], names: dict) -> None:
    """Accuracies as a coloured matrix, rows by the training."""
    shown = one.imshow(values, cmap="YlGnBu")
    one.grid(False)
    limits = shown.get_clim()
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            color = "white" if value > sum(limits) / 2 else "black"
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
            one.text(column, row, f"{value:.1f}", **style)
    one.set_xticks(range(len(names)), names.values(), fontsize=8)
    one.set_yticks(range(len(names)), names.values(), fontsize=8)
    one.set(xlabel="representatives at the test", ylabel="representatives in training")


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args)
    budgets = study.QUICK_BUDGETS if args.quick else study.BUDGETS
    networks = {
        (num, blend): study.budget_levels(num, blend=blend if num else 1)
        for blend in study.BLENDS
        for num in budgets
    }
    graphs, tests = study.stores(args, train, networks), study.stores(args, test, networks)
    found = {}
    for num, blend in networks:
        models = [study.trained(args, graphs[num, blend], train, seed)[0] for seed in args.seeds]
        for other in budgets:
            hits = [study.hits(model, tests[other, blend], test) for model in models]
            found[blend, num, other] = results.summary(hits)
    names = {num: str(num or "dense") for num in budgets}
    rows = [
        [
            f"**{names[num]}**, {shared}",
            *(f"{found[blend, num, other]['accuracy']:.1f}" for other in budgets),
        ]
        for num in budgets
        for blend, shared in study.BLENDS.items()
    ]
    error = max(f["standard_error"] for f in found.values())
    figure, panels = results.axes(2, 8.8, 3.9)
    for one, (blend, shared) in zip(panels, study.BLENDS.items(), strict=True):
        draw(one, [[found[blend, num, o]["accuracy"] for o in budgets] for num in budgets], names)
        one.set_title(f"{shared}; accuracy, %, standard errors up to {error:.1f}", fontsize=9)
    figures = {
        "data": study.described(train, test),
        "largest_standard_error": error,
        "rows": [
            {"blend": blend, "trained": names[num], "tested": names[other], **f}
            for (blend, num, other), f in found.items()
        ],
    }
    head = ["trained at \\ tested at", *names.values()]
    results.finish(args, "6-matrix", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

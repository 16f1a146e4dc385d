"""Claim 6: train at one budget, test at another. (ModelNet40)

    python benchmarks/claims/matrix.py --source FILE --seeds 0

The networks are those of claim 1.
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
    found = {}
    for num in budgets:
        models = [study.trained(args, graphs[num], train, seed)[0] for seed in args.seeds]
        for other in budgets:
            hits = [study.hits(model, tests[other], test) for model in models]
            found[num, other] = results.summary(hits)
    names = {num: str(num or "dense") for num in budgets}
    rows = [
        [f"**{names[num]}**", *(f"{found[num, other]['accuracy']:.1f}" for other in budgets)]
        for num in budgets
    ]
    figure, (one,) = results.axes(1, 4.8, 3.8)
    values = [[found[num, other]["accuracy"] for other in budgets] for num in budgets]
    shown = one.imshow(values, cmap="YlGnBu")
    one.grid(False)
    limits = shown.get_clim()
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            dark = value > (limits[0] + limits[1]) / 2
            one.text(
                column,
                row,
                f"{value:.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    one.set_xticks(range(len(budgets)), names.values(), fontsize=8)
    one.set_yticks(range(len(budgets)), names.values(), fontsize=8)
    error = max(f["standard_error"] for f in found.values())
    one.set(xlabel="representatives at the test", ylabel="representatives in training")
    one.set_title(f"accuracy, %; standard errors up to {error:.1f}", fontsize=9)
    figures = {
        "data": study.described(train, test),
        "largest_standard_error": error,
        "rows": [
            {"trained": names[num], "tested": names[other], **f}
            for (num, other), f in found.items()
        ],
    }
    head = ["trained at \\ tested at", *names.values()]
    results.finish(args, "6-matrix", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

"""Claim 7, in use: the shipped network, with stray points and without. (ModelNet40)

    python benchmarks/claims/cleaning.py --source FILE

`modelnet40`, which comes with pcequi, on damaged test clouds under SO3, as they are and
after `pcequi.outliers.kept_points` (`pcequi predict --drop-outliers`). Nothing is trained.
"""

from __future__ import annotations

import results
import study
from damage import DAMAGE, damaged, panels
from torch import Tensor

from pcequi.datasets.meshes import normalize_cloud
from pcequi.networks import load_network
from pcequi.outliers import kept_points

NAMES = ("as they are", "outliers dropped")


def cleaned(clouds: list[Tensor]) -> list[Tensor]:
    """Without points that lie alone, centred and scaled again."""
    kept = (cloud[kept_points(cloud)].numpy() for cloud in clouds)
    return [clouds[0].new_tensor(normalize_cloud(cloud)) for cloud in kept]


def main() -> None:
    args = study.arguments(__doc__)
    _, test = study.load(args, "modelnet40", 1, 600)
    checkpoint = load_network("modelnet40")
    labels = test.labels
    if not args.quick:
        order = {name: place for place, name in enumerate(checkpoint.classes)}
        labels = labels.new_tensor([order[test.classes[label]] for label in labels.tolist()])
    cases = {("none", 0.0): test.clouds}
    for name, (function, sizes, _) in DAMAGE.items():
        for size in sizes[: 1 if args.quick else None]:
            cases[name, size] = damaged(test.clouds, function, size)
    found = {}
    for case, clouds in cases.items():
        for name, some in zip(NAMES, (clouds, cleaned(clouds)), strict=True):
            part = type(test)("damaged", False, some, labels, checkpoint.classes)
            store = study.stores(args, part, {0: checkpoint.model.levels})[0]
            own = study.hits(checkpoint.model, store, part)
            found.setdefault(case, {})[name] = own
        print(
            *case, *(f"{n} {results.percent(results.summary([h]))}" for n, h in found[case].items())
        )
    shown = {case: {n: results.summary([h]) for n, h in row.items()} for case, row in found.items()}
    rows = [
        [
            name,
            size or "",
            *(results.percent(one) for one in shown[name, size].values()),
            results.points(results.difference([row[NAMES[1]]], [row[NAMES[0]]])),
        ]
        for (name, size), row in found.items()
    ]
    figures = {
        "data": f"modelnet40 as shipped, {len(test)} test shapes, SO3",
        "rows": [{"damage": name, "size": size, **row} for (name, size), row in shown.items()],
    }
    head = ["damage", "size", *(f"{name}, %" for name in NAMES), "gain, points"]
    results.finish(args, "7-cleaning", figures, results.table(head, rows), panels(shown, NAMES))


if __name__ == "__main__":
    main()

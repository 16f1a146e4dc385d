"""Claim 7, in use: the shipped networks, with stray points and without. (ModelNet40)

    python benchmarks/claims/cleaning.py --source FILE

The three networks that `pcequi predict` asks together, the two of `--scans`, `modelnet40` and
`modelnet40-scan`, on damaged test clouds under SO3, as they are and after
`pcequi.outliers.kept_points` (`pcequi predict --drop-outliers`). Nothing is trained. After a
network was trained anew, `--only modelnet40` measures its columns alone.
"""

from __future__ import annotations

import results
import study
from damage import DAMAGE, damaged, panels
from torch import Tensor

from pcequi.datasets.meshes import normalize_cloud
from pcequi.networks import FOR_SCANS, TOGETHER, load_network
from pcequi.outliers import kept_points
from pcequi.training.fit import predict_logits

NETWORKS = {
    "predict": TOGETHER,
    "two for scans": FOR_SCANS,
    "modelnet40": ("modelnet40",),
    "scan": ("modelnet40-scan",),
}


def cleaned(clouds: list[Tensor]) -> list[Tensor]:
    """Without points that lie alone, centred and scaled again."""
    kept = (cloud[kept_points(cloud)].numpy() for cloud in clouds)
    return [clouds[0].new_tensor(normalize_cloud(cloud)) for cloud in kept]


def main() -> None:
    args = study.arguments(__doc__, columns=tuple(NETWORKS))
    others = results.kept(args, "7-cleaning")["rows"] if len(args.only) < len(NETWORKS) else []
    _, test = study.load(args, "modelnet40", 1, 600)
    asked = {name for title in args.only for name in NETWORKS[title]}
    networks = {name: load_network(name) for name in sorted(asked)}
    classes = next(iter(networks.values())).classes
    labels = test.labels
    if not args.quick:
        order = {name: place for place, name in enumerate(classes)}
        labels = labels.new_tensor([order[test.classes[label]] for label in labels.tolist()])
    cases = {("none", 0.0): test.clouds}
    for name, (function, sizes, _) in DAMAGE.items():
        for size in sizes[: 1 if args.quick else None]:
            cases[name, size] = damaged(test.clouds, function, size)
    found = {}
    for case, clouds in cases.items():
        for dropped, some in ((False, clouds), (True, cleaned(clouds))):
            part = type(test)("damaged", False, some, labels, classes)
            shares = {}
            for name, network in networks.items():  # those with the same levels share graphs
                store = study.stores(args, part, {0: network.model.levels})[0]
                shares[name] = predict_logits(network.model, store).softmax(1)
            for title in args.only:
                own = sum(shares[name] for name in NETWORKS[title]).argmax(1) == labels
                found.setdefault(case, {})[_title(title, dropped)] = own.double()
        own = (f"{n} {results.percent(results.summary([h]))}" for n, h in found[case].items())
        print(*case, *own, sep="  ", flush=True)
    shown = {case: {n: results.summary([h]) for n, h in row.items()} for case, row in found.items()}
    titles = [_title(name, dropped) for dropped in (False, True) for name in NETWORKS]
    for row in others:
        own = shown[row.pop("damage"), row.pop("size")]
        own |= {name: value for name, value in row.items() if name not in own}
    shown = {case: {name: row[name] for name in titles} for case, row in shown.items()}
    rows = [
        [name, size or "", *(results.percent(one) for one in shown[name, size].values())]
        for name, size in found
    ]
    figures = {
        "data": f"networks as shipped, {len(test)} test shapes, SO3",
        "measured": args.only,
        "rows": [{"damage": name, "size": size, **row} for (name, size), row in shown.items()],
    }
    curves = [
        _title(name, dropped) for name in ("predict", "two for scans") for dropped in (False, True)
    ]
    head = ["damage", "size", *(f"{name}, %" for name in titles)]
    results.finish(args, "7-cleaning", figures, results.table(head, rows), panels(shown, curves))


def _title(name: str, dropped: bool) -> str:
    return f"{name}, outliers dropped" if dropped else name


if __name__ == "__main__":
    main()

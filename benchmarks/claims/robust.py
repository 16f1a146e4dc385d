"""Claim 7: damaged clouds, on top of rotation, beside DGCNN. (ModelNet40)

    python benchmarks/claims/robust.py --source FILE --seeds 0

The ten classes of ModelNet10, 512 points, 30 epochs (after 10, DGCNN has hardly begun to
learn: its training loss stands at 1.6). Both networks see the same shapes, epochs
and schedule; DGCNN gets a new rotation of each shape in each step, ours needs none.
Both are trained on whole clouds and tested on damaged ones under SO3. A damaged cloud
is centred and scaled again, as in use, where nobody knows the whole one.
"""

from __future__ import annotations

import results
import study
import torch
from damage import DAMAGE, damaged, panels
from torch import Tensor

from pcequi.bench.dgcnn import DGCNN
from pcequi.rotations import random_rotations

POINTS, NUM = 512, 48


def networks(args, train, seed: int, epochs: int) -> dict:
    """Both networks, trained; as functions from clouds to logits."""
    levels = study.budget_levels(NUM)
    store = study.stores(args, train, {0: levels})[0]
    ours = study.new_model(levels, len(train.classes), seed)
    torch.manual_seed(seed)
    other, pos = DGCNN(len(train.classes)), torch.stack(train.clouds)

    def turned(rows):
        return other(pos[rows] @ random_rotations(len(rows)).transpose(1, 2))

    seconds = {}
    for name, model, forward, graphs in (
        ("pcequi", ours, lambda rows: ours(store.batch(rows)), store.folder.name),
        ("DGCNN", other, turned, ""),
    ):
        key = (graphs, "robust", len(train), POINTS, epochs, seed)
        seconds[name] = study.kept(
            args,
            model,
            key,
            lambda m=model, f=forward: study.train_steps(m, f, train.labels, epochs, seed),
        )
        print(f"{name} trained: {seconds[name]:.0f} CPU s", flush=True)
    return {"models": (ours, other), "levels": levels, "seconds": seconds}


@torch.no_grad()
def hits(args, found: dict, clouds: list[Tensor], test) -> dict[str, Tensor]:
    ours, other = found["models"]
    part = type(test)("damaged", False, clouds, test.labels, test.classes)
    store = study.stores(args, part, {0: found["levels"]})[0]
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat(
            [other(torch.stack(clouds[i : i + 25])) for i in range(0, len(test), 25)]
        )
    return {
        "pcequi": study.hits(ours, store, part),
        "DGCNN": (logits.argmax(1) == test.labels).double(),
    }


def main() -> None:
    args = study.arguments(__doc__)
    train, test = study.load(args, "modelnet10", 30, 480, POINTS)
    epochs = 1 if args.quick else 30
    runs = [networks(args, train, seed, epochs) for seed in args.seeds]
    cases = {("none", 0.0): test.clouds}
    for name, (function, sizes, _) in DAMAGE.items():
        for size in sizes[: 1 if args.quick else None]:
            cases[name, size] = damaged(test.clouds, function, size)
    found = {}
    for case, clouds in cases.items():
        every = [hits(args, run, clouds, test) for run in runs]
        found[case] = {n: results.summary([one[n] for one in every]) for n in every[0]}
        print(*case, *(f"{n} {results.percent(f)}" for n, f in found[case].items()), flush=True)
    rows = [
        [name, size or "", *(results.percent(f) for f in row.values())]
        for (name, size), row in found.items()
    ]
    seconds = {name: runs[0]["seconds"][name] for name in runs[0]["seconds"]}
    rows.append(["training, CPU s", "", *(f"{value:.0f}" for value in seconds.values())])
    figure = panels(found, list(seconds))
    figures = {
        "data": f"{len(train)} shapes to train on, {len(test)} to test, {epochs} epochs, SO3/SO3",
        "train_seconds": seconds,
        "rows": [{"damage": name, "size": size, **row} for (name, size), row in found.items()],
    }
    head = ["damage", "size", "pcequi, %", "DGCNN, %"]
    results.finish(args, "7-robust", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

"""What the networks that come with pcequi reach on rotated ModelNet40, as they are today.

    python benchmarks/shipped.py --source FILE

Every network of the package, with its rounded weights, and those that are asked
together, on the official test split under z/SO3 and the seed of their training; kept
in ``results/shipped.json``. The cards of the networks get the same figures. Trainings
have figures of their own (``modelnet40_accuracy.py``), of the code of their day.
"""

from __future__ import annotations

import argparse
import re

import torch
from common import TEAMS, add_machine, write

from pcequi.models.orders import order_turns
from pcequi.networks import FOLDER, load_network, network_names
from pcequi.training.checkpoints import Checkpoint
from pcequi.training.evaluate import classification_report, evaluate_protocol
from pcequi.training.splits import load_split
from pcequi.training.threads import set_threads

PROTOCOL = "z/SO3"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", required=True, help="packed file or folder of ModelNet40")
    add_machine(parser)
    args = parser.parse_args()
    set_threads(args.threads)
    test = load_split("modelnet40", False, source=args.source)
    rows, shares = [], {}
    for name in network_names():
        checkpoint = load_network(name)
        report, logits = evaluate_protocol(
            checkpoint.model,
            test,
            PROTOCOL,
            seed=checkpoint.extra["seed"],
            cache=args.cache,
            workers=args.workers,
        )
        shares[name] = logits.float().softmax(1)
        rows.append(_row([name], report))
        _correct_card(name, report, checkpoint)
    for team in TEAMS:
        logits = torch.stack([shares[name] for name in team]).mean(0).log()
        rows.append(_row(team, classification_report(logits, test.labels, test.classes)))
    figures = {
        "command": "python benchmarks/shipped.py --source FILE",
        "data": "ModelNet40, official test split, 1,024 points, xyz only",
        "protocol": PROTOCOL,
        "shapes": len(test),
        "rows": rows,
    }
    print(write("shipped", figures))


def _row(names, report: dict) -> dict:
    row = {
        "networks": list(names),
        "accuracy": report["accuracy"],
        "mean_class_accuracy": report["mean_class_accuracy"],
    }
    print(f"{' and '.join(names)}: {row['accuracy']:.2%}", flush=True)
    return row


def _correct_card(name: str, report: dict, checkpoint: Checkpoint) -> None:
    """The figures in a card; what was trained how stays."""
    path = FOLDER / f"{name}.md"
    card = path.read_text(encoding="utf-8")
    how = "no votes, no test-time augmentation"
    if order_turns(checkpoint.model.levels) is not None:
        how = "one graph a shape, a mean over the orders of its axes that are in doubt"
    told = {
        "accuracy": f"{report['accuracy']:.2%} {PROTOCOL} (test split, {how}, rounded weights)",
        "mean of the classes": f"{report['mean_class_accuracy']:.2%} {PROTOCOL}",
    }
    for key, value in told.items():
        line = f"| {key} | {value} |".replace("%", " %")
        card, found = re.subn(rf"^\| {key} \|.*$", line, card, flags=re.MULTILINE)
        if found != 1:
            raise SystemExit(f"{path} has {found} rows `{key}`")
    head = card.index("|---|---|---|---|\n") + len("|---|---|---|---|\n")
    rows = "\n".join(class_rows(report, checkpoint.classes)).replace("%", " %")
    path.write_text(f"{card[:head]}{rows}\n", encoding="utf-8")


def class_rows(report: dict, classes: list[str]) -> list[str]:
    """The classes of a card's table, the hardest first: their shapes, the share of them that
    is right, and what the rest is most often taken for."""
    confusion = torch.tensor(report["confusion"])
    wrong = confusion.clone().fill_diagonal_(0)
    order = sorted(range(len(classes)), key=lambda row: report["per_class"][classes[row]] or 0)
    rows = []
    for row in order:
        worst = int(wrong[row].argmax())
        taken = f"{classes[worst]} ({int(wrong[row, worst])})" if wrong[row, worst] else ""
        share = report["per_class"][classes[row]]
        right = "" if share is None else f"{share:.0%}"
        rows.append(f"| {classes[row]} | {int(confusion[row].sum())} | {right} | {taken} |")
    return rows


if __name__ == "__main__":
    main()

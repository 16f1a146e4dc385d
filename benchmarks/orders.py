"""What the mean over the orders of a frame's axes adds on rotated ModelNet40.

    python benchmarks/orders.py NETWORK NETWORK ... --source FILE

Each network, the folder of a run or a name of the package, classifies the official test split
under z/SO3 and the seed of its training, with the first order of each shape's axes alone and
with the mean over those that are in doubt (``pcequi.models.orders``), from the same graphs.
Networks of a seed whose presets are ``pairs`` and another are also asked together, alone and with
one of that preset that learned from versions like scans. Kept in ``results/orders.json``, where
networks that are not asked now stay, with the commit of their day, and so do those asked together
unless one of them has other weights now.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from common import RESULTS, add_machine, commit, write

from pcequi.models.orders import averaged_logits, order_shares, order_turns
from pcequi.networks import find_network, network_names
from pcequi.progress import progress_bar
from pcequi.training.run_settings import load_run_settings
from pcequi.training.splits import load_split, precompute_shown
from pcequi.training.threads import set_threads

PROTOCOL, BATCH = "z/SO3", 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="+", help="folders of runs, or names of the package")
    parser.add_argument("--source", required=True, help="packed file or folder of ModelNet40")
    add_machine(parser)
    args = parser.parse_args()
    set_threads(args.threads)
    test = load_split("modelnet40", False, source=args.source)
    rows, shares = [], []
    for place in args.networks:
        about, model = trained(place)
        store = precompute_shown(
            test,
            model.levels,
            "SO3",
            "test clouds",
            seed=about["seed"],
            cache=args.cache,
            workers=args.workers,
        )
        plain, averaged, orders = both(model, store)
        shares.append((plain.softmax(1), averaged.softmax(1)))
        found = [accuracy(one, test.labels) for one in (plain, averaged)]
        about |= {"plain": found[0], "averaged": found[1], "orders_a_shape": orders}
        rows.append(about | {"commit": commit()})
        print(rows[-1], flush=True)
    together = []
    for team in teams(rows):
        found = [accuracy(sum(shares[n][way] for n in team), test.labels) for way in range(2)]
        names = [rows[number]["network"] for number in team]
        about = {"networks": names, "seed": rows[team[0]]["seed"]}
        together.append({**about, "plain": found[0], "averaged": found[1]})
        print(together[-1], flush=True)
    rows, together = with_others(rows, together)
    figures = {
        "command": "python benchmarks/orders.py NETWORK ... --source FILE",
        "data": "ModelNet40, official test split, 1,024 points, xyz only",
        "protocol": PROTOCOL,
        "shapes": len(test),
        "rows": rows,
        "together": together,
    }
    print(write("orders", figures))


def with_others(rows: list[dict], together: list[dict]) -> tuple[list[dict], list[dict]]:
    """What was measured now, and of what was measured before all that still holds."""
    path = RESULTS / "orders.json"
    if not path.exists():
        return rows, together
    before = json.loads(path.read_text())
    known = {row["network"]: row for row in before["rows"]}
    for row in known.values():
        row.setdefault("commit", before["circumstances"]["commit"])
    now = {row["network"]: row for row in rows}
    done = [team["networks"] for team in together]

    def holds(name: str) -> bool:
        return name not in now or now[name]["weights"] == known.get(name, {}).get("weights")

    for team in before["together"]:
        if team["networks"] not in done and all(map(holds, team["networks"])):
            together.append(team)
    return rows + [row for name, row in known.items() if name not in now], together


def trained(place: str) -> tuple[dict, torch.nn.Module]:
    """How a network was trained, and the network."""
    checkpoint = find_network(place)
    about = dict(checkpoint.extra)
    if place not in network_names():
        settings = load_run_settings(place)
        about |= {"resamplings": settings.resamplings, "resample_as": settings.resample_as}
        about |= {"seed": settings.fit.seed, "epochs": settings.fit.epochs}
    keys = ("preset", "seed", "epochs", "resamplings", "resample_as")
    name = Path(place).name
    model = checkpoint.model.float().eval()
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.numpy().tobytes())
    about |= {"network": name, "weights": weights.hexdigest()[:16]}
    return {key: about[key] for key in ("network", *keys, "weights")}, model


def teams(rows: list[dict]) -> list[list[int]]:
    """Numbers of the networks that are asked together."""
    found = []
    for one, row in enumerate(rows):
        for other, second in enumerate(rows):
            if row["preset"] == "pairs" or second["preset"] != "pairs":
                continue
            if row["seed"] != second["seed"]:
                continue
            found.append([one, other])
            for third, twin in enumerate(rows):  # which learned from scans, of any seed
                alike = row["preset"] == twin["preset"] and third != one
                if alike and (row["resample_as"], twin["resample_as"]) == ("shape", "scan"):
                    found.append([one, third, other])
    return found


@torch.no_grad()
def both(model, store) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Logits of the first order and of the mean, and how many orders a shape has on average."""
    plain, averaged, orders = [], [], 0
    with progress_bar("classifying", len(store)) as bar:
        for rows in torch.arange(len(store)).split(BATCH):
            graph = store.batch(rows)
            plain.append(model(graph))
            averaged.append(averaged_logits(model, graph))
            known = order_turns(model.levels) is not None
            orders += int((order_shares(graph) > 0).sum()) if known else len(rows)
            bar(int(rows[-1]) + 1, len(store))
    return torch.cat(plain), torch.cat(averaged), round(orders / len(store), 3)


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float((scores.argmax(1) == labels).double().mean())


if __name__ == "__main__":
    main()

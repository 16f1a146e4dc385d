"""What does accuracy cost? One small network, trained at several budgets.

Clouds of the default set, upright to train on and turned at random to test on.
Each budget has its own graphs and its own training; the table also says what
the network trained at the largest budget reaches at the others.

    python examples/budget_against_accuracy.py [--quick]
"""

import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from torch_geometric.loader import DataLoader

from pcequi.datasets import Shapes
from pcequi.models import GroupConvClassifier, preset
from pcequi.rotations import random_rotations
from pcequi.transforms import BuildPoseGraph


def levels(num: int) -> list:
    *local, last = preset("small")["levels"]
    return [level.with_budget(num=num) for level in local] + [last]


def graphs(clouds, num: int, turned: bool) -> list:
    build = BuildPoseGraph(levels(num))
    turns = random_rotations(len(clouds), generator=torch.Generator().manual_seed(1)).float()
    result = []
    for data, turn in zip(clouds, turns):
        data = data.clone()
        data.pos = data.pos @ turn.T if turned else data.pos
        result.append(build(data))
    return result


def train(data: list, num: int, classes: int, epochs: int) -> tuple[GroupConvClassifier, float]:
    torch.manual_seed(0)
    model = GroupConvClassifier(levels(num), classes, channels=preset("small")["channels"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    start = time.perf_counter()
    for _ in range(epochs):
        for batch in DataLoader(data, batch_size=16, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            F.cross_entropy(model(batch), batch.y).backward()
            optimizer.step()
    return model.eval(), (time.perf_counter() - start) / epochs


@torch.no_grad()
def accuracy(model, data: list) -> float:
    hits = [(model(b).argmax(1) == b.y).float() for b in DataLoader(data, batch_size=32)]
    return float(torch.cat(hits).mean())


def main(quick: bool) -> None:
    budgets = (4, 32) if quick else (4, 16, 64, 128)
    names = ["bottle", "chair", "hammer", "table"] if quick else None
    counts = {"num_train": 4, "num_test": 2} if quick else {"num_train": 12, "num_test": 6}
    with tempfile.TemporaryDirectory() as root:
        options = {"num_points": 256 if quick else 512, "classes": names, **counts}
        train_set = Shapes(root, train=True, **options)
        test_set = Shapes(root, train=False, **options)
    test = {num: graphs(test_set, num, turned=True) for num in budgets}
    rows = []
    for num in budgets:
        data = graphs(train_set, num, turned=False)
        model, seconds = train(data, num, train_set.num_classes, 2 if quick else 15)
        rows.append((num, accuracy(model, test[num]), seconds))
    print("budget  trained at it  trained at the largest  seconds an epoch")
    for num, share, seconds in rows:  # `model` is the last one, of the largest budget
        print(f"{num:6d}  {share:13.1%}  {accuracy(model, test[num]):22.1%}  {seconds:16.2f}")


if __name__ == "__main__":
    main("--quick" in sys.argv)

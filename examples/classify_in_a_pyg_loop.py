"""Train a classifier in a bare PyG loop and test it on rotated clouds.

Training clouds are never rotated; test clouds all are. The pose graphs are
made once, by a pre-transform, and kept with the data set.

    python examples/classify_in_a_pyg_loop.py [--quick]   # quick: figures mean nothing
"""

import sys
import tempfile

import torch
import torch.nn.functional as F
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pcequi.datasets import Shapes
from pcequi.models import GroupConvClassifier, preset
from pcequi.transforms import BuildPoseGraph, RandomRotation


def main(quick: bool) -> None:
    torch.manual_seed(0)
    settings = preset("small")
    build = BuildPoseGraph(settings["levels"])
    turn = RandomRotation(seed=0)  # uniform over all rotations
    count = {"num_train": 6, "num_test": 3, "num_points": 256} if quick else {}
    with tempfile.TemporaryDirectory() as root:
        train = Shapes(root, train=True, pre_transform=build, **count)
        test = Shapes(root, train=False, pre_transform=Compose([turn, build]), **count)
        model = GroupConvClassifier(num_classes=train.num_classes, **settings)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for epoch in range(1, (2 if quick else 12) + 1):
            model.train()
            for batch in DataLoader(train, batch_size=32, shuffle=True):
                loss = F.cross_entropy(model(batch), batch.y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                hits = [
                    (model(b).argmax(1) == b.y).float() for b in DataLoader(test, batch_size=64)
                ]
            print(f"epoch {epoch}: {torch.cat(hits).mean():.1%} of the rotated test clouds")


if __name__ == "__main__":
    main("--quick" in sys.argv)

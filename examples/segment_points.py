"""Say of every point which part it belongs to, whatever way the cloud lies.

Clouds are made of a ball, a box and a rod, thrown together. The network is a classifier's
body, whose features of each level are brought back to the points; what comes out of it is
invariant, so it is trained on clouds as they are made and tested on turned ones.

    python examples/segment_points.py [--quick]   # quick: figures mean nothing
"""

import sys

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP

from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import PoseGraph
from pcequi.rotations import random_rotations
from pcequi.transforms import BuildPoseGraph

PARTS = ("ball", "box", "rod")


class Segmenter(torch.nn.Module):
    """Logits [N, parts] of all points of a batch of clouds."""

    def __init__(self, num_parts: int):
        super().__init__()
        settings = preset("pairs")
        self.body = GroupConvClassifier(num_classes=0, **settings)  # without a head
        self.head = MLP([sum(settings["channels"]), 64, num_parts], dropout=0.2)

    def forward(self, data):
        graph = PoseGraph.load(data)
        levels = self.body.level_features(graph)
        points = [graph.to_points(x, number) for number, x in enumerate(levels)]
        return self.head(torch.cat(points, 1), data.batch)


def part(kind: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Points on the surface of one part."""
    x = torch.randn(size, 3, generator=generator)
    if kind == 0:
        return 0.4 * F.normalize(x, dim=1)
    if kind == 1:
        return 0.35 * x / x.abs().amax(1, keepdim=True)
    around = 0.08 * F.normalize(x[:, :2], dim=1)
    return torch.cat([around, 0.8 * torch.rand(size, 1, generator=generator) - 0.4], 1)


def make_cloud(seed: int, turned: bool, size: int) -> Data:
    """One of each part, each turned and moved at random; of unit radius."""
    generator = torch.Generator().manual_seed(seed)
    turns = random_rotations(len(PARTS), generator=generator, dtype=torch.float32)
    pos = torch.cat(
        [
            part(kind, size, generator) @ turns[kind].T
            + 0.5 * F.normalize(torch.randn(3, generator=generator), dim=0)
            for kind in range(len(PARTS))
        ]
    )
    pos = pos - pos.mean(0)
    pos = pos / pos.norm(dim=1).max()
    if turned:
        pos = pos @ random_rotations(1, generator=generator, dtype=torch.float32)[0].T
    return Data(pos=pos, y=torch.arange(len(PARTS)).repeat_interleave(size))


def main(quick: bool) -> None:
    torch.manual_seed(0)
    model = Segmenter(len(PARTS))
    build = BuildPoseGraph(model.body.levels, points=True)
    size, num, epochs = (60, 24, 4) if quick else (150, 100, 10)
    train = [build(make_cloud(seed, turned=False, size=size)) for seed in range(num)]
    tests = [
        [build(make_cloud(10_000 + seed, turned, size)) for seed in range(num // 4)]
        for turned in (False, True)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in DataLoader(train, batch_size=8, shuffle=True):
            loss = F.cross_entropy(model(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.2f}")
    model.eval()
    with torch.no_grad():
        found = [
            torch.cat([model(batch).argmax(1) for batch in DataLoader(test, batch_size=8)])
            for test in tests
        ]
    truth = torch.cat([data.y for data in tests[0]])
    for words, parts in zip(("as made", "turned"), found, strict=True):
        print(f"clouds {words}: {(parts == truth).float().mean():.1%} of the points")
    print(f"the same part in both: {(found[0] == found[1]).float().mean():.1%}")


if __name__ == "__main__":
    main("--quick" in sys.argv)

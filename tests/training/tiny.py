"""A network and clouds small enough for tests of training."""

import torch

from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, TangentPoses
from pcequi.sampling import FeatureSampler
from pcequi.training.splits import Split

CLASSES = ["ball", "plate", "rod"]


def tiny_levels() -> list[Level]:
    return [
        Level(0.6, TangentPoses(2, 8), FeatureSampler(num=8), kernel_points=7),
        Level(1.5, CentroidPoses("T"), kernel_points=7),
    ]


def tiny_settings() -> dict:
    return {"levels": tiny_levels(), "channels": [6, 8]}


def tiny_model(seed: int = 0, num_classes: int = 3) -> GroupConvClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GroupConvClassifier(tiny_levels(), num_classes, [6, 8], head_channels=16)


def tiny_split(num: int = 12, train: bool = True, seed: int = 0) -> Split:
    """Balls, plates and rods of 24 points, in turn."""
    generator = torch.Generator().manual_seed(seed + 100 * train)
    stretch = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.1], [1.0, 0.1, 0.1]])
    labels = torch.arange(num) % 3
    clouds = []
    for label in labels:
        cloud = torch.randn(24, 3, generator=generator) * stretch[label]
        cloud = cloud - cloud.mean(0)
        clouds.append(cloud / cloud.norm(dim=1).max())
    return Split("tiny", train, clouds, labels, CLASSES)


def tiny_store(folder, split: Split) -> GraphStore:
    return GraphStore.build(folder, split.clouds, tiny_levels(), workers=1)

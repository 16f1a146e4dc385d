"""How far from the dense network is a compressed one, by budget?

Ten untrained networks, one cloud: the dense logits against those with a growing
number of representatives a level, and the covering radius of the first level.

    python examples/budget_against_error.py
"""

import torch

from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.sampling import FeatureSampler

GRID = GridPoses("O", align="principal")


def levels(num: int | None) -> list[Level]:
    sampling = FeatureSampler(num=num)
    return [
        Level(0.4, GRID, sampling, num_points=64),
        Level(0.8, GRID, sampling, num_points=32),
        Level(1.5, CentroidPoses("O")),
    ]


def make_model(seed: int) -> GroupConvClassifier:
    torch.manual_seed(seed)
    return GroupConvClassifier(levels(None), num_classes=5, channels=[16, 32, 64]).double().eval()


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = torch.rand(300, 3, dtype=torch.float64, generator=generator)
    cloud = cloud * torch.tensor([1.0, 0.6, 0.3])
    cloud = cloud - cloud.mean(0)
    cloud = cloud / cloud.norm(dim=1).max()
    models = [make_model(seed) for seed in range(10)]
    with torch.no_grad():
        graph = build_pose_graph(cloud, levels(None))
        dense = [model(graph) for model in models]
        for num in (8, 32, 128, 512, 1536):
            graph, sampled = build_pose_graph(cloud, levels(num), embeddings=True)
            errors = [
                (model(graph) - own).norm() / own.norm()
                for model, own in zip(models, dense, strict=True)
            ]
            radius, error = sampled[0].chosen.covering_radius[0], torch.stack(errors).mean()
            print(f"{num:4d} representatives: covering radius {radius:.3f}, error {error:.1e}")


if __name__ == "__main__":
    main()

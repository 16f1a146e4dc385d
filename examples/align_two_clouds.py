"""How is one cloud turned against another of the same shape?

The features of the frames at both centroids tell which frame matches which;
nearest points refine the rotation. First a copy, then another sample of the
same surface with other points. Then features of single points: those of the
copy are the same, and vectors turn with it.

    python examples/align_two_clouds.py
"""

import math

import numpy as np
import torch

from pcequi.align import align_clouds
from pcequi.datasets import make_shape
from pcequi.datasets.meshes import normalize_cloud, sample_mesh
from pcequi.models import GroupConvClassifier, extract_features
from pcequi.rotations import geodesic_distance, random_rotations


def two_samples(name: str, num: int = 512) -> list[torch.Tensor]:
    """Two sets of points, drawn independently from one mesh."""
    mesh = make_shape(name, np.random.default_rng(3))
    draws = [sample_mesh(*mesh, num, np.random.default_rng(seed))[0] for seed in (0, 1)]
    return [torch.from_numpy(normalize_cloud(points)) for points in draws]


def main() -> None:
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset("small", num_classes=16).double().eval()
    one, other = two_samples("airplane")
    turn = random_rotations(1, dtype=torch.float64)[0]
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for name, target in (("a copy", one), ("another sample", other)):
        found = align_clouds(model, one, target @ turn.T + shift)
        angle = math.degrees(geodesic_distance(found.rotation, turn))
        print(f"{name}: {angle:.1e} degrees off, residual {found.residual:.1e}")
        assert angle < 5

    with torch.no_grad():
        before = extract_features(model, one).levels[1]
        after = extract_features(model, one @ turn.T + shift).levels[1]
    per_point = (before.per_point() - after.per_point()).abs().max()
    vectors = (before.per_point_vectors() @ turn.T - after.per_point_vectors()).abs().max()
    print(f"{before.x.shape[0]} representatives, per point {list(before.per_point().shape)}:")
    print(f"features of points change by {per_point:.1e}, turned vectors by {vectors:.1e}")


if __name__ == "__main__":
    main()

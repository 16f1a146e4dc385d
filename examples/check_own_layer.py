"""Is my own layer equivariant, and if not, why not?

A function of points goes in, a report comes out; where the answer is no, it
names the likely cause. Three features, two of them written wrongly.

    python examples/check_own_layer.py [--quick]

For a layer of your own, let its tests inherit the laws:

    class TestMyLayer(EquivariantLayerContract):
        def make_layer(self):
            return MyLayer()
"""

import sys

import torch

from pcequi.testing import check_equivariance


def neighbours(pos: torch.Tensor, k: int = 8) -> torch.Tensor:
    """Offsets to the k nearest points [N, k, 3]."""
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    return pos[distance.argsort(1)[:, 1 : k + 1]] - pos[:, None]


def normal_feature(pos: torch.Tensor) -> torch.Tensor:
    """How far normals point outwards: but eigenvectors have no sign."""
    offset = neighbours(pos)
    normal = torch.linalg.eigh(offset.mT @ offset).eigenvectors[:, :, 0]
    return (normal * (pos - pos.mean(0))).sum(1).relu().square().mean()


def capped_feature(pos: torch.Tensor) -> torch.Tensor:
    """Largest sums of distances in a ball, of at most 32 neighbours in the order of a tree."""
    pos = pos[pos[:, 0].argsort()]
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    inside = distance < 0.4
    inside &= inside.cumsum(1) <= 32
    return (distance * inside).sum(1).sort().values[-3:]


def ball_feature(pos: torch.Tensor) -> torch.Tensor:
    """The same without a cap, and with weights that fall to zero at the edge."""
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    weight = (1 - (distance / 0.4).square()).clamp_min(0).square()
    return (distance * weight).sum(1).sort().values[-3:]


def main(quick: bool) -> None:
    found = {}
    for feature in (normal_feature, capped_feature, ball_feature):
        report = check_equivariance(feature, num=2 if quick else 8)
        found[feature.__name__] = report.cause
        print(f"{feature.__name__}: {report}\n")
    assert found == {
        "normal_feature": "sign of normals",
        "capped_feature": "neighbour cap",
        "ball_feature": None,
    }


if __name__ == "__main__":
    main("--quick" in sys.argv)

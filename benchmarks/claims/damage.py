"""Damage to clouds, for claim 7: drawn from torch's global generator."""

from __future__ import annotations

from collections.abc import Sequence

import results
import torch
from torch import Tensor

from pcequi.datasets.meshes import normalize_cloud


def missing(pos: Tensor, share: float) -> Tensor:
    return pos[: len(pos) - int(share * len(pos))]  # points are in random order


def noise(pos: Tensor, size: float) -> Tensor:
    return pos + size * torch.randn_like(pos)


def density(pos: Tensor, strength: float) -> Tensor:
    """Half of the points, a thousand times rarer on one side at strength 1."""
    along = pos @ torch.nn.functional.normalize(torch.randn(3), dim=0)
    return pos[torch.multinomial((6.9 * strength * along).exp(), len(pos) // 2)]


def occlusion(pos: Tensor, share: float) -> Tensor:
    """Without the points that lie farthest in a random direction."""
    order = (pos @ torch.randn(3)).argsort()
    return pos[order[: len(pos) - int(share * len(pos))].sort().values]


def outliers(pos: Tensor, share: float) -> Tensor:
    """A share of the points moved to anywhere in the unit ball."""
    num = int(share * len(pos))
    ball = torch.nn.functional.normalize(torch.randn(num, 3), dim=1) * torch.rand(num, 1) ** (1 / 3)
    return torch.cat([pos[num:], ball])


DAMAGE = {
    "missing points": (missing, (0.25, 0.5, 0.75), "share removed"),
    "noise": (noise, (0.02, 0.05, 0.1), "standard deviation, radii"),
    "uneven density": (density, (0.25, 0.5, 1.0), "strength"),
    "occlusion": (occlusion, (0.1, 0.25, 0.4), "share removed"),
    "outliers": (outliers, (0.02, 0.05, 0.15), "share of the points"),
}


def panels(found: dict, names: Sequence[str]):
    """Accuracy by the size of each damage, a curve for each of ``names``.

    Args:
        found: for (damage, size), and ("none", 0.0), what ``results.summary`` gives by name.
    """
    figure, axes = results.axes(len(DAMAGE), 11.0, 2.7)
    for one, (damage, (_, _, label)) in zip(axes, DAMAGE.items(), strict=True):
        sizes = [0.0, *(size for name, size in found if name == damage)]
        for color, name in zip(results.COLORS, names, strict=False):
            own = [found[damage if size else "none", size][name] for size in sizes]
            results.curve(one, sizes, own, name, color)
        one.set_title(damage, fontsize=9)
        one.set(xlabel=label, ylim=(0, 100))
    axes[0].set(ylabel="accuracy, %")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def damaged(clouds: list[Tensor], function, size: float) -> list[Tensor]:
    torch.manual_seed(1)
    found = [function(cloud, size) for cloud in clouds]
    return [torch.from_numpy(normalize_cloud(cloud.numpy())).float() for cloud in found]

"""Named networks: the settings of their levels and channels."""

from __future__ import annotations

from pcequi.errors import ArgumentError
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses
from pcequi.sampling import FeatureSampler


def _network(small: bool = False, budgets: tuple = (128, 128, 64)) -> dict:
    grid, last = GridPoses("D2", align="manhattan"), CentroidPoses("D2", align="manhattan")

    def sampler(num: int) -> FeatureSampler:
        blend = {} if small else {"blend": 6, "orbits": True}
        return FeatureSampler(num=num, refine=2, seeds=256, **blend)

    if small:
        levels = [
            Level(0.25, grid, sampler(128), num_points=256, kernel_points=15),
            Level(0.5, grid, sampler(64), num_points=128, kernel_points=15),
            Level(1.4, last, kernel_points=27),
        ]
        return {"levels": levels, "channels": [32, 64, 128]}
    levels = [
        Level(0.2, grid, sampler(budgets[0]), num_points=512, kernel_points=27),
        Level(0.4, grid, sampler(budgets[1]), num_points=256, kernel_points=15),
        Level(0.8, grid, sampler(budgets[2]), num_points=128, kernel_points=15),
        Level(1.4, last, kernel_points=33),
    ]
    return {"levels": levels, "channels": [48, 96, 192, 256]}


def _pairs() -> dict:
    """No frame of the whole cloud anywhere: kernels on pairs of normals alone."""
    normals = NormalPoses()

    def sampler(num: int) -> FeatureSampler:
        return FeatureSampler(num=num, refine=2, seeds=256)

    levels = [
        Level(0.25, normals, sampler(128), num_points=512, pairs=(3, 3, 5, 2)),
        Level(0.5, normals, sampler(96), num_points=256, pairs=(3, 3, 3, 1)),
        Level(1.2, normals, sampler(24), num_points=96, pairs=(3, 3, 3, 1)),
    ]
    return {"levels": levels, "channels": [64, 128, 256]}


PRESETS = {
    "default": _network,
    "large": lambda: _network(budgets=(512, 512, 256)),
    "small": lambda: _network(small=True),
    "pairs": _pairs,
}


def preset(name: str) -> dict:
    """Settings of a named network: ``levels`` and ``channels``.

    Raises:
        ArgumentError: no such name.

    **Equivariance:** all presets use data-driven frames: exact under SE(3).
    """
    if name not in PRESETS:
        raise ArgumentError(f"`name` (={name!r}) must be one of {sorted(PRESETS)}")
    return PRESETS[name]()

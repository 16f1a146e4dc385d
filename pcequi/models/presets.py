"""Named networks: the settings of their levels and channels."""

from __future__ import annotations

from pcequi.errors import ArgumentError
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses
from pcequi.sampling import FeatureSampler


def _grid_levels() -> tuple[GridPoses, CentroidPoses]:
    return GridPoses("D2", align="manhattan"), CentroidPoses("D2", align="manhattan")


def _orbits(num: int, center: str = "medoid") -> FeatureSampler:
    return FeatureSampler(num=num, refine=2, seeds=256, blend=6, orbits=True, center=center)


def _two_levels(channels: list[int]) -> dict:
    grid, last = _grid_levels()
    levels = [
        Level(0.25, grid, _orbits(96, "mean"), num_points=256, kernel_points=15),
        Level(0.5, grid, _orbits(96, "mean"), num_points=128, kernel_points=15),
        Level(1.4, last, kernel_points=27),
    ]
    return {"levels": levels, "channels": channels}


def _large() -> dict:
    grid, last = _grid_levels()
    levels = [
        Level(0.2, grid, _orbits(512), num_points=512, kernel_points=27),
        Level(0.4, grid, _orbits(512), num_points=256, kernel_points=15),
        Level(0.8, grid, _orbits(256), num_points=128, kernel_points=15),
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
    "default": lambda: _two_levels([48, 96, 192]),
    "large": _large,
    "small": lambda: _two_levels([32, 64, 128]),
    "pairs": _pairs,
}


def preset(name: str) -> dict:
    """Settings of a named network: ``levels`` and ``channels``.

    Raises:
        ArgumentError: no such name.

    **Equivariance:** all presets use data-driven frames: exact under SE(3).
    """
    check_preset(name, "name")
    return PRESETS[name]()


def check_preset(value: str, name: str = "preset") -> None:
    """Whether there is such a preset, asked for by an argument that goes by ``name``.

    Raises:
        ArgumentError: there is none.

    **Equivariance:** does not apply.
    """
    if value not in PRESETS:
        raise ArgumentError(f"`{name}` (={value!r}) must be one of {', '.join(PRESETS)}")

"""Whether the size of a cloud fits the radii of the levels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from pcequi.errors import ScaleWarning
from pcequi.pose_graph.level import Level
from pcequi.poses import CentroidPoses

__all__ = ["warn_of_scale"]

# A cloud's size in units of the first radius: at most, times the root of its points, and at
# least; at least in units of a radius about the centroid; points below which all this says nothing.
_ALONE, _CROWDED, _INNERMOST, _FEW = 4.0, 0.02, 0.05, 32


def warn_of_scale(size: Tensor, num: int | Tensor, levels: Sequence[Level]) -> None:
    """Say it where radii cannot be meant for a cloud.

    Hardly a point of the first level has a neighbour, or all are neighbours of all; or of a
    level at the centroid, which looks at the whole cloud, half of the points are out of sight,
    or half are in the innermost twentieth.

    Args:
        size: median distance of a cloud's points from its mean, or of each of several clouds.
        num: points of the cloud, or of each.
        levels: of the network.

    **Equivariance:** invariant.
    """
    radius = levels[0].radius
    # Points on a surface lie about size / sqrt(num) apart; few of them say nothing.
    wrong = (size > _ALONE * radius * num**0.5) & (num >= _FEW)
    wrong = wrong | (size > 0) & (size < _CROWDED * radius)
    for level in levels:
        if isinstance(level.poses, CentroidPoses):
            inside = (size > 0) & (size < _INNERMOST * level.radius)
            wrong = wrong | ((size > level.radius) | inside) & (num >= _FEW)
    if wrong.any():
        # The same words for all clouds, so that Python says it once.
        radii = ", ".join(f"{level.radius:g}" for level in levels)
        warnings.warn(
            f"the size of a cloud does not fit the radii of the levels ({radii}): "
            "scale clouds first (transforms.NormalizeRadius), leave out points far from all others "
            "(transforms.DropOutliers), or choose other radii",
            ScaleWarning,
            stacklevel=4,
        )

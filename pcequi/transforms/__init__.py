"""PyG transforms."""

from pcequi.transforms.build_pose_graph import BuildPoseGraph
from pcequi.transforms.drop_outliers import DropOutliers
from pcequi.transforms.normalize_radius import NormalizeRadius
from pcequi.transforms.random_rotation import RandomRotation

__all__ = ["BuildPoseGraph", "DropOutliers", "NormalizeRadius", "RandomRotation"]

"""PyG transforms."""

from pcequi.transforms.build_pose_graph import BuildPoseGraph
from pcequi.transforms.drop_outliers import DropOutliers
from pcequi.transforms.normalize_radius import NormalizeRadius

__all__ = ["BuildPoseGraph", "DropOutliers", "NormalizeRadius"]

"""PyG transforms."""

from pcequi.transforms.build_pose_graph import BuildPoseGraph
from pcequi.transforms.drop_outliers import DropOutliers

__all__ = ["BuildPoseGraph", "DropOutliers"]

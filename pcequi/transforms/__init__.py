"""PyG transforms."""

from pcequi.transforms.build_pose_graph import BuildPoseGraph

__all__ = ["BuildPoseGraph"]

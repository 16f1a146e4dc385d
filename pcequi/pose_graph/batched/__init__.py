"""Graphs of whole batches of clouds, in few calls: for GPUs."""

from pcequi.pose_graph.batched.build import build_parts, build_pose_graphs
from pcequi.pose_graph.batched.covered import levels_covered

__all__ = ["build_parts", "build_pose_graphs", "levels_covered"]

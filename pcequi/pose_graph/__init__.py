"""The compressed graph: representatives of each level and what they read.

A level's layer is out = (A f) W. The rows of A are (representative, basis
function) pairs, its columns the representatives of the level below: the
feature of a pose h is read at the representative a(h) that stands for it, and
entries that meet in one place are added up once. Nothing of the size of the
pose set is left in the graph.
"""

from pcequi.pose_graph.batched import build_pose_graphs
from pcequi.pose_graph.build import (
    GraphBuilder,
    SampledLevel,
    alignment,
    build_pose_graph,
)
from pcequi.pose_graph.edges import PoseEdges, pose_edges, pose_operator
from pcequi.pose_graph.graph import TENSORS, LevelGraph, PoseGraph, batch_levels
from pcequi.pose_graph.level import Level
from pcequi.pose_graph.orbit_rows import block_characters, first_rows, orbit_turns, stored_turns
from pcequi.pose_graph.point_rows import PointRows, read_carriers
from pcequi.pose_graph.step import LevelStep

__all__ = [
    "TENSORS",
    "GraphBuilder",
    "Level",
    "LevelGraph",
    "LevelStep",
    "PoseEdges",
    "PointRows",
    "PoseGraph",
    "SampledLevel",
    "alignment",
    "batch_levels",
    "build_pose_graph",
    "build_pose_graphs",
    "block_characters",
    "first_rows",
    "orbit_turns",
    "pose_edges",
    "pose_operator",
    "read_carriers",
    "stored_turns",
]

"""What holds tensors is printed by their shapes, in a line."""

import re

import torch

from pcequi.models import extract_features, preset
from pcequi.ops import Characters
from pcequi.pose_graph import PoseGraph, build_pose_graph, orbit_turns, pose_edges


def test_graphs_are_printed_by_their_shapes(levels_of, make_blob):
    levels = levels_of(num=8)
    pos = make_blob(20)
    graph, sampled = build_pose_graph(pos, levels, embeddings=True, points=True)
    level = graph.levels[0]
    assert repr(level) == (
        "LevelGraph(count=[1], weight=[8], pos=[8, 3], rot=[8, 3, 3], basis=0, lift=[8, 15], "
        "spread=[1, 3], points=PointRows(count=[1], place=[20], entries=[20], "
        f"col=[{len(level.points.col)}], val=[{len(level.points.val)}]))"
    )
    assert repr(graph) == f"PoseGraph(levels={graph.levels})"
    poses = sampled[0].poses
    assert repr(poses) == "Poses(pos=[20, 3], rot=[20, 24, 3, 3], group=[24, 3, 3], axial=False)"
    chosen = sampled[0].chosen
    assert repr(sampled[0]) == (
        f"SampledLevel(poses={poses}, points=[20], embedding=[20, 24, 15], chosen={chosen})"
    )
    edges = pose_edges(sampled[1].poses.pos, sampled[1].poses.rot[:, 0], poses, levels[1])
    turns = orbit_turns(*preset("small")["levels"][:2])
    for one in (graph, sampled[0], chosen, edges, Characters.of(*turns)):
        text = repr(one)
        assert len(text) < 1000 and "\n" not in text and "tensor" not in text
        assert re.match(rf"{type(one).__name__}\(\w+=", text)


def test_features_too(levels_of, network, make_blob):
    found = extract_features(network(levels_of(num=8)), make_blob(20))
    assert "pooled=[36], logits=[4])" in repr(found) and "tensor" not in repr(found)
    assert repr(found.levels[2]).startswith("LevelFeatures(x=[24, 10], pos=[24, 3]")
    assert "points=None" in repr(found.levels[2]), "no default: it says something"


def test_graphs_move_as_tensors_do(levels_of, make_blob):
    graph = build_pose_graph(make_blob(20), levels_of(num=8))
    assert isinstance(graph.cpu(), PoseGraph) and graph.cuda("meta").levels[1].val.is_meta
    assert torch.equal(graph.cpu().levels[1].val, graph.levels[1].val)

"""Graphs that were just made, ready for a prediction, beside those of the usual way."""

import pytest
import torch

from pcequi import graph_ready
from pcequi.errors import DataError
from pcequi.graph_build import build_stored_graph
from pcequi.graph_ready import ready_batch, ready_graphs
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, preset
from pcequi.models.orders import averaged_logits
from pcequi.pose_graph import (
    TENSORS,
    PoseGraph,
    block_characters,
    build_pose_graph,
    stored_turns,
)
from pcequi.training.rows import built_batch


@pytest.fixture(params=["small", "pairs", "few"])
def network(request, levels_of):
    """A network whose rows follow from those of first poses, one whose do not, one without orbits
    that a kernel has characters for."""
    torch.manual_seed(0)
    if request.param == "few":
        return GroupConvClassifier(levels_of(num=12), 5, channels=[4, 4, 4]).eval()
    return GroupConvClassifier.from_preset(request.param, 5).eval()


@pytest.mark.parametrize("blocks", [None, torch.float32])
@pytest.mark.parametrize("sizes", [(300,), (300, 400, 350), (3, 300)])
def test_logits_are_those_of_whole_graphs(network, blocks, sizes, make_blob, monkeypatch):
    monkeypatch.setattr(graph_ready, "TWOFOLD_POSES", 200)  # of two small clouds and more
    clouds = [make_blob(size) for size in sizes]  # three points have fewer poses than the budget
    made = [build_pose_graph(cloud, network.levels, dtype=torch.float32) for cloud in clouds]
    with torch.no_grad():
        wanted = averaged_logits(network, PoseGraph.batch(made))
        graph = ready_graphs(clouds, network.levels, blocks, twofold=True)
        found = averaged_logits(network, graph)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_functions_are_taken_apart_in_large_batches_of_single_precision(make_blob):
    network = GroupConvClassifier.from_preset("small", 5)
    clouds = [make_blob(300)] * 11  # of 96 representatives each
    for number, dtype, both in ((11, torch.float32, True), (10, torch.float32, False)):
        level = ready_graphs(clouds[:number], network.levels, dtype, twofold=True).levels[1]
        assert level.characters.both == both
        assert level.to(torch.float64).characters.both == both
    halves = ready_graphs(clouds, network.levels, torch.bfloat16, twofold=True)
    assert not halves.levels[1].characters.both
    assert not ready_graphs(clouds, network.levels, torch.float32).levels[1].characters.both


def test_of_a_store_they_differ_by_its_rounding(make_blob, tmp_path):
    levels = preset("small")["levels"]
    clouds = [make_blob(300), make_blob(400)]
    store = GraphStore.build(tmp_path, clouds, levels, workers=1)
    pairs = zip(ready_graphs(clouds, levels).levels, store.batch([0, 1]).levels, strict=True)
    for own, kept in pairs:
        if own.basis:
            assert torch.equal(own.entries, kept.entries.to(own.entries))
            assert torch.equal(own.col, kept.col.to(own.col))
            torch.testing.assert_close(own.val, kept.val, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_are_made_in_the_precision_of_the_network(dtype, make_blob):
    network = GroupConvClassifier.from_preset("small", 5).to(dtype).eval()
    clouds = [make_blob(300), make_blob(400)]
    graph = built_batch(clouds, network.levels, dtype, "cpu")
    assert graph.levels[0].lift.dtype == dtype
    assert (graph.levels[1].blocks is not None) == (dtype == torch.float32)
    whole = [build_pose_graph(cloud, network.levels, dtype=dtype) for cloud in clouds]
    with torch.no_grad():
        torch.testing.assert_close(
            network(graph), network(PoseGraph.batch(whole)), atol=2e-5, rtol=2e-5
        )


def test_rows_that_do_not_fit_are_refused(make_blob):
    levels = preset("small")["levels"]
    graphs = build_stored_graph(make_blob(300), levels).levels
    store = [{name: getattr(level, name) for name in TENSORS} for level in graphs]
    store = [{name: x for name, x in values.items() if x is not None} for values in store]
    store[1]["entries"] = store[1]["entries"][:-1]
    turns, characters = stored_turns(levels), block_characters(levels)
    for blocks in (None, torch.float32):
        with pytest.raises(DataError, match="rows do not fit"):
            ready_batch(store, levels, turns, characters, blocks)

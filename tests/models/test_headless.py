"""A network without a head: its outputs are features."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch, Data

from pcequi.errors import ArgumentError
from pcequi.models import (
    GroupConvClassifier,
    export_network,
    extract_features,
    forward_online,
    graph_tensors,
)
from pcequi.pose_graph import PoseGraph, build_pose_graph
from pcequi.training import Checkpoint, fit, predict_cloud, save_checkpoint
from pcequi.training.evaluate import compare_modes, evaluate_protocol
from pcequi.training.fit import predict_logits
from pcequi.training.start import start_from
from pcequi.transforms import BuildPoseGraph
from pcequi.viz.evidence import representative_evidence

EXAMPLE = Path(__file__).parents[2] / "examples" / "segment_points.py"


@pytest.fixture
def whole(levels_of, network):
    return network(levels_of(num=8))


@pytest.fixture
def body(whole):
    """The same network, but for its head."""
    body = GroupConvClassifier.from_settings(whole.settings | {"num_classes": 0}).double()
    learned = whole.state_dict()
    body.load_state_dict({name: learned[name] for name in body.state_dict()})
    return body.eval()


def test_it_gives_what_the_head_would_see(whole, body, make_blob):
    graphs = [build_pose_graph(make_blob(n, n), body.levels) for n in (20, 30)]
    graph = PoseGraph.batch(graphs)
    assert body(graph).shape == (2, 2 * (8 + 10))
    assert torch.equal(body(graph), whole.pooled(graph))
    assert torch.equal(whole.head(body(graph)), whole(graph))
    missing = whole.state_dict().keys() - body.state_dict().keys()
    assert missing and all(name.startswith("head.") for name in missing)
    assert not list(body.head.parameters())


def test_every_weight_learns_from_one_cloud(body, make_blob):
    body.reset_parameters()
    body.train()(build_pose_graph(make_blob(20), body.levels)).square().sum().backward()
    for name, parameter in body.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_it_is_made_again_from_settings_folders_and_names(body, make_blob, tmp_path):
    graph = build_pose_graph(make_blob(20), body.levels)
    again = GroupConvClassifier.from_settings(json.loads(json.dumps(body.settings))).double()
    again.load_state_dict(body.state_dict())
    assert torch.equal(again.eval()(graph), body(graph))
    assert torch.equal(body.with_budget(num=8)(graph), body(graph))
    assert GroupConvClassifier.from_preset("small", 0).settings["num_classes"] == 0
    pytest.importorskip("huggingface_hub")
    body.save_pretrained(tmp_path)
    assert torch.equal(GroupConvClassifier.from_pretrained(tmp_path)(graph), body(graph))


def test_a_trained_network_without_its_head(make_blob):
    name = "modelnet40-small"
    whole, body = (GroupConvClassifier.from_preset(name, num).eval() for num in (None, 0))
    graph = build_pose_graph(make_blob(60), body.levels, dtype=torch.float32)
    assert torch.equal(body(graph), whole.pooled(graph))


def test_all_ways_of_running_give_features(whole, body, make_blob):
    clouds = [make_blob(n, n) for n in (20, 30)]
    online = forward_online(body, clouds)
    torch.testing.assert_close(whole.head(online), forward_online(whole, clouds))
    found, wanted = (extract_features(one, clouds[0]) for one in (body, whole))
    assert found.logits is None and torch.equal(found.pooled, wanted.pooled)
    build = BuildPoseGraph(body.levels)
    batch = Batch.from_data_list([build(Data(pos=pos.float())) for pos in clouds])
    program = export_network(body.float(), batch)
    torch.testing.assert_close(program.module()(graph_tensors(batch)), body(batch))
    assert forward_online(body.train(), clouds[:1]).shape == (1, 36)  # no batch norm of clouds


def test_what_needs_logits_says_so(body, make_blob, tmp_path):
    graph = build_pose_graph(make_blob(20), body.levels)
    calls = [
        lambda: fit(body, [], torch.zeros(2)),
        lambda: predict_logits(body, []),
        lambda: evaluate_protocol(body, None, "z/z"),
        lambda: compare_modes(body, None),
        lambda: predict_cloud(Checkpoint(body, []), make_blob(20)),
        lambda: save_checkpoint(tmp_path, body, []),
        lambda: start_from(body, [], "modelnet40-small"),
        lambda: representative_evidence(body, graph),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match=r"`model` \(=with num_classes=0\) has no head"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [-1, 0.0, True, None])
def test_other_numbers_of_classes_are_refused(number, levels_of):
    with pytest.raises(ArgumentError, match="`num_classes` .* must be a whole number, at least 0"):
        GroupConvClassifier(levels_of(), number, channels=[4, 8, 8])


def test_all_weights_of_the_example_for_points_learn():
    """So that it trains under DDP, which waits for the gradient of each."""
    example = runpy.run_path(str(EXAMPLE))
    model = example["Segmenter"](3)
    build = BuildPoseGraph(model.body.levels, points=True)
    clouds = [build(example["make_cloud"](seed, turned=False, size=20)) for seed in (0, 1)]
    model.train()(Batch.from_data_list(clouds)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name

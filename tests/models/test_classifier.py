"""The classifier: settings, shapes, training signal, errors."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.models import PRESETS, GroupConvClassifier, preset
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import CentroidPoses
from pcequi.sampling import FeatureSampler


def test_settings_are_json_and_make_the_network_again(levels_of, network, make_blob):
    model = network(levels_of(num=8))
    settings = json.loads(json.dumps(model.settings))
    again = GroupConvClassifier.from_settings(settings).double().eval()
    again.load_state_dict(model.state_dict())
    graph = build_pose_graph(make_blob(20), again.levels)
    assert again.levels == model.levels
    torch.testing.assert_close(again(graph), model(graph))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_run_and_every_weight_learns(name, make_blob):
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset(name, num_classes=3)
    for level in model.levels:
        assert Level.from_dict(level.to_dict()) == level
    graph = PoseGraph.batch([build_pose_graph(make_blob(40, s), model.levels) for s in (0, 1)])
    out = model.train()(graph.to(torch.float32))
    assert out.shape == (2, 3)
    out.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


def test_logits_depend_on_the_cloud(levels_of, network, make_blob):
    model = network(levels_of(num=8))
    graphs = [build_pose_graph(make_blob(30, s), model.levels) for s in (0, 1)]
    first, second = (model(graph)[0] for graph in graphs)
    assert (first - second).norm() > 0.1 * first.norm()


def test_impossible_settings_are_refused(levels_of):
    levels = levels_of()
    with pytest.raises(
        ArgumentError, match=r"`channels` \(=\[4, 8\]\) must have one entry a level"
    ):
        GroupConvClassifier(levels, 3, channels=[4, 8])
    for channels in ([4], None):
        with pytest.raises(ArgumentError, match=r"`levels` \(=1 of .* at least two levels"):
            GroupConvClassifier(levels[:1], 3, channels=channels)
    with pytest.raises(ArgumentError, match=r"`channels\[1\]` \(=8.0\) must be a whole number"):
        GroupConvClassifier(levels, 3, channels=[4, 8.0, 8])
    with pytest.raises(ArgumentError, match=r"`name` \(='huge'\) must be one of"):
        preset("huge")


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_channels_fit_any_number_of_levels(num, make_blob, levels_of):
    *below, top = levels_of(num=8)
    levels = [*(below + below)[: num - 1], top]
    model = GroupConvClassifier(levels, num_classes=3).double().eval()
    channels = [32, 64, 128, 256, 256][:num]
    assert model.settings["channels"] == channels
    assert model(build_pose_graph(make_blob(20), levels)).shape == (1, 3)
    again = GroupConvClassifier.from_settings(json.loads(json.dumps(model.settings)))
    assert again.settings == model.settings
    if num == 4:  # as ever
        given = GroupConvClassifier(levels, num_classes=3, channels=(32, 64, 128, 256))
        assert given.settings == model.settings


def test_a_refined_network_uses_means_where_asked(levels_of, network, make_blob):
    model = network(levels_of(num=8, refine=1))
    means = levels_of(num=8, refine=1, center="mean")
    pos = make_blob(30)
    medoid, mean = (build_pose_graph(pos, levels) for levels in (model.levels, means))
    assert mean.levels[1].val.numel() > medoid.levels[1].val.numel()
    assert (model(mean) - model(medoid)).abs().max() > 1e-6
    dense = build_pose_graph(pos, levels_of(num=None))
    total = (dense.levels[0].lift * dense.levels[0].weight[:, None]).sum(0)
    kept = (mean.levels[0].lift * mean.levels[0].weight[:, None]).sum(0)
    torch.testing.assert_close(kept, total)  # means keep the sum over all poses


def test_a_ratio_and_a_tolerance_run_too(network, make_blob, levels_of):
    model = network(levels_of(num=8))
    for sampling in (FeatureSampler(ratio=0.1), FeatureSampler(tolerance=0.2, num=50)):
        levels = [level.with_budget() for level in model.levels]
        levels[0] = Level(0.5, levels[0].poses, sampling, num_points=20)
        assert torch.isfinite(model(build_pose_graph(make_blob(25), levels))).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_gives_nearly_the_same(dtype, levels_of, network, make_blob):
    model = network(levels_of(num=8))
    graph = build_pose_graph(make_blob(30), model.levels)
    half = copy.deepcopy(model).to(dtype)(graph)
    assert half.dtype == dtype
    torch.testing.assert_close(half.double(), model(graph), atol=0.1, rtol=0.1)


def test_one_cloud_alone_cannot_train(levels_of, network, make_blob):
    model = copy.deepcopy(network(levels_of(num=8))).train()
    graph = build_pose_graph(make_blob(30), model.levels)
    with pytest.raises(ArgumentError, match="drop_last=True"):
        model(graph)
    assert model(PoseGraph.batch([graph, graph])).shape == (2, 4)
    model.head[1].eval()  # frozen
    assert model(graph).shape == (1, 4)
    model.head = torch.nn.Sequential(torch.nn.Linear(model.head[0].in_features, 3).double())
    assert model(graph).shape == (1, 3)


def test_second_derivatives_reach_the_lifting_layer(levels_of, network, make_blob):
    model = copy.deepcopy(network(levels_of(num=8)))
    graph, weight = build_pose_graph(make_blob(30), model.levels), model.lift.layers[4].weight

    def slope():
        (first,) = torch.autograd.grad(model(graph).pow(2).sum(), [weight], create_graph=True)
        return first.square().sum()

    (second,) = torch.autograd.grad(slope(), [weight])
    place, step = divmod(int(second.abs().argmax()), weight.shape[1]), 1e-6
    with torch.no_grad():
        weight[place] += step
        above = float(slope_of(slope))
        weight[place] -= 2 * step
        below = float(slope_of(slope))
    assert second[place].item() == pytest.approx((above - below) / (2 * step), rel=1e-4)
    assert second[place].abs() > 0


def slope_of(slope):
    with torch.enable_grad():
        return slope().detach()


def test_graphs_of_other_levels_are_refused(levels_of, network, make_blob):
    levels = levels_of(num=8)
    model = network(levels)
    other = [replace(levels[0], kernel_points=27), *levels[1:]]
    for built in (other, levels[:-1], [*levels[:-1], replace(levels[-1], kernel_points=33)]):
        with pytest.raises(ArgumentError, match="built with other levels than the network's"):
            model(build_pose_graph(make_blob(20, 1), built))
    # Another budget is what the method is about.
    assert model(build_pose_graph(make_blob(20, 1), levels_of(num=4))).shape[0] == 1


def test_weights_can_be_drawn_anew(levels_of, network):
    model = network(levels_of(num=8))
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.fill_(7)
    model.reset_parameters()
    learned = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name for name, value in learned.items() if (value == 7).any()}
    # Kernel points and anchors are constants, which nobody draws.
    assert all(name.rsplit(".", 1)[1] in ("points", "anchors") for name in kept), kept
    assert all(bool(torch.isfinite(value).all()) for value in model.parameters())


def test_numbers_of_numpy_become_plain(levels_of):
    level = replace(
        levels_of()[0], num_points=np.int64(9), sampling=FeatureSampler(num=np.int64(5))
    )
    model = GroupConvClassifier([level, *levels_of()[1:]], np.int64(3), [np.int32(4), 4, 4])
    again = GroupConvClassifier.from_settings(json.loads(json.dumps(model.settings)))
    assert again.settings == model.settings
    with pytest.raises(ArgumentError, match=r"`seeds` \(=0\) must be a whole number, at least 1"):
        FeatureSampler(num=5, seeds=0)


def test_networks_of_one_kind_are_mapped_over(levels_of, network, make_blob):
    models = [network(levels_of(num=8), seed=seed) for seed in (0, 1)]
    graph = PoseGraph.batch([build_pose_graph(make_blob(n, n), models[0].levels) for n in (20, 30)])
    weights, buffers = torch.func.stack_module_state(models)

    def run(weights, buffers):
        return torch.func.functional_call(models[0], (weights, buffers), (graph,))

    found = torch.func.vmap(run)(weights, buffers)
    torch.testing.assert_close(found, torch.stack([model(graph) for model in models]))


def test_other_budgets_share_the_weights(network, levels_of, make_blob):
    model, cloud = network([*levels_of(num=5)[:2], Level(2.0, CentroidPoses("O"))]), make_blob(30)
    dense, few = model.with_budget(), model.with_budget(num=3)
    assert few.with_budget(num=5).levels == model.levels
    assert [level.sampling.num for level in few.levels] == [3, 3, None]  # nor at the centroid
    assert all(level.sampling.is_dense for level in dense.levels)
    assert dense.head[0].weight is model.head[0].weight and len(model.levels) == 3
    logits = [one(build_pose_graph(cloud, one.levels)) for one in (model, few, dense)]
    assert not torch.allclose(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    again = GroupConvClassifier.from_settings(dense.settings).double().eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(build_pose_graph(cloud, dense.levels)), logits[2])


def test_another_budget_has_a_head_and_hooks_of_its_own(network, levels_of, make_blob):
    model, seen = network([*levels_of(num=5)[:2], Level(2.0, CentroidPoses("O"))]), []
    graph = build_pose_graph(make_blob(30), model.levels)
    wanted, few = model(graph), model.with_budget(num=3)
    few.head = torch.nn.Linear(few.head[0].in_features, 7).double()
    few.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(model(graph), wanted) and not seen
    assert few(graph).shape == (1, 7) and seen
    assert few.blocks[0].conv.weight is model.blocks[0].conv.weight


def test_weights_are_of_kernels(network, levels_of):
    model = network(levels_of(num=5))
    wider = [model.levels[0], replace(model.levels[1], kernel_points=27), *model.levels[2:]]
    for levels in (model.levels[:-1], wider):
        with pytest.raises(ArgumentError, match=r"`levels` .* weights are of kernels"):
            model.with_levels(levels)
    with pytest.raises(ArgumentError, match=r"`num` \(=0\)"):
        model.with_budget(num=0)

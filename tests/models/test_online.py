"""Online sampling: the same network, sampled on its features at every pass."""

import torch

from pcequi.models import forward_online
from pcequi.models.online import feature_embedding
from pcequi.pose_graph import GraphBuilder, PoseGraph, build_pose_graph
from pcequi.rotations import random_rotations


def test_two_level_first_pass_equals_precomputed_where_nothing_is_left_to_sample(
    levels_of, network, make_blob
):
    # Only the first level samples, and that on geometry in both ways.
    levels = levels_of(num=10)
    levels[1] = levels[1].with_budget()
    model, pos = network(levels), make_blob(18)
    graph = build_pose_graph(pos, levels)
    torch.testing.assert_close(forward_online(model, [pos]), model(graph))


def test_a_cloud_alone_is_the_same_in_a_batch(levels_of, network, make_blob):
    model = network(levels_of(num=10))
    clouds = [make_blob(n, n) for n in (14, 25)]
    together = forward_online(model, clouds)
    alone = torch.cat([forward_online(model, [pos]) for pos in clouds])
    torch.testing.assert_close(together, alone)


def test_feature_embedding_is_the_dense_product(levels_of, make_blob, generator):
    levels = levels_of(num=10)
    builder = GraphBuilder(make_blob(20), levels)
    first = builder.level(0)
    builder.finish(first, first.sample())
    x = torch.randn(10, 3, dtype=torch.float64, generator=generator)
    step = builder.level(1)
    z = feature_embedding(step, x, projection=3)
    ptr, col, val = step.operator()
    row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
    matrix = val.new_zeros(len(ptr) - 1, 10).index_put_((row, col), val, accumulate=True)
    expected = (matrix @ torch.cat([x, torch.ones(10, 1)], 1)).view(step.poses.num, -1)
    torch.testing.assert_close(z, expected)
    narrow = feature_embedding(step, x, projection=2)
    assert narrow.shape[1] == levels[1].basis * 3


def test_online_logits_are_invariant(levels_of, network, solid_cloud, generator):
    model = network(levels_of(num=12, refine=1))
    with torch.no_grad():
        before = forward_online(model, [solid_cloud])
        turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
        order = torch.randperm(len(solid_cloud), generator=generator)
        after = forward_online(model, [(solid_cloud @ turn.T)[order] + 2.0])
    change = float((after - before).abs().max() / before.abs().max())
    print(f"online, one rotation: {change:.1e}")
    assert change < 1e-7


def test_gradients_reach_every_weight(levels_of, network, make_blob):
    model = network(levels_of(num=10)).train()
    forward_online(model, [make_blob(20, s) for s in (0, 1)]).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_given_normals_are_used(levels_of, network, make_blob):
    from dataclasses import replace

    levels = [replace(level, normals=True) for level in levels_of(num=8)]
    model, pos = network(levels), make_blob(16)
    given = forward_online(model, [pos], [pos.flip(1)])
    assert (given - forward_online(model, [pos])).abs().max() > 1e-6
    assert isinstance(build_pose_graph(pos, levels), PoseGraph)

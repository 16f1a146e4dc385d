"""Online sampling: the same network, sampled on its features at every pass."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data

from pcequi.errors import ArgumentError, PcequiError, ShapeError
from pcequi.models import extract_features, forward_online
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
    levels = [replace(level, normals=True) for level in levels_of(num=8)]
    model, pos = network(levels), make_blob(16)
    given = forward_online(model, [pos], [pos.flip(1)])
    assert (given - forward_online(model, [pos])).abs().max() > 1e-6
    assert isinstance(build_pose_graph(pos, levels), PoseGraph)


def test_clouds_that_cannot_be_are_named(levels_of, network, make_blob):
    model = network(levels_of(num=10))
    with pytest.raises(ArgumentError, match=r"`clouds` \(=\[\]\)"):
        forward_online(model, [])
    with pytest.raises(ArgumentError, match="too few for batch norm"):
        forward_online(model.train(), [make_blob(20)])


def test_a_batch_of_pyg_is_its_clouds(levels_of, network, make_blob):
    model = network([replace(level, normals=True) for level in levels_of(num=10)])
    clouds = [make_blob(n, n) for n in (14, 25)]
    normals = [torch.nn.functional.normalize(pos.flip(1), dim=1) for pos in clouds]
    whole = [Data(pos=p, normal=n) for p, n in zip(clouds, normals, strict=True)]
    wanted = forward_online(model, clouds, normals)
    assert torch.equal(forward_online(model, Batch.from_data_list(whole)), wanted)
    assert torch.equal(
        forward_online(model, whole[1]), forward_online(model, clouds[1:], normals[1:])
    )
    bare = Batch.from_data_list([Data(pos=pos) for pos in clouds])
    assert torch.equal(forward_online(model, bare), forward_online(model, clouds))
    plain = Data(pos=bare.pos, batch=bare.batch)
    assert torch.equal(forward_online(model, plain), forward_online(model, bare))
    same = torch.stack([clouds[0], clouds[0] * 0.9])  # as many points in each
    assert torch.equal(forward_online(model, same), forward_online(model, list(same)))


def test_what_is_no_list_of_clouds_is_named(levels_of, network, make_blob):
    model, pos = network(levels_of(num=10)), make_blob(12)
    batch = torch.arange(12) // 6
    calls = {
        r"`clouds` \(=a tensor \[12, 3\]\) must be a list .* take \[pos\]": (pos,),
        r"`normals` \(=a tensor \[12, 3\]\) .* take \[normal\]": ([pos], pos),
        r"`normals` \(=2\) must be as many as the clouds \(=1\)": ([pos], [None, None]),
        r"`normals\[0\]` \(a list\)": ([pos], [[1, 2]]),
        r"`normals` are those of the Data": (Data(pos=pos), [pos]),
        r"`clouds\[0\]` \(=a Data\) .* Batch.from_data_list": ([Data(pos=pos)],),
        r"`clouds\[1\]` \(=str\)": ([pos, "cloud"],),
        r"`clouds.pos` \(=None\) is needed": (Data(),),
        r"`clouds.batch` must be sorted": (Data(pos=pos, batch=batch.flip(0)),),
        r"`clouds.batch` \(=\[6\]\) must be a tensor with a row": (Data(pos=pos, batch=batch[:6]),),
        r"`clouds.normal` \(=\[6, 3\]\)": (Data(pos=pos, batch=batch, normal=pos[:6]),),
        r"`clouds\[1\]` .* is empty": (Data(pos=pos, batch=batch * 2),),
    }
    for words, given in calls.items():
        with pytest.raises(PcequiError, match=words):
            forward_online(model, *given)
    with pytest.raises(ShapeError, match=r"`pos` \(=Data\)"):
        extract_features(model, Data(pos=pos))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_of_other_precision_give_nearly_the_same(dtype, levels_of, network, make_blob):
    model, pos = network(levels_of(num=10)), make_blob(30)
    exact, features = forward_online(model, [pos]), extract_features(model, pos)
    model = model.to(dtype)
    found = forward_online(model, [pos])
    assert found.dtype == dtype
    size = exact.abs().max()
    error = {torch.bfloat16: 0.1, torch.float32: 1e-4}[dtype]
    if dtype == torch.float32:  # in 16 bits other representatives may be chosen
        assert (found - exact).abs().max() < error * size
    seen = extract_features(model, pos)
    assert (seen.logits - features.logits).abs().max() < error * features.logits.abs().max()


def test_a_head_of_ones_own(levels_of, network, make_blob):
    model, pos = network(levels_of(num=10)), make_blob(30)
    width = model.head[0].in_features
    model.head = torch.nn.Linear(width, 2).double()
    graph = build_pose_graph(pos, model.levels)
    assert model(graph).shape == forward_online(model, [pos]).shape == (1, 2)
    assert extract_features(model, pos).logits.shape == (2,)

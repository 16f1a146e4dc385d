"""The PointNet++ beside which steps are timed is one, and of PyG's layers."""

import copy

import pytest
import torch
from torch_geometric.nn import Linear, PointNetConv

from pcequi.bench.pointnet2 import PointNet2
from pcequi.errors import ArgumentError
from pcequi.ops import neighbors

SMALL = {"centers": (20, 8), "radii": (1.3, 2.0), "num_neighbors": 6}


def some_clouds(number=2, points=40):
    torch.manual_seed(0)
    return torch.randn(number, points, 3, dtype=torch.float64)


def test_it_has_the_sizes_of_the_paper():
    model = PointNet2(40)
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    widths = [(layer.in_channels, layer.out_channels) for layer in layers]
    assert widths[:3] == [(3, 64), (64, 64), (64, 128)]
    assert widths[3:6] == [(131, 128), (128, 128), (128, 256)]
    assert widths[6:9] == [(259, 256), (256, 512), (512, 1024)]
    assert widths[9:] == [(1024, 512), (512, 256), (256, 40)]
    pos = torch.nn.functional.normalize(some_clouds(1, 600).float(), dim=2)
    first, second = model.balls(pos)
    assert len(first.center) == 512 and len(second.center) == 128
    assert torch.equal(second.source, first.center)
    assert model(pos.expand(2, -1, -1)).shape == (2, 40)


@pytest.mark.backend
def test_balls_hold_the_nearest_points_within_their_radius():
    model, pos = PointNet2(5, **SMALL), some_clouds()
    ball = model.balls(pos)[0]
    source, target = ball.edge_index
    clouds = torch.arange(2)
    same = clouds.repeat_interleave(40)[source] == clouds.repeat_interleave(20)[target]
    assert same.all() and (target.diff() >= 0).all()
    apart = torch.cdist(ball.center, ball.source)
    for center in range(40):
        own = slice(40 * (center // 20), 40 * (center // 20) + 40)
        near = apart[center, own].sort().values[:6]
        expected = near[near <= 1.3]
        found = apart[center, source[target == center]]
        torch.testing.assert_close(found, expected)
    lengths = torch.bincount(target)
    assert lengths.min() >= 1 and lengths.max() == 6  # itself at least, and some are full


def test_it_does_not_see_the_order_of_points_but_sees_rotation():
    model, pos = PointNet2(5, **SMALL).double().eval(), some_clouds()
    logits = model(pos)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(model(pos[:, torch.randperm(40)]), logits)
    assert not torch.allclose(model(pos[:, :, [1, 2, 0]]), logits, rtol=1e-3)


def test_clouds_do_not_touch_each_other_and_balls_may_be_found_before():
    model, pos = PointNet2(5, **SMALL).double().eval(), some_clouds(3)
    logits = model(pos)
    torch.testing.assert_close(torch.cat([model(cloud[None]) for cloud in pos]), logits)
    torch.testing.assert_close(model(pos, model.balls(pos)), logits)


@pytest.mark.backend
def test_it_is_that_of_the_layers_of_pyg_in_value_and_gradient(check_alike):
    model, pos = PointNet2(5, **SMALL).double().eval(), some_clouds(3)  # without dropout
    plain = copy.deepcopy(model)
    for number, conv in enumerate(plain.convs):
        plain.convs[number] = PointNetConv(conv.local_nn, add_self_loops=False)  # draws anew
    plain.load_state_dict(model.state_dict())
    check_alike(model, plain, pos)


def test_torch_cluster_finds_the_same_balls(monkeypatch):
    if not neighbors.HAS_TORCH_CLUSTER:
        pytest.skip("torch-cluster is not installed")
    model, pos = PointNet2(5, **SMALL), some_clouds(3)
    found = model.balls(pos)
    monkeypatch.setattr(neighbors, "HAS_TORCH_CLUSTER", False)
    for one, other in zip(found, model.balls(pos), strict=True):
        assert torch.equal(one.edge_index, other.edge_index)
        assert torch.equal(one.center, other.center)


def test_more_centres_than_points_are_told():
    with pytest.raises(ArgumentError, match="`num` \\(=512\\)"):
        PointNet2(5)(some_clouds(1).float())

"""From poses on some points to all points: exact at carriers, and without a jump between them."""

import pytest
import torch

from pcequi.pose_graph import build_pose_graph, read_carriers
from pcequi.poses import NormalPoses, TangentPoses
from pcequi.rotations import random_rotations


def weights(carriers, pos):
    """Of all carriers [N, N']."""
    index, weight = read_carriers(carriers, pos)
    return weight.new_zeros(len(pos), len(carriers)).scatter_add_(1, index, weight)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_weights_are_the_formula(scale, make_blob, generator):
    carriers = make_blob(20)
    pos = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    found = weights(scale * carriers, scale * pos)
    square = torch.cdist(pos, carriers).square()
    near, index = square.sort(1)
    wanted = 1 / near[:, :3] - 1 / near[:, 3:4]
    wanted = torch.where(wanted * near[:, :1] > 1e-4, wanted, 0)  # less may be rounding
    wanted = wanted / wanted.sum(1, keepdim=True)
    torch.testing.assert_close(found.gather(1, index[:, :3]), wanted)
    torch.testing.assert_close(found.sum(1), torch.ones(50, dtype=torch.float64))


@pytest.mark.parametrize("num", [1, 2, 3, 4, 20])
def test_carriers_read_themselves(num, make_blob):
    carriers = make_blob(num)
    torch.testing.assert_close(weights(carriers, carriers), torch.eye(num, dtype=torch.float64))
    away = weights(carriers, carriers + 0.05)
    assert (
        (away >= 0).all()
        and ((away > 0).sum(1) <= min(num, 3)).all()
        and (away < 1).any() == (num > 1)
    )


def test_nothing_jumps_along_a_path(make_blob, generator):
    carriers, ends = make_blob(20), torch.randn(2, 3, generator=generator, dtype=torch.float64)
    largest = []
    for steps in (10_000, 20_000):
        share = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
        through = carriers[3]
        path = torch.cat([a + share * (through - a) for a in ends])
        found = weights(carriers, path).view(2, steps, -1)
        largest.append(float((found[:, 1:] - found[:, :-1]).abs().max()))
    assert len(torch.cdist(path, carriers).argmin(1).unique()) > 3  # there is something to jump
    assert largest[1] < 0.6 * largest[0]  # half the step, half the change


def test_carriers_that_are_equally_far_share_alike():
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    turn = random_rotations(1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)[0]
    middle, face, edge = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [1.0, 1, 0]]).double()
    found = weights(corners @ turn.T, torch.stack([middle, face, edge]) @ turn.T)
    third = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0], dtype=torch.float64) / 3
    torch.testing.assert_close(found[0], third)  # the first of eight
    assert ((found[1] - 1 / 3).abs() < 1e-12).sum() == 3  # three of four, the first ones
    assert found[1][corners[:, 0] < 0].abs().max() == 0
    torch.testing.assert_close(found[2], ((corners[:, :2] > 0).all(1) / 2).double())


def test_copies_of_a_carrier_and_one_place(generator):
    pos = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    found = weights(pos[:1].expand(6, 3), pos)
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))
    assert torch.isfinite(found).all() and found[0, 0] == 1


@pytest.mark.parametrize("sampler", [None, TangentPoses(3), NormalPoses(0.5)], ids=str)
def test_points_of_symmetric_clouds_are_exchanged_and_no_more(
    sampler, symmetric_cloud, levels_of, network, generator
):
    model = network(levels_of(sampler, num=9))
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    order = torch.randperm(len(symmetric_cloud), generator=generator)
    found = []
    for pos in (symmetric_cloud, (symmetric_cloud @ turn.T + 2.0)[order]):
        graph = build_pose_graph(pos, model.levels, points=True)
        features = model.level_features(graph)
        found.append([graph.to_points(x, level).detach() for level, x in enumerate(features)])
    for here, there in zip(*found, strict=True):
        apart = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")
        size = float(here.abs().max())
        assert max(float(apart.amin(0).max()), float(apart.amin(1).max())) < 1e-8 * size


def test_points_between_carriers_differ(make_blob, levels_of, network):
    model, pos = network(levels_of(num=20)), make_blob(60)
    graph = build_pose_graph(pos, model.levels, points=True)
    points = graph.to_points(model.level_features(graph)[1], 1)  # from poses on 14 points
    assert len((points * 1e8).round().unique(dim=0)) > 50

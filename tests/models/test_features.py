"""Features of representatives, poses and points, and how they move."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.models import GroupConvClassifier, extract_features
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.testing import as_vectors, assert_equivariant


@pytest.fixture
def model(levels_of, network):
    return network(levels_of(num=10))


def test_features_are_those_of_the_forward_pass(model, make_blob):
    pos = make_blob(30)
    with torch.no_grad():
        found = extract_features(model, pos)
        graph = build_pose_graph(pos, model.levels)
        torch.testing.assert_close(found.logits, model(graph)[0])
        torch.testing.assert_close(model.head(found.pooled[None])[0], found.logits)
    assert len(found.levels) == len(model.levels)
    for level, made in zip(found.levels, graph.levels, strict=True):
        torch.testing.assert_close(level.pos, made.pos)
        torch.testing.assert_close(level.rot, made.rot)
        assert len(level.x) == made.num == int(level.assignment.max()) + 1


def test_every_pose_reads_its_representative(model, make_blob):
    pos = make_blob(30)
    level = extract_features(model, pos).levels[1]
    poses = level.per_pose()
    assert poses.shape == (14, 24, 8)
    n, k = 3, 5
    assert torch.equal(poses[n, k], level.x[level.assignment[n, k]])
    torch.testing.assert_close(level.pose_pos, pos[level.points])
    # A representative is one of the poses that it stands for.
    for row in range(len(level.x)):
        here = (level.assignment == row).nonzero()
        same = [
            torch.allclose(level.pose_pos[i], level.pos[row])
            and torch.allclose(level.pose_rot[i, j], level.rot[row])
            for i, j in here
        ]
        assert any(same), row


def test_every_pose_reads_its_share_of_several(levels_of, network, make_blob):
    model, pos = network(levels_of(num=10, refine=1, blend=4)), make_blob(30)
    _, sampled = build_pose_graph(pos, model.levels, embeddings=True)
    for level, made in zip(extract_features(model, pos).levels, sampled, strict=True):
        poses = made.chosen.spread(level.x).view(*level.assignment.shape, -1)
        torch.testing.assert_close(level.per_pose(), poses)
    assert ((sampled[0].chosen.share > 0).sum(1) > 1).any()


def test_points_without_poses_take_a_mean_of_the_nearest(model, make_blob):
    pos = make_blob(30)
    level = extract_features(model, pos).levels[1]
    points = level.per_point()
    assert points.shape == (30, 8)
    torch.testing.assert_close(points[level.points], level.per_pose().mean(1))
    left = [row for row in range(30) if row not in level.points.tolist()]
    nearest = torch.cdist(pos[left], pos[level.points]).topk(3, largest=False)
    values = points[level.points][nearest.indices]  # [left, 3, C]
    assert (points[left] <= values.amax(1) + 1e-12).all()
    assert (points[left] >= values.amin(1) - 1e-12).all()
    # Nearer ones count for more: the mean is pulled from the plain one towards the first.
    pull = ((points[left] - values.mean(1)) * (values[:, 0] - values.mean(1))).sum(1)
    assert (pull > -1e-12).all() and (pull > 0).any()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("sampler", [None, TangentPoses(4)], ids=["principal", "tangent"])
def test_points_and_vectors_move_as_they_should(levels_of, network, make_blob, number, sampler):
    model = network(levels_of(sampler, num=10))
    clouds = [make_blob(30), make_blob(40, 1)]

    def invariant(pos):
        return extract_features(model, pos).levels[number].per_point()

    def vectors(pos):
        return extract_features(model, pos).levels[number].per_point_vectors().flatten(0, 1)

    settings = {"tolerance_float32": None, "num": 2, "tolerance": 1e-8}
    assert_equivariant(invariant, clouds, per_point=True, **settings)

    def first(pos):
        return extract_features(model, pos).levels[number].per_point_vectors(0)[:, 1]

    assert_equivariant(first, clouds, per_point=True, action=as_vectors, **settings)
    assert vectors(clouds[0]).norm() > (1e-3 if sampler else 0)


def test_representatives_move_with_the_cloud(model, make_blob, generator):
    pos = make_blob(30)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    with torch.no_grad():
        before, after = (extract_features(model, p).levels for p in (pos, pos @ turn.T + 2))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.x, other.x, atol=1e-9, rtol=0)
        torch.testing.assert_close(one.pos @ turn.T + 2, other.pos)
        # Frames at one place may come in another order, features with them.
        torch.testing.assert_close(turn @ one.rot, other.rot, atol=1e-9, rtol=0)
        assert torch.equal(one.assignment, other.assignment)


def test_weights_learn_from_features(model, make_blob):
    extract_features(model, make_blob(30)).levels[1].per_point().square().sum().backward()
    assert model.blocks[0].conv.weight.grad.abs().sum() > 0
    assert model.blocks[1].conv.weight.grad is None


def test_a_wrong_axis_is_refused(model, make_blob):
    with pytest.raises(ArgumentError, match=r"`axis` \(=3\) must be 0, 1 or 2"):
        extract_features(model, make_blob(20)).levels[0].per_point_vectors(3)


def test_features_of_points_of_a_gridded_cloud_do_not_depend_on_its_pose(generator):
    # Points of a lattice have many equidistant neighbours; these have no symmetry.
    axis = torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)
    lattice = torch.cartesian_prod(axis, axis, axis)
    cloud = lattice[torch.randperm(125, generator=generator)[:70]]
    grid = GridPoses("D2", "principal")
    levels = [
        Level(0.6, grid, FeatureSampler(num=16), num_points=20),
        Level(1.5, CentroidPoses("D2", "principal")),
    ]
    torch.manual_seed(0)
    model = GroupConvClassifier(levels, 3, channels=[8, 8]).double().eval()
    before = extract_features(model, cloud).levels[0]
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    order = torch.randperm(len(cloud), generator=generator)
    after = extract_features(model, (cloud @ turn.T + 2)[order]).levels[0]
    torch.testing.assert_close(after.per_point(), before.per_point()[order])
    wanted = before.per_point_vectors() @ turn.T
    torch.testing.assert_close(after.per_point_vectors(), wanted[order], rtol=0, atol=1e-9)

"""Augmentation keeps what it does not drop."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.sampling import FeatureSampler
from pcequi.training.augment import augment, draw_mixing, drop_entries, keep_poses, mix

GRID = GridPoses("O", align="principal")
LEVELS = [
    Level(0.5, GRID, FeatureSampler(num=12)),
    Level(0.9, GRID, FeatureSampler(num=6), num_points=16),
    Level(1.5, CentroidPoses("O"), kernel_points=7),
]


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    clouds = [torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (30, 20)]
    return PoseGraph.batch([build_pose_graph(cloud / 3, LEVELS) for cloud in clouds])


def test_entries_dropped_keep_the_mean_and_the_pattern(graph):
    torch.manual_seed(0)
    level = graph.levels[1]
    draws = torch.stack([drop_entries(level, 0.5).val for _ in range(400)])
    assert torch.equal(draws.bool() | ~level.val.bool(), (draws != 0) | (level.val == 0))
    assert ((draws == 0) | torch.isclose(draws, 2 * level.val)).all()
    assert (draws.mean() / level.val.mean() - 1).abs() < 0.02
    assert drop_entries(level, 0.0) is level


def test_kept_poses_compute_what_they_computed(graph):
    torch.manual_seed(0)
    model = GroupConvClassifier(LEVELS, 3, [4, 5, 6]).double().eval()
    x = model.run_level(0, None, graph.levels[0], None)
    x = model.run_level(1, x, graph.levels[1], graph.levels[0].count)
    sources = graph.levels[1].count
    every = model.run_level(2, x, graph.levels[2], sources).view(2, 24, -1)
    few = keep_poses(graph.levels[2], 5)
    some = model.run_level(2, x, few, sources).view(2, 5, -1)
    for cloud in range(2):
        distance = torch.cdist(some[cloud], every[cloud]).min(1)
        assert distance.values.max() < 1e-12
        assert len(distance.indices.unique()) == 5
    assert keep_poses(graph.levels[2], 24) is graph.levels[2]


def test_nothing_to_do_changes_nothing(graph):
    model = GroupConvClassifier(LEVELS, 3, [4, 5, 6]).double().eval()
    assert torch.equal(model(augment(graph)), model(graph))


def test_errors(graph):
    with pytest.raises(ArgumentError, match=r"`share` \(=1.0\)"):
        drop_entries(graph.levels[1], 1.0)
    with pytest.raises(ArgumentError, match=r"`num` \(=0\)"):
        keep_poses(graph.levels[2], 0)


def test_mixed_rows_lie_between_their_two_clouds():
    torch.manual_seed(3)
    rows = torch.randn(6, 5, dtype=torch.float64)
    shares = []
    for _ in range(300):
        mixing = draw_mixing(0.5, 6)
        mixed, other, share = mix(rows, mixing), *mixing
        torch.testing.assert_close(mixed, share * rows + (1 - share) * rows[other])
        assert other.sort().values.tolist() == list(range(6))
        shares.append(share)
    shares = torch.tensor(shares)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(shares.mean() - 0.5) < 0.08 and abs(shares.var() - 1 / 8) < 0.03


def test_nothing_is_mixed_without_a_parameter():
    assert draw_mixing(0.0, 4) is None

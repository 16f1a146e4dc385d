"""The figures of ``pcequi check`` measure what they say."""

import pytest
import torch

from pcequi.check import (
    EXPLANATIONS,
    LIMITS,
    equivariance_figures,
    fixed_frames,
    grid_error_falls,
    randomized_network,
)
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.sampling import FeatureSampler
from pcequi.testing import generic_clouds, relative_change

LEVELS = [
    Level(0.5, GridPoses("O", "principal"), FeatureSampler(num=24), kernel_points=7, num_points=24),
    Level(1.4, CentroidPoses("O"), kernel_points=7),
]
TINY = {"levels": LEVELS, "channels": [6, 8]}


@pytest.fixture(scope="module")
def figures():
    told = []
    found = equivariance_figures(
        TINY, num_clouds=2, num_rotations=1, points=(24, 32), dense_points=12, grids=(4, 24),
        progress=told.append,
    )  # fmt: skip
    assert told[0] == "invariance_float64" and told[-1] == "dense_agreement"
    return found


def test_every_figure_is_there(figures):
    assert set(EXPLANATIONS) | {"seconds", "passed", "seed", "preset"} <= set(figures)
    assert set(figures["invariance_symmetric_each"]) == {"cube", "grid", "sphere"}
    assert set(figures["grid_error"]) == set(figures["grid_error_sampled"]) == {"4", "24"}
    assert figures["passed"] and all(figures[name] <= limit for name, limit in LIMITS.items())


def test_fixed_frames_are_only_approximate_and_better_on_finer_grids(figures):
    assert 1e-4 < figures["grid_error"]["24"] < figures["grid_error"]["4"]
    assert grid_error_falls(figures) and figures["passed"]
    assert not grid_error_falls({"grid_error": {"24": 0.49, "384": 0.51}})


def test_a_random_network_tells_clouds_apart_and_follows_its_seed():
    model = randomized_network(LEVELS, [6, 8], seed=1)
    same, other = (randomized_network(LEVELS, [6, 8], seed=seed) for seed in (1, 2))
    first, second = generic_clouds(2, least=24, most=32, generator=torch.Generator().manual_seed(0))
    logits = [model(build_pose_graph(cloud, LEVELS)) for cloud in (first, second)]
    assert relative_change(*logits) > 0.05
    assert torch.equal(same(build_pose_graph(first, LEVELS)), logits[0])
    assert not torch.equal(other(build_pose_graph(first, LEVELS)), logits[0])
    assert logits[0].dtype == torch.float64 and not model.training


def test_fixed_frames_do_not_turn():
    fixed = fixed_frames(LEVELS, 12)
    assert fixed[0].poses == GridPoses(12, "none") and fixed[1].poses == CentroidPoses(12, "none")
    assert fixed[0].sampling == LEVELS[0].sampling

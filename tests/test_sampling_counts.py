"""What a sampler counts, seeds and adds."""

import pytest
import torch

from pcequi.assignment import covering
from pcequi.orbits import Orbits
from pcequi.sampling import FeatureSampler, sampling_key


@pytest.fixture
def rows(generator):
    return torch.randn(40, 5, dtype=torch.float64, generator=generator)


def test_a_ratio_is_a_share_of_the_poses():
    for poses in range(1, 40):
        for ratio in (0.05, 0.3, 0.55, 0.99):
            assert abs(FeatureSampler(ratio=ratio).budget(poses) - max(1, ratio * poses)) <= 0.5


def test_which_pose_of_an_orbit_is_first_does_not_matter():
    # Two orbits of a half turn, which swaps the entries, equally far from the mean.
    away = torch.tensor([1.0, -1.05]).double()
    first = torch.stack([away, -away, away * 0, 0.1 * away.flip(0), -0.1 * away.flip(0)])
    orbits = torch.stack([first, first.flip(1)], 1)  # [N, 2, 2]
    products = torch.tensor([[0, 1], [1, 0]])
    sampler = FeatureSampler(num=2, orbits=True)
    picks = [
        sampler(x.flatten(0, 1), num_rotations=2, products=products, closed=True).index // 2
        for x in (orbits, orbits.flip(1))
    ]
    assert torch.equal(*picks)


def test_seeds_that_are_the_budget_are_what_is_taken(rows):
    seeds = torch.arange(0, 40, 5)
    chosen = FeatureSampler(num=8, seeds=8)(rows, seed_rows=seeds)
    assert torch.equal(chosen.index.sort().values, seeds)


@pytest.mark.parametrize("more", [{}, {"method": "random"}, {"blend": 3}])
def test_seeds_without_refinement(rows, more):
    seeds = torch.arange(0, 40, 2)
    chosen = FeatureSampler(num=6, **more)(rows, seed_rows=seeds)
    assert torch.isin(chosen.index, seeds).all()
    nearest = torch.cdist(rows, rows[chosen.index]).min(1).values
    torch.testing.assert_close(chosen.distance, nearest, atol=1e-7, rtol=0)


@pytest.mark.parametrize("num", [1, 4, 7, 11, 12])
def test_a_budget_of_orbits_counts_poses(rows, num):
    products = torch.arange(4)[:, None] ^ torch.arange(4)
    chosen = FeatureSampler(num=num, orbits=True)(rows, num_rotations=4, products=products)
    assert chosen.num == max(4, num // 4 * 4)


def test_more_steps_of_lloyd_lower_the_error(generator):
    x = torch.rand(400, 2, dtype=torch.float64, generator=generator)
    errors = [
        float(FeatureSampler(num=12, refine=steps, center="mean")(x).distance.square().mean())
        for steps in (1, 4, 16)
    ]
    assert errors[2] < errors[1] < errors[0]


def test_every_added_orbit_is_farther_than_the_tolerance(generator):
    products = torch.arange(4)[:, None] ^ torch.arange(4)
    x = torch.rand(300, 2, dtype=torch.float64, generator=generator) - 0.5
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    turned = x[:, None] * signs  # D2 acts by signs, an isometry
    index = covering(
        turned, torch.tensor([0]), sampling_key(x), 0.1, 300, Orbits(4, products, True)
    )
    for place in range(1, len(index)):
        before = turned[index[:place]].flatten(0, 1)
        assert torch.cdist(x[index[place]][None], before).min() > 0.1
    assert torch.cdist(x, turned[index].flatten(0, 1)).min(1).values.max() <= 0.1

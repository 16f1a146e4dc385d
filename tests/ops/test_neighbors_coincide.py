"""Neighbours of clouds of which many points lie at one place."""

import pytest
import torch

from pcequi.ops import knn, neighbors


@pytest.fixture
def cloud(generator):
    pos = torch.rand(1500, 3, dtype=torch.float64, generator=generator) - 0.5
    one_place = torch.zeros(500, 3, dtype=torch.float64)
    return torch.cat([pos, one_place])[torch.randperm(2000, generator=generator)]


def test_the_first_rows_of_one_place_are_its_neighbours(cloud):
    index, distance = knn(cloud, cloud, 24)
    at_origin = (cloud == 0).all(1)
    first = at_origin.nonzero()[:24, 0]
    assert (index[at_origin] == first).all() and (distance[at_origin] == 0).all()
    expected = (cloud[:, None] - cloud).norm(dim=2).sort(1).values[:, :24]
    # Equal are those that differ by so much of the last one of their row.
    assert ((distance - expected).abs() <= neighbors._TIE * expected[:, -1:] + 1e-12).all()


def test_points_of_one_place_are_looked_for_once(cloud, monkeypatch):
    looked_at, first = [], neighbors._first

    def counted(distance, *args):
        looked_at.append(distance.numel())
        return first(distance, *args)

    monkeypatch.setattr(neighbors, "_first", counted)
    knn(cloud, cloud, 24)
    # Once for all, and wider for one query and those near it: each of the 500 would look at
    # 500 and more.
    assert sum(looked_at) < 3 * len(cloud) * (24 + neighbors._SPARE) < 500 * 500


def test_distances_have_the_gradient_of_their_own_query(cloud):
    query = cloud.clone().requires_grad_()
    at_origin = (cloud == 0).all(1)
    source = cloud[~at_origin]
    twice = torch.cat([source, source[:300].expand(2, -1, -1).flatten(0, 1)])
    index, distance = knn(twice, query, 5)
    weight = torch.arange(len(cloud), dtype=torch.float64)[:, None]
    (found,) = torch.autograd.grad((weight * distance).sum(), query)
    offset = cloud[:, None] - twice[index]
    expected = weight * torch.nn.functional.normalize(offset, dim=2).sum(1)
    torch.testing.assert_close(found, expected)

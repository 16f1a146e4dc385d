"""Neighbour search: complete, exact, in a stated order, cloud by cloud."""

import math

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.ops import knn, local_moments, neighbors, pairs_within
from pcequi.rotations import random_rotations

pytestmark = pytest.mark.backend


def pair_set(pairs):
    return set(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))


@pytest.fixture(params=("torch", "torch-cluster"))
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(neighbors, "HAS_TORCH_CLUSTER", False)
    elif not neighbors.HAS_TORCH_CLUSTER:
        pytest.skip("torch-cluster is not installed")
    else:
        monkeypatch.setattr(neighbors, "_CHUNK", 1)  # so that it is used for few points


def test_knn_against_a_full_sort(generator):
    source = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    query = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    index, distance = knn(source, query, 6)
    expected = (query[:, None] - source).norm(dim=2).sort(1)
    assert torch.equal(index, expected.indices[:, :6])
    torch.testing.assert_close(distance, expected.values[:, :6])


@pytest.mark.parametrize("noise", [0.0, 1e-14])
def test_equal_distances_come_in_the_order_of_the_rows(noise, generator):
    lattice = torch.cartesian_prod(*[torch.arange(3, dtype=torch.float64)] * 3)
    moved = lattice + noise * torch.randn(lattice.shape, generator=generator)
    index, _ = knn(moved, lattice[13:14], 7)
    assert index[0, 0] == 13  # the middle, then its six faces
    assert index[0, 1:].tolist() == [4, 10, 12, 14, 16, 22]


def test_knn_keeps_clouds_apart(generator):
    source = torch.randn(12, 3, generator=generator)
    batch = torch.tensor([0] * 5 + [1] * 7)
    index, _ = knn(source, source, 4, batch, batch)
    assert (batch[index] == batch[:, None]).all()
    alone, _ = knn(source[5:], source[5:], 4)
    assert torch.equal(index[5:] - 5, alone)


def test_chunks_change_nothing(monkeypatch, generator):
    source = torch.randn(30, 3, generator=generator)
    index, pairs = knn(source, source, 5)[0], pairs_within(source, source, 1.0)
    monkeypatch.setattr(neighbors, "HAS_TORCH_CLUSTER", False)
    monkeypatch.setattr(neighbors, "_CHUNK", 7)
    assert torch.equal(index, knn(source, source, 5)[0])
    assert pair_set(pairs) == pair_set(pairs_within(source, source, 1.0))


def test_pairs_are_complete_and_sorted(backend, generator):
    source = torch.rand(150, 3, generator=generator)  # more than 32 within the radius
    query = torch.rand(20, 3, generator=generator)
    row, col = pairs_within(source, query, 0.6)
    expected = ((query[:, None] - source).norm(dim=2) <= 0.6).nonzero()
    assert pair_set((row, col)) == set(map(tuple, expected.tolist()))
    assert (row[1:] >= row[:-1]).all()
    assert torch.bincount(row).max() > 32


def test_pairs_keep_clouds_apart(backend, generator):
    source = torch.rand(20, 3, generator=generator)
    batch = torch.tensor([0] * 8 + [1] * 12)
    row, col = pairs_within(source, source, 5.0, batch, batch)
    assert len(row) == 8 * 8 + 12 * 12
    assert torch.equal(batch[row], batch[col])


def test_pairs_do_not_change_when_all_turn(backend, generator):
    source = torch.randn(80, 3, dtype=torch.float64, generator=generator)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    moved = source @ turn.T
    assert pair_set(pairs_within(source, source, 0.9)) == pair_set(pairs_within(moved, moved, 0.9))


def test_copies_are_at_distance_zero():
    place = torch.full((5, 3), 0.1)
    assert knn(place, place, 5)[1].abs().max() == 0
    assert len(pairs_within(place, place, 1e-9)[0]) == 25


def test_bad_arguments():
    cloud = torch.zeros(3, 3)
    with pytest.raises(ArgumentError, match=r"`k` \(=4\) must be between 1 and .*\(=3\)"):
        knn(cloud, cloud, 4)
    with pytest.raises(ArgumentError, match=r"`k` \(=0\)"):
        knn(cloud, cloud, 0)
    with pytest.raises(ArgumentError, match=r"`radius` \(=0.0\) must be positive"):
        pairs_within(cloud, cloud, 0.0)


@pytest.mark.parametrize(
    "search", [lambda *b: knn(*b[:2], 2, *b[2:]), lambda *b: pairs_within(*b[:2], 1.0, *b[2:])]
)
def test_batches_that_do_not_fit_are_refused(backend, search, generator):
    points = torch.rand(6, 3, generator=generator)
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    with pytest.raises(ArgumentError, match=r"`batch_query` \(=None\)"):
        search(points, points, batch, None)
    with pytest.raises(ArgumentError, match=r"`batch_source` \(=None\)"):
        search(points, points, None, batch)
    with pytest.raises(ShapeError, match=r"`batch_query` \(=\[5\],"):
        search(points, points, batch, batch[:5])
    with pytest.raises(DataError, match="`batch_source` is not sorted"):
        search(points, points, batch.flip(0), batch)
    with pytest.raises(DataError, match="`batch_source` is not sorted from 0 on"):
        search(points, points, batch - 1, batch)
    for kind in (torch.float32, torch.bool):
        with pytest.raises(ShapeError, match="`batch_query` .* must be whole numbers"):
            search(points, points, batch, batch.to(kind))


@pytest.mark.parametrize(
    "search",
    [
        lambda a, b: knn(a, b, 2),
        lambda a, b: pairs_within(a, b, 1.0),
        lambda a, b: local_moments(a, 1.0, center=b),
    ],
)
def test_points_that_cannot_be_compared_are_refused(search, generator):
    points = torch.rand(6, 3, generator=generator)
    for kind in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(ShapeError, match=rf"{kind}\) must be points .* float32 or float64"):
            search(points.to(kind), points.to(kind))
    with pytest.raises(ShapeError, match=r"\[18\], .* must be points \[N, D\]"):
        search(points.flatten(), points)
    for other in (points[:, :2], points.double()):
        with pytest.raises(ShapeError, match="must have the columns and the type of the other"):
            search(points, other)


def test_moments_of_points_in_a_plane_are_refused():
    with pytest.raises(ShapeError, match=r"`pos` \(=\[5, 2\]\) must be \[points, 3\]"):
        local_moments(torch.rand(5, 2), 1.0)


def test_a_cloud_without_sources_has_no_pairs(backend, generator):
    points = torch.rand(6, 3, generator=generator)
    row, _ = pairs_within(
        points[:3], points, 9.0, torch.zeros(3).long(), torch.tensor([0] * 3 + [1] * 3)
    )
    assert row.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf"), 1e200])
def test_impossible_radii_are_refused(radius):
    cloud = torch.zeros(3, 3, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="`radius`.*positive and finite"):
        pairs_within(cloud, cloud, radius)
    with pytest.raises(ArgumentError, match="`radius`.*positive and finite"):
        local_moments(cloud, radius)


@pytest.mark.parametrize("size", [4, 14])
@pytest.mark.parametrize("batched", [False, True])
def test_what_lies_at_the_radius_is_within_it(size, batched):
    axis = torch.arange(size, dtype=torch.float64)
    lattice = torch.cartesian_prod(axis, axis, axis)
    batch = torch.zeros(len(lattice), dtype=torch.long) if batched else None
    query, source = pairs_within(lattice, lattice, 1.0, batch, batch)
    # Each point itself, and each edge of the lattice both ways.
    assert len(query) == size**3 + 2 * 3 * size**2 * (size - 1)
    assert (query[1:] >= query[:-1]).all() and len(source) == len(query)


def test_no_query_has_no_neighbours():
    source, none = torch.randn(5, 3), torch.zeros(0, 3)
    index, distance = knn(source, none, 2)
    assert index.shape == distance.shape == (0, 2)
    assert [len(part) for part in pairs_within(source, none, 1.0)] == [0, 0]


def test_a_far_point_does_not_blur_the_neighbours_of_others(generator):
    source = torch.rand(500, 3, generator=generator)
    source[0, 0] = 300
    index, distance = knn(source, source, 8)
    nearest = torch.cdist(source.double(), source.double()).topk(8, largest=False).values
    assert (distance[1:, -1].double() <= nearest[1:, -1] * 1.01).all()
    assert torch.equal(index[:, 0], torch.arange(500))
    assert torch.equal(index[:40], knn(source, source[:40], 8)[0])  # whoever else asks


@pytest.mark.parametrize("search", ["tree", "matrix"])
def test_equal_distances_come_in_order_however_many_there_are(search, monkeypatch):
    if search == "matrix":
        monkeypatch.setattr(neighbors, "_SPARE", 10**6)
    turn = torch.arange(60, dtype=torch.float64) * (math.pi / 30)
    ring = torch.stack([turn.cos(), turn.sin(), 0 * turn], 1).flip(0)
    middle = torch.zeros(1, 3, dtype=torch.float64)
    far = 5 + torch.arange(900, dtype=torch.float64)[:, None] * torch.ones(1, 3)
    index, _ = knn(torch.cat([far, ring, middle]), middle, 6)
    assert index.tolist() == [[960, 900, 901, 902, 903, 904]]


def test_trees_find_what_the_whole_matrix_says(monkeypatch, generator):
    source = torch.randn(300, 3, dtype=torch.float64, generator=generator).requires_grad_()
    found = [knn(source, source, 7)]
    monkeypatch.setattr(neighbors, "_SPARE", 10**6)
    found.append(knn(source, source, 7))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    one, other = (torch.autograd.grad(d.square().sum(), source)[0] for _, d in found)
    torch.testing.assert_close(one, other)


def test_clouds_without_queries_do_not_limit_k(generator):
    points = torch.randn(12, 3, generator=generator)
    batch = torch.tensor([0] * 6 + [2] * 6)
    index, _ = knn(points, points, 5, batch, batch)
    assert torch.equal(batch[index], batch[:, None].expand(-1, 5))
    with pytest.raises(ArgumentError, match=r"`k` \(=5\) .*smallest cloud \(=0\)"):
        knn(points, points, 5, batch, torch.arange(12) // 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_points_whose_distances_overflow_are_refused(value, generator):
    points = torch.randn(50, 3, generator=generator)
    far = points.index_fill(0, torch.tensor([7]), value)
    for source, query in ((far, points), (points, far)):
        with pytest.raises(DataError, match="`source` or `query` .* too large for squares"):
            knn(source, query, 3)


def test_distances_have_gradients_under_transforms_of_functions(generator):
    pos = torch.randn(40, 3, dtype=torch.float64, generator=generator)

    def total(x):
        return knn(x, x, 4)[1][:, 1:].square().sum()

    x = pos.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(x), x)
    torch.testing.assert_close(torch.func.grad(total)(pos), expected)
    both = torch.func.vmap(total)(torch.stack([pos, 2 * pos]))
    torch.testing.assert_close(both, torch.stack([total(pos), total(2 * pos)]))

"""Ties, rounding and sums of the operators, compiled and not."""

import pytest
import torch

from pcequi.ops import (
    Characters,
    blend_centers,
    blending,
    dense,
    dense_blocks,
    farthest_point_sampling,
    grouped_spmm,
    knn,
    sparse,
)


@pytest.fixture(params=["default", "torch"])
def fps_backend(request, monkeypatch):
    if request.param == "torch":
        from pcequi.ops import fps

        monkeypatch.setattr(fps, "HAS_NUMBA", False)


def test_copies_stay_with_the_earliest_pick_of_their_place(fps_backend, generator):
    place = torch.arange(60) % 4
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)[place]
    x = x + 1e-9 * torch.randn(60, 3, dtype=torch.float64, generator=generator)
    index, assignment, _ = farthest_point_sampling(x, 20)
    assert len(place[index[:4]].unique()) == 4
    rest = torch.ones(60, dtype=torch.bool)
    rest[index] = False
    assert assignment[rest].max() < 4
    assert torch.equal(place[index[assignment]], place)


def test_rows_that_are_near_are_no_copies(fps_backend):
    x = torch.tensor([0.0, 1e-4, 3e-4, 2e-4, 1.0]).double()[:, None]
    index, _, _ = farthest_point_sampling(x, 3)
    assert index.tolist() == [4, 0, 2]


def test_of_keys_that_agree_to_rounding_the_first_row_counts(fps_backend):
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]).double()
    key = torch.tensor([1.0, 1 + 1e-12, 1 + 2e-12, 1 - 1e-12], dtype=torch.float64)
    assert farthest_point_sampling(x, 1, key=key)[0].tolist() == [0]
    assert farthest_point_sampling(x, 3, key=key)[0].tolist() == [0, 1, 2]


def test_the_nearest_are_nearest_to_a_thousandth(generator):
    angle = torch.randperm(400, generator=generator).double()
    # Distances that differ by a thousandth of the last one, in random order.
    source = torch.stack([angle.cos(), angle.sin(), angle * 0], 1) * (1 + angle / 1000)[:, None]
    index, _ = knn(source, torch.zeros(1, 3).double(), 20)
    assert torch.equal(index[0], angle.argsort()[:20])


def test_distances_that_differ_by_rounding_of_single_precision_are_equal(generator):
    lattice = torch.cartesian_prod(*[torch.arange(-1.0, 2)] * 3)
    shell = lattice[lattice.abs().sum(1) == 1]
    for _ in range(20):
        noise = torch.randn(6, 3, generator=generator) * 4e-6  # a rounding of 100
        index, _ = knn(shell + noise + 100, torch.full((1, 3), 100.0), 6)
        assert index[0].tolist() == list(range(6))


def test_rounding_of_rows_that_agree_blends_nothing(monkeypatch, generator):
    row = torch.rand(20, dtype=torch.float64, generator=generator)
    noise = 1e-15 * torch.randn(50, 20, dtype=torch.float64, generator=generator)
    for backend in (blending.HAS_NUMBA, False):
        monkeypatch.setattr(blending, "HAS_NUMBA", backend)
        assignment, _, _, weight = blend_centers(row + noise, row + noise[:8], 3)
        assert (assignment == 0).all() and (weight[:, 0] == 1).all()


@pytest.mark.parametrize("numba", [True, False])
def test_curvature_along_a_direction(numba, monkeypatch, generator):
    if not numba:
        monkeypatch.setattr(sparse, "HAS_NUMBA", False)
    matrix = torch.rand(5, 7, dtype=torch.float64, generator=generator)
    x, v = torch.randn(2, 7, 2, dtype=torch.float64, generator=generator)
    ptr, col = torch.arange(6) * 7, torch.arange(7).repeat(5)
    ends = torch.tensor([0, 5]), torch.tensor([0, 7])

    def energy(x):
        return (grouped_spmm(x, ptr, col, matrix.flatten(), *ends) ** 3).sum()

    _, found = torch.func.jvp(torch.func.grad(energy), (x,), (v,))
    torch.testing.assert_close(found, matrix.T @ (6 * (matrix @ x) * (matrix @ v)))


@pytest.mark.parametrize("numba", [True, False])
def test_many_entries_in_16_bits_add_up(numba, monkeypatch):
    if not numba:
        monkeypatch.setattr(sparse, "HAS_NUMBA", False)
    x = torch.ones(1000, 2, dtype=torch.bfloat16)
    ends = torch.tensor([0, 1]), torch.tensor([0, 1000])
    out = grouped_spmm(x, torch.tensor([0, 1000]), torch.arange(1000), torch.ones(1000), *ends)
    assert (out == 1000).all()


@pytest.mark.parametrize("numba", [True, False])
def test_blocks_of_characters_are_rounded_once(numba, monkeypatch, generator):
    if not numba:
        monkeypatch.setattr(dense, "HAS_NUMBA", False)
    products = torch.arange(4)[:, None] ^ torch.arange(4)
    characters = Characters.of(torch.zeros(4, 1, dtype=torch.long), products)
    val = torch.rand(6 * 8, generator=generator)
    entries, col = torch.full((6,), 8), torch.arange(8).repeat(6)
    exact = dense_blocks(entries, col, val.double(), 1, 8, torch.float64, characters)
    found = dense_blocks(entries, col, val, 1, 8, torch.bfloat16, characters)
    assert ((found.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1e-6).all()

"""Weighted means of the nearest centres, in torch and compiled."""

import pytest
import torch

from pcequi.ops import blend_centers, blending, nearest_center
from pcequi.rotations import finite_group

F64 = torch.float64


@pytest.fixture(params=("numba", "torch"))
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(blending, "HAS_NUMBA", False)
    elif not blending.HAS_NUMBA:
        pytest.skip("numba is not installed")


def dense(found, num):
    _, _, index, weight = found
    return weight.new_zeros(len(index), num).scatter_add_(1, index, weight)


def rows_and_centers(generator, size=80, num=20, dim=5):
    x = torch.randn(size, dim, dtype=F64, generator=generator)
    return x, torch.randn(num, dim, dtype=F64, generator=generator)


@pytest.mark.parametrize("num", [1, 2, 6, 19, 30])
def test_weights_are_a_mean_of_the_nearest(num, backend, generator):
    x, center = rows_and_centers(generator)
    assignment, distance, index, weight = blend_centers(x, center, num)
    assert index.shape == weight.shape == (80, num)
    torch.testing.assert_close((assignment, distance), nearest_center(x, center))
    torch.testing.assert_close(weight.sum(1), torch.ones(80, dtype=F64))
    assert (weight >= 0).all() and (index >= 0).all() and (index < 20).all()
    near = torch.cdist(x, center).argsort(1)[:, : min(num, 19)]
    allowed = torch.zeros(80, 20, dtype=torch.bool).scatter_(1, near, True)
    assert allowed[dense((0, 0, index, weight), 20) > 0].all()


@pytest.mark.parametrize("num", [2, 6])
def test_a_mean_is_nearer_than_the_nearest(num, backend, generator):
    x, center = rows_and_centers(generator, 400, 60, 3)
    assignment, distance, index, weight = blend_centers(x, center, num)
    blended = ((center[index] * weight[..., None]).sum(1) - x).square().sum(1)
    assert blended.sum() < 0.8 * distance.square().sum()


def test_a_row_at_a_centre_takes_it_alone(backend, generator):
    _, center = rows_and_centers(generator)
    found = blend_centers(center, center, 6)
    torch.testing.assert_close(dense(found, 20), torch.eye(20, dtype=F64), atol=1e-7, rtol=0)


def test_weights_are_continuous_where_the_nearest_jumps(backend, generator):
    """Along a line through the centres, halving the step halves the largest change."""
    _, center = rows_and_centers(generator, dim=2)
    start, stop = torch.tensor([[-2.0, -1.5]], dtype=F64), torch.tensor([[2.0, 1.0]], dtype=F64)
    largest, jumps = [], []
    for steps in (20_000, 40_000):
        t = torch.linspace(0, 1, steps + 1, dtype=F64)[:, None]
        found = blend_centers(start + t * (stop - start), center, 6)
        largest.append(dense(found, 20).diff(dim=0).abs().max())
        jumps.append((found[0].diff() != 0).sum())
    assert jumps[0] == jumps[1] > 2
    assert largest[1] < 0.6 * largest[0] < 0.05


def test_weights_do_not_see_where_things_are(backend, generator):
    x, center = rows_and_centers(generator)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=F64, generator=generator)).Q
    before = dense(blend_centers(x, center, 6), 20)
    after = dense(blend_centers(x @ turn + 3, center @ turn + 3, 6), 20)
    torch.testing.assert_close(before, after, atol=1e-9, rtol=0)


@pytest.mark.parametrize("num", [1, 3, 5, 7])
def test_centres_that_are_all_equally_far(num, backend):
    """No blend of a few of them would be continuous: the first one is taken."""
    corners = finite_group("O", dtype=F64)[:, :, 2].unique(dim=0)  # six, around the origin
    x = 1e-12 * torch.eye(3, dtype=F64) + torch.zeros(3, 3, dtype=F64)
    found = blend_centers(x, corners, num)
    expected = torch.zeros(3, 6, dtype=F64)
    expected[:, 0] = 1
    assert torch.equal(dense(found, 6), expected) and not found[0].any()


@pytest.mark.parametrize("num", [6, 20, 30])
def test_many_equal_shares(num, backend):
    eye = torch.eye(num, dtype=F64)
    found = blend_centers(torch.zeros(1, num, dtype=F64), torch.cat([eye, 2 * eye]), num)
    expected = torch.cat([torch.full((1, num), 1 / num), torch.zeros(1, num)], 1).double()
    torch.testing.assert_close(dense(found, 2 * num), expected, atol=1e-7, rtol=0)


def test_centres_that_coincide(backend, generator):
    x, center = rows_and_centers(generator, num=7)
    doubled = torch.cat([center, center, center])
    weight = dense(blend_centers(x, doubled, 9), 21)
    assert torch.isfinite(weight).all()
    torch.testing.assert_close(weight.sum(1), torch.ones(80, dtype=F64))
    # Copies are as good as one another.
    torch.testing.assert_close(weight[:, :7], weight[:, 7:14], atol=1e-6, rtol=0)
    every = blend_centers(doubled, doubled[:1].repeat(9, 1), 4)
    assert torch.equal(every[3].sum(1), torch.ones(21, dtype=F64)) and not every[0].any()


@pytest.mark.parametrize("size, centers, num", [(1, 1, 4), (5, 1, 1), (5, 2, 6), (9, 40, 32)])
def test_few_centres(size, centers, num, backend, generator):
    x, center = rows_and_centers(generator, size, centers)
    found = blend_centers(x, center, num)
    assert found[2].shape == (size, num)
    torch.testing.assert_close(dense(found, centers).sum(1), torch.ones(size, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("num", [1, 6, 12])
def test_both_ways_agree(num, dtype, monkeypatch, generator):
    if not blending.HAS_NUMBA:
        pytest.skip("numba is not installed")
    x, center = (t.to(dtype) for t in rows_and_centers(generator, 200, 33, 15))
    compiled = blend_centers(x, center, num)
    monkeypatch.setattr(blending, "HAS_NUMBA", False)
    torch_twin = blend_centers(x, center, num)
    assert torch.equal(compiled[0], torch_twin[0]) and compiled[3].dtype == dtype
    accuracy = 1e-9 if dtype == F64 else 1e-3
    torch.testing.assert_close(dense(compiled, 33), dense(torch_twin, 33), atol=accuracy, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centres_that_are_equally_far_but_for_rounding(backend, dtype, generator):
    # The farthest of the blended may be one unit in the last place nearer than the edge.
    for _ in range(200):
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        x = torch.randint(-2, 3, (30, 3), generator=generator).double() @ turn
        weight = blend_centers(x.to(dtype), x[:12].to(dtype), 3)[3]
        assert torch.isfinite(weight).all() and (weight >= 0).all()
        torch.testing.assert_close(weight.sum(1), torch.ones(30, dtype=dtype))


def test_many_centres_are_blended_without_all_their_distances(backend, monkeypatch, generator):
    x, center = rows_and_centers(generator)
    expected = blend_centers(x, center, 6)
    monkeypatch.setattr(blending, "MOST_CENTERS", 10)
    monkeypatch.setattr(blending, "_MOST", 7 * 20)  # seven rows at once
    for found, wanted in zip(blend_centers(x, center, 6), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)

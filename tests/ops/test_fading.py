"""Small values are left out, and nothing jumps where they are."""

import pytest
import torch

from pcequi.ops import combined_rows, faded, row_pointer


@pytest.fixture
def value(generator):
    return torch.randn(5, 40, dtype=torch.float64, generator=generator) ** 3


def test_small_values_are_left_out_and_large_ones_kept(value):
    share = value.abs() / value.abs().amax(1, keepdim=True)
    out = faded(value, 0.02, 1)
    assert not out[share <= 0.02].any() and torch.equal(out[share >= 0.025], value[share >= 0.025])
    between = (share > 0.02) & (share < 0.025)
    assert between.any() and (out[between] / value[between]).lt(1).all()
    assert (out * value).ge(0).all()
    assert torch.equal(faded(value, 0.0, 1), value)


def test_the_largest_is_of_all_dimensions_named(value):
    whole = faded(value, 0.02, (0, 1))
    torch.testing.assert_close(whole.flatten(), faded(value.flatten(), 0.02, 0))


def test_rows_of_zeros_stay_and_have_derivatives():
    value = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    out = faded(value, 0.02, 1)
    assert not out.any()
    (gradient,) = torch.autograd.grad(out.sum(), value)
    assert gradient.isfinite().all()


def test_values_that_nearly_agree_stay_so(value):
    """With jumps, what lies at the limit would change by the limit."""
    limit = 0.02 * value.abs().amax(1)
    for near in (1.0, 1.25):  # where it begins and ends
        some = value.clone()
        some[:, 0] = near * limit
        step = torch.zeros_like(some)
        step[:, 0] = 1e-9 * limit
        change = faded(some + step, 0.02, 1) - faded(some - step, 0.02, 1)
        assert change.abs().max() < 2e-8 * limit.max()


@pytest.mark.parametrize("compiled", [True, False])
def test_sums_of_rows_fade_alike(value, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("pcequi.ops.sparse.HAS_NUMBA", False)
    ptr = row_pointer(torch.full((5,), 40))
    found = combined_rows(
        torch.eye(5, dtype=value.dtype),
        ptr,
        torch.arange(40).repeat(5),
        value.flatten(),
        40,
        least=0.02,
    )
    wanted = faded(value, 0.02, 1)
    assert len(found[2]) == wanted.count_nonzero()
    torch.testing.assert_close(found[2], wanted[wanted != 0])

"""Clouds mixed in pairs."""

import torch

from pcequi.training.mixing import draw_mixing, mix


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

"""Shares are written with the digits that their number bears, and judged by Wilson's interval."""

import pytest

from pcequi.errors import ArgumentError
from pcequi.shares import counted, percent, wilson


def test_digits_follow_the_number():
    assert percent(1.0, 12) == "100 %" and counted(1.0, 12) == "12 of 12"
    assert percent(2 / 3, 150) == "66.7 %" and counted(2 / 3, 150) == "100 of 150"
    assert percent(0.88533, 2468) == "88.53 %" and counted(0.88533, 2468) == "2,185 of 2,468"
    assert percent(0.5) == "50.00 %"
    assert percent(None, 12) == "-" and percent(None, none="x") == "x"


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # The first three are of Newcombe, "Two-sided confidence intervals for the single proportion",
    # Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (12, 12, 0.7575, 1.0),
    ],
)
def test_intervals_are_those_of_the_literature(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)
    other = wilson(total - right, total)
    assert other == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_numbers_out_of_range_are_named():
    with pytest.raises(ArgumentError, match=r"`right` \(=3\) must be at most `total` \(=2\)"):
        wilson(3, 2)
    with pytest.raises(ArgumentError, match=r"`total` \(=0\)"):
        wilson(0, 0)

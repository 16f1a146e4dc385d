"""Shares of a number of things, written and judged by how many there are."""

from __future__ import annotations

import math

from pcequi.errors import ArgumentError, check_count

__all__ = ["counted", "percent", "wilson"]

# Of a normal distribution 95 % lie within so many standard deviations.
_Z = 1.959964


def percent(share: float | None, total: int | None = None, none: str = "-") -> str:
    """A share for people, with as many digits as the number of things bears.

    Args:
        share: from 0 to 1; None: there is none.
        total: of things. Below 100 no decimals are written, below 1,000 one, else two.
        none: what is written for None.

    **Equivariance:** does not apply.
    """
    if share is None:
        return none
    digits = 2 if total is None or total >= 1000 else 1 if total >= 100 else 0
    return f"{100 * share:.{digits}f} %"


def counted(share: float, total: int) -> str:
    """A share of a number of things as two numbers, such as "11 of 12".

    **Equivariance:** does not apply.
    """
    return f"{round(share * total):,} of {total:,}"


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share by its Wilson score.

    With p = right / total, n = total and z = 1.96 it is
    (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n). It says where the accuracy on
    very many shapes like those that were tested on may lie.

    Args:
        right: from 0 to ``total``.
        total: at least 1.

    Returns:
        Both ends, within [0, 1].

    Raises:
        ArgumentError: a number is out of range.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22 (1927), 209-212.

    **Equivariance:** does not apply.
    """
    check_count("total", total)
    if check_count("right", right, 0) > total:
        raise ArgumentError(f"`right` (={right}) must be at most `total` (={total})")
    share, square = right / total, _Z**2 / total
    middle = share + square / 2
    reach = _Z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))

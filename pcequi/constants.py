"""Constants that are made once: groups, kernel points, tables."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch


def constant(function: Callable) -> Callable:
    """Make what a function of plain settings returns once, as ordinary tensors of the CPU.

    ``functools.cache`` alone would keep what the first call happened to make: inside
    ``torch.inference_mode()`` tensors that no later training can use, inside
    ``torch.device("meta")`` tensors without values.

    **Equivariance:** that of the function.
    """

    @functools.cache
    def made(*args, **kwargs):
        with torch.inference_mode(False), torch.device("cpu"):
            return function(*args, **kwargs)

    return functools.wraps(function)(made)

"""Constants that are made once: groups, kernel points, tables."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

# Groups whose constants are kept.
_MOST = 64


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


def group_constant(function: Callable) -> Callable:
    """Make what a function of a group, its elements [K, 3, 3] or its products [K, K], and plain
    settings returns once.

    **Equivariance:** that of the function.
    """
    kept: dict = {}

    @functools.wraps(function)
    def made(group: Tensor, *args):
        key = (*args, group.dtype, group.device, tuple(group.flatten().tolist()))
        found = kept.get(key)  # another thread may clear the table at any time
        if found is None:
            with torch.inference_mode(False):
                found = function(group, *args)
            if len(kept) >= _MOST:
                kept.clear()
            kept[key] = found
        return found

    return made

"""Constants that are made once: groups, kernel points, tables."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch

# Groups whose constants are kept.
_MOST = 64
_NOTHING = object()  # None is what some groups have


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
    settings returns once. All who ask get the same tensors: nobody writes into them.

    **Equivariance:** that of the function.
    """
    kept: dict = {}
    signature = inspect.signature(function)

    @functools.wraps(function)
    def made(*args, **named):
        group, *args = signature.bind(*args, **named).args if named else args
        key = (*args, group.dtype, group.device, tuple(group.flatten().tolist()))
        found = kept.get(key, _NOTHING)  # another thread may clear the table at any time
        if found is _NOTHING:
            with torch.inference_mode(False):
                found = function(group, *args)
            if len(kept) >= _MOST:
                kept.clear()
            kept[key] = found
        return found

    return made

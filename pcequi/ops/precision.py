"""Geometry in its own precision, whatever ``torch.autocast`` makes of layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import torch

__all__ = ["own_precision", "uncast"]

# Where products of single precision are cast to 16 bits, in which frames have two digits.
_CASTING = ("cpu", "cuda")


def uncast(device_type: str):
    """No automatic casts; on "meta", which has none, nothing.

    **Equivariance:** does not apply.
    """
    if device_type == "meta":
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def own_precision(function: Callable) -> Callable:
    """The function, computed in the types that it is given, also within ``torch.autocast``.

    **Equivariance:** that of the function, which casts would lose.
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        cast = [kind for kind in _CASTING if torch.is_autocast_enabled(kind)]
        if not cast:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in cast:
                stack.enter_context(uncast(kind))
            return function(*args, **kwargs)

    return run

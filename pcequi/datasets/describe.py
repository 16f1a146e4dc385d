"""Texts that tell transforms apart: parts of the names of processed files."""

from __future__ import annotations

import functools
import hashlib
import re
import types
from typing import Any

import numpy as np
import torch

__all__ = ["describe", "without_addresses"]

# Deeper than any sensible setting.
_DEEPEST = 8


def describe(thing: Any, above: tuple[int, ...] = ()) -> str:
    """A text that tells one transform from another, and is the same in every process.

    Attributes rather than ``repr``, which often leaves out what matters: a
    transform with other settings must not read the old one's file. A function is
    told by its code, its defaults and what it closes over; what it calls or reads
    by a global name, by that name alone.

    Args:
        thing: A transform, or a setting of one.
        above: Identities of what it is part of, for things that hold themselves.

    Returns:
        The text; of a value that says nothing about itself, its type.

    **Equivariance:** does not apply.
    """
    if type(thing) in (str, bytes, int, float, complex):
        return repr(thing)
    if isinstance(thing, types.ModuleType):
        return f"module {thing.__name__}"
    if isinstance(thing, types.CodeType):
        return _code(thing)
    if isinstance(thing, functools.partial):
        thing = ["partial", thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        thing = ["method", thing.__func__, thing.__self__]
    if isinstance(thing, torch.Tensor):
        if thing.layout != torch.strided or thing.device.type == "meta":
            return without_addresses(repr(thing))
        thing = thing.detach().cpu().resolve_conj().resolve_neg()
        # NumPy has no bfloat16; in single precision its numbers are the same.
        thing = (thing.float() if thing.dtype == torch.bfloat16 else thing).numpy()
    if isinstance(thing, np.ndarray) and thing.dtype == object:
        thing = ["objects", thing.shape, thing.tolist()]  # their bytes are addresses
    if isinstance(thing, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
        return f"array({thing.shape}, {thing.dtype}, {digest})"
    inside = (*above, id(thing))
    shallow = len(above) < _DEEPEST and id(thing) not in above
    if isinstance(thing, types.FunctionType):
        parts = [describe(part, inside) for part in _settings(thing)] if shallow else []
        return (
            f"{thing.__module__}.{thing.__qualname__}({', '.join([_code(thing.__code__), *parts])})"
        )
    if shallow:
        if isinstance(thing, dict):
            pairs = [(without_addresses(str(key)), value) for key, value in thing.items()]
            pairs = sorted((key, describe(value, inside)) for key, value in pairs)
            return f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        if isinstance(thing, (list, tuple)):
            return f"[{', '.join(describe(item, inside) for item in thing)}]"
        if isinstance(thing, (set, frozenset)):
            # Their order differs from one process to the next.
            return f"set[{', '.join(sorted(describe(item, inside) for item in thing))}]"
        kind = type(thing)
        if not hasattr(thing, "__qualname__") and getattr(thing, "__dict__", None):
            return f"{kind.__module__}.{kind.__qualname__}{describe(vars(thing), inside)}"
        if hasattr(thing, "__wrapped__"):  # by functools.lru_cache, for one
            return f"{type(thing).__qualname__}({describe(thing.__wrapped__, inside)})"
    name = getattr(thing, "__qualname__", None)
    return f"{thing.__module__}.{name}" if name else without_addresses(repr(thing))


def _settings(function: types.FunctionType) -> list:
    """What two functions of the same code may differ in."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:
            cells.append("a name that is not bound yet")
    own = {key: value for key, value in vars(function).items() if key != "__wrapped__"}
    return [function.__defaults__, function.__kwdefaults__, *cells, *([own] if own else [])]


def _code(code: types.CodeType) -> str:
    # Neither the file nor the lines: a function may move. Its constants hold the code of those
    # that are defined within it.
    constants = ", ".join(describe(constant) for constant in code.co_consts)
    return f"code({code.co_code.hex()}, [{constants}], {code.co_names})"


def without_addresses(text: str) -> str:
    """A ``repr`` without what differs from one process to the next.

    **Equivariance:** does not apply.
    """
    return re.sub(r"(?: at )?0x[0-9a-fA-F]{6,}", "", text)

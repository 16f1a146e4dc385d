"""Objects that hold tensors, printed by their shapes."""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor

__all__ = ["short_repr"]


def short_repr(value: object) -> str:
    """A dataclass by the shapes of its tensors, whose numbers would fill a page.

    To be its ``__repr__``; what was left at None is left out.

    **Equivariance:** shapes do not change when a cloud moves.
    """
    parts = []
    for one in fields(value):
        part = getattr(value, one.name)
        if part is None and one.default is None:
            continue
        shown = f"{list(part.shape)}" if isinstance(part, Tensor) else repr(part)
        parts.append(f"{one.name}={shown}")
    return f"{type(value).__name__}({', '.join(parts)})"

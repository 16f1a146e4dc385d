"""What users hand over, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pcequi.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def as_array(value: np.ndarray | Tensor | Sequence) -> np.ndarray:
    """A tensor (wherever it is, with a gradient or without), an array or a list, in float64.

    **Equivariance:** does not apply.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)


def finite_array(name: str, value: np.ndarray | Tensor | Sequence) -> np.ndarray:
    """The same, of numbers that can be drawn.

    Raises:
        DataError: NaN or infinite, by the argument's ``name``.

    **Equivariance:** does not apply.
    """
    found = as_array(value)
    bad = ~np.isfinite(found)
    if bad.any():
        first = ", ".join(map(str, np.argwhere(bad)[0]))
        raise DataError(
            f"`{name}` must be finite ({bad.sum()} of its {found.size} numbers are NaN or "
            f"infinite, the first at [{first}]); leave those out"
        )
    return found

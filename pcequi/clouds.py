"""What every part asks of a cloud, and when its geometry has no direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, DataError, ShapeError

# Limits below which geometry is rounding are those of float32, in which clouds are kept and turned,
# whatever they are computed in (docs/decisions.md, 29): a few hundred roundings of it, 6e-8 each.
# Directions shorter than this share of the cloud's size have no direction.
DEGENERATE = 1e-5
# Coordinates that differ by less than this share of their size do so by rounding (float64).
ROUNDING = 1e-13
# Eigenvalues that agree to this share of the largest span one eigenspace, in
# which a direction is chosen by rule; else rounding would turn the eigenvectors.
ONE_SPACE = 1e-3
# A fixed vector, nearly of length one, in no special direction, the last resort of tie rules.
GENERIC = (0.81, 0.53, 0.2514)


def all_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    **Equivariance:** the answer does not depend on the position of what is asked.
    """
    # One pass in the common case: a finite sum has finite terms.
    return math.isfinite(float(values.detach().sum())) or bool(torch.isfinite(values).all())


def check_cloud(pos: Tensor, name: str = "pos", *, wide: bool = False) -> Tensor:
    """Return ``pos`` if it is a usable cloud [N, 3]; raise otherwise.

    Args:
        name: of the argument.
        wide: ask for float32 or float64.

    Raises:
        ShapeError: not a floating tensor of shape [N, 3], or of 16 bits where ``wide`` is asked.
        DataError: no point, or a coordinate that is NaN or infinite.

    **Equivariance:** the answer does not depend on the cloud's position.
    """
    if not isinstance(pos, Tensor) or pos.dim() != 2 or pos.shape[1] != 3:
        shape = list(pos.shape) if isinstance(pos, Tensor) else type(pos).__name__
        raise ShapeError(f"`{name}` (={shape}) must be a tensor of shape [points, 3]")
    if not pos.is_floating_point():
        raise ShapeError(f"`{name}` (dtype {pos.dtype}) must be floating; call `.float()`")
    if wide and pos.dtype not in (torch.float32, torch.float64):
        raise ShapeError(
            f"`{name}` (dtype {pos.dtype}) must be float32 or float64: 16 bits tell too few places "
            "apart; call `.float()`"
        )
    if len(pos) == 0:
        raise DataError(f"`{name}` (shape [0, 3]) is empty; a cloud needs at least one point")
    if not all_finite(pos):
        bad = ~torch.isfinite(pos).all(1)
        first = int(bad.int().argmax())
        raise DataError(
            f"`{name}` has {int(bad.sum())} points that are NaN or infinite "
            f"(first: point {first} = {pos[first].tolist()}); remove them"
        )
    return pos


def check_floating(dtype: torch.dtype | None, name: str = "dtype") -> None:
    """Whether a type can hold geometry; None, for one that is found later, will do.

    Args:
        dtype: the type.
        name: of the argument.

    Raises:
        ArgumentError: it holds whole or complex numbers, or is none.

    **Equivariance:** does not apply.
    """
    if dtype is None or isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return
    raise ArgumentError(f"`{name}` (={dtype!r}) must be a floating type, such as torch.float32")

"""A kernel basis on pairs of surface points: what two points and their normals fix.

Two points with unsigned normals, n here and m there, at the offset v, have these
numbers, which no rotation changes, nor a change of either normal's sign:

    r = |v|,  a = |n . v| / r,  e = |n . m|,  b = |m . v| / r,

and one sign, of (n . v)(m . v)(n . m): whether the surface bends towards the
offset or away from it. Functions of these are the kernels that an equivariant layer
on positions and axes may have: poses of which only the z axis, without its sign,
means something. The frames of a whole cloud, whose order and signs are ambiguous,
are not needed.

Source: point pair features: Drost et al., CVPR 2010; kernels on positions and
orientations: Bekkers et al., ICLR 2024.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from pcequi.errors import ArgumentError

__all__ = ["PairKernel", "check_pairs", "invariant_basis", "pair_basis"]

# Where the sign is lost (one of the three factors is zero) both signs get half:
# the product at which all of it goes to one sign.
SIGN_WIDTH = 0.02
# Directions fade where points coincide, at this share of the radius.
COINCIDE = 1e-6
_MOST = 4096


def check_pairs(pairs: Sequence[int]) -> tuple[int, int, int, int]:
    """The numbers of functions along r, a, b and e, checked.

    Raises:
        ArgumentError: not four numbers of at least 1, that of b odd, or a basis of
            more than 4,096 functions.

    **Equivariance:** does not apply.
    """
    good = isinstance(pairs, (tuple, list)) and len(pairs) == 4
    good = good and all(isinstance(n, numbers.Integral) and n is not True and n > 0 for n in pairs)
    if not good or pairs[2] % 2 == 0 or pairs[0] * pairs[1] * pairs[2] * pairs[3] > _MOST:
        raise ArgumentError(
            f"`pairs` (={pairs!r}) must be four numbers of functions, of the distance, the "
            "angle here, the angle there (odd, for its sign) and the angle between the "
            f"normals, with a product of at most {_MOST}; (3, 3, 3, 1) is a good start"
        )
    return tuple(map(int, pairs))


def pair_basis(offset: Tensor, axis: Tensor, pairs: tuple[int, int, int, int]) -> Tensor:
    """Products of linear hats along r, a, signed b and e, times 1 - r^2.

    The hats of one number add up to one, so all functions add up to 1 - r^2. Where
    the sign of b is lost, both signs have a part, so that nothing jumps.

    Args:
        offset: [E, 3] in the frame of the target, whose normal is its z axis, in
            units of the radius.
        axis: normals of the sources in that frame [E, 3].
        pairs: numbers of hats along r, a, b and e.

    Returns:
        [E, product of ``pairs``], zero from r = 1 on.

    **Equivariance:** unchanged when offset and axis turn about z, and when the z
    axis or ``axis`` change their signs.
    """
    # Where points coincide the norm has a first derivative of zero, as torch has it, and none
    # beyond: it is asked of another offset there.
    none = offset.detach().square().sum(1) == 0
    r = offset.masked_fill(none[:, None], 1).norm(dim=1).masked_fill(none, 0)
    return invariant_basis(r, offset[:, 2], (offset * axis).sum(1), axis[:, 2], pairs)


def invariant_basis(
    r: Tensor, tilt: Tensor, far: Tensor, turn: Tensor, pairs: tuple[int, int, int, int]
) -> Tensor:
    """``pair_basis`` of the numbers that it depends on: |v|, n . v, m . v and n . m, [E] each.

    **Equivariance:** unchanged when v, n and m turn together, and when n or m change signs.
    """
    turn = turn.clamp(-1, 1)
    length = r + COINCIDE
    tilt, far = tilt / length, far / length
    sign = (tilt * far * turn / SIGN_WIDTH).clamp(-1, 1)
    far = far.abs()
    b = (1 + sign)[:, None] * _hats(far, -1, pairs[2])
    b = (b + (1 - sign)[:, None] * _hats(-far, -1, pairs[2])) / 2
    out = (1 - r * r).clamp_min(0)[:, None] * _hats(r, 0, pairs[0])
    for part in (_hats(tilt.abs(), 0, pairs[1]), b, _hats(turn.abs(), 0, pairs[3])):
        out = (out[:, :, None] * part[:, None, :]).flatten(1)
    return out


def _hats(value: Tensor, low: float, num: int) -> Tensor:
    """Linear hats at ``num`` even places from ``low`` to 1: [E, num]. One: constant."""
    if num == 1:
        return torch.ones_like(value)[:, None]
    place = ((value - low) / (1 - low) * (num - 1)).clamp(0, num - 1)
    return (
        1 - (place[:, None] - torch.arange(num, device=value.device).to(value)).abs()
    ).clamp_min(0)


class PairKernel(torch.nn.Module):
    """The basis of ``pair_basis`` for ``nn.GroupConv``.

    Args:
        pairs: numbers of functions along the distance, the angle of the offset with
            the normal here and with the normal there, and between the normals.

    Raises:
        ArgumentError: see ``check_pairs``.

    **Equivariance:** a function of relative poses that reads their z axes alone,
    without signs: unchanged when all poses move together or turn about their axes.
    """

    def __init__(self, pairs: tuple[int, int, int, int] = (3, 3, 3, 1)):
        super().__init__()
        self.pairs = check_pairs(pairs)

    @property
    def num(self) -> int:
        """Size of the basis."""
        distance, here, there, between = self.pairs
        return distance * here * there * between

    def forward(self, offset: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Values [E, num] at relative poses: ``offset`` [E, 3] in units of the
        radius, ``rotation`` [E, 3, 3] (None: identity everywhere)."""
        if rotation is None:
            axis = offset.new_tensor([0.0, 0.0, 1.0]).expand_as(offset)
        else:
            axis = rotation[:, :, 2]
        return pair_basis(offset, axis, self.pairs)

    def mass(self, offset: Tensor) -> Tensor:
        """Sum of all functions at each offset [E]."""
        return (1 - offset.square().sum(1)).clamp_min(0)

    def extra_repr(self) -> str:
        return f"pairs={self.pairs}"

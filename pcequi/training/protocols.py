"""The rotation protocols: how training and test clouds are turned.

A protocol is named ``train/test``. ``z``: each cloud is turned about the
vertical axis by its own angle, uniform in [0, 2 pi). ``SO3``: each cloud is
turned by its own rotation from the Haar distribution. A cloud has one rotation
for a seed, drawn in float64; training and test rotations come from different
streams of that seed, and ``z/SO3`` and ``SO3/SO3`` share their test rotations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, check_count
from pcequi.rotations import random_rotations

__all__ = ["PROTOCOLS", "Protocol", "parse_protocol", "protocol_rotations"]

#: The protocols of the literature, by name.
PROTOCOLS = ("z/z", "z/SO3", "SO3/SO3")


@dataclass(frozen=True)
class Protocol:
    """How clouds are turned: ``train`` and ``test`` are each ``"z"`` or ``"SO3"``.

    **Equivariance:** names what a network is tested on.
    """

    train: str
    test: str


def parse_protocol(name: str) -> Protocol:
    """The protocol of a name such as ``"z/SO3"``.

    Raises:
        ArgumentError: the name is not one of ``PROTOCOLS``.

    **Equivariance:** does not apply.
    """
    if name not in PROTOCOLS:
        raise ArgumentError(f"`protocol` (={name!r}) must be one of {', '.join(PROTOCOLS)}")
    return Protocol(*name.split("/"))


def protocol_rotations(kind: str, num: int, *, train: bool, seed: int = 0) -> Tensor:
    """One rotation for each cloud of a split.

    Args:
        kind: ``"z"`` or ``"SO3"``.
        num: clouds of the split.
        train: the training split, or the test split.
        seed: of the draw, at least 0.

    Returns:
        Rotation matrices [num, 3, 3], float64.

    Raises:
        ArgumentError: ``kind`` is neither, or ``seed`` is negative.

    **Equivariance:** ``SO3`` is invariant in distribution to all rotations,
    ``z`` to those about the vertical axis.
    """
    if kind not in ("z", "SO3"):
        raise ArgumentError(f"`kind` (={kind!r}) must be 'z' or 'SO3'")
    check_count("seed", seed, 0)
    # Neighbouring seeds start unrelated streams in torch's Mersenne twister.
    generator = torch.Generator().manual_seed(2 * seed + (0 if train else 1))
    if kind == "SO3":
        return random_rotations(num, generator=generator, dtype=torch.float64)
    share = torch.rand(num, generator=generator, dtype=torch.float64, device="cpu")
    angle = 2 * math.pi * share
    cos, sin, zero, one = angle.cos(), angle.sin(), angle.new_zeros(num), angle.new_ones(num)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, one]
    return torch.stack(rows, 1).view(num, 3, 3)

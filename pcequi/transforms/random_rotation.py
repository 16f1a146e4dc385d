"""The transform that turns a cloud, and all its vectors with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pcequi.clouds import check_cloud
from pcequi.errors import ArgumentError, DataError, ShapeError, check_count
from pcequi.rotations import random_rotations
from pcequi.transforms.checks import points_of_one_cloud

AXES = ("any", "x", "y", "z")


class RandomRotation(BaseTransform):
    """Turn each cloud about the origin by a random rotation of its own, and its normals with it.

    PyG's ``RandomRotate`` turns ``pos`` alone: ``data.normal``, which ``BuildPoseGraph`` reads,
    stays behind. Three of them, one for each axis, are not uniform over all rotations either.

    Args:
        axis: "any": uniform over all rotations (Haar); "x", "y" or "z": by a uniform angle about
            that axis.
        vectors: names of further attributes [..., 3] of ``data`` that turn; ``normal`` does so
            anyway, where there is one.
        seed: for the same rotations whenever a data set is made, as with ``pre_transform``. None
            takes torch's own random numbers: for augmentation, as a ``DataLoader`` seeds them
            anew for each worker and epoch.

    Raises:
        ArgumentError: ``axis`` is none of these, or ``seed`` is negative.
        DataError: ``data`` has no ``pos``, lacks one of ``vectors``, is a batch of several
            clouds, or has a pose graph.
        ShapeError: an attribute that is to be turned has no vectors.

    **Equivariance:** points and vectors turn together; the distribution of the result stays when
    the cloud is turned first, about ``axis``.
    """

    def __init__(self, axis: str = "any", vectors: Sequence[str] = (), seed: int | None = None):
        if axis not in AXES:
            raise ArgumentError(f"`axis` (={axis!r}) must be one of {', '.join(AXES)}")
        self.axis = axis
        self.vectors = (vectors,) if isinstance(vectors, str) else tuple(vectors)
        self.seed = check_count("seed", seed, 0, none=True)
        self.generator = None if seed is None else torch.Generator("cpu").manual_seed(self.seed)

    def forward(self, data: Data) -> Data:
        check_cloud(points_of_one_cloud(data, moved=True), "data.pos")
        turn = self._draw()
        for name in dict.fromkeys(("pos", "normal", *self.vectors)):
            value = data.get(name)
            if value is None and name != "normal":
                raise DataError(f"`data.{name}` (=None) is to be turned; leave it out of `vectors`")
            if value is not None:
                data[name] = _turned(value, turn, name)
        return data

    def _draw(self) -> Tensor:
        if self.axis == "any":
            return random_rotations(1, generator=self.generator, dtype=torch.float64)[0]
        draw = torch.rand((), generator=self.generator, dtype=torch.float64, device="cpu")
        angle = 2 * math.pi * float(draw)
        first = {"x": 1, "y": 2, "z": 0}[self.axis]
        second, turn = (first + 1) % 3, torch.eye(3, dtype=torch.float64, device="cpu")
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[second, first], turn[first, second] = math.sin(angle), -math.sin(angle)
        return turn

    def __repr__(self) -> str:
        return f"RandomRotation(axis={self.axis!r}, vectors={self.vectors}, seed={self.seed})"


def _turned(value, turn: Tensor, name: str) -> Tensor:
    vectors = isinstance(value, Tensor) and value.dim() > 0 and value.shape[-1] == 3
    if not vectors or not value.is_floating_point():
        seen = (
            f"{list(value.shape)}, {value.dtype}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise ShapeError(f"`data.{name}` (={seen}) must be floating vectors [..., 3] to be turned")
    return (value.double() @ turn.to(value.device).T).to(value.dtype)

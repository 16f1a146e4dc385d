"""The test shapes that a network gets most wrong, kept so that they can be looked at."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcequi.errors import ShapeError, check_count
from pcequi.training.files import write_json
from pcequi.training.splits import Split

__all__ = ["HARDEST", "hardest_shapes", "save_hardest"]

#: Name of the file in the folder of a run.
HARDEST = "hardest.json"


def hardest_shapes(
    logits: Tensor, split: Split, *, num: int = 12, num_points: int = 700
) -> list[dict]:
    """The worst mistakes: shapes whose own class is thought the least likely.

    Where there are fewer mistakes than ``num``, the right answers that were the
    least sure follow.

    Args:
        logits: of the test clouds [n, num_classes].
        split: the test clouds.
        num: shapes to keep, at least 1.
        num_points: points of each to keep at most, evenly through their order.

    Returns:
        For each shape ``shape``, its place in the split; ``name``, of its file,
        or None; ``true`` and ``guess``, classes, with ``probability_true`` and
        ``probability_guess``; ``right``; ``points``, see ``pack_points``.

    Raises:
        ArgumentError: ``num`` or ``num_points`` is below 1.
        ShapeError: ``logits`` do not fit the split.

    **Equivariance:** as the logits; points are in the pose in which they are stored.
    """
    for name, value in (("num", num), ("num_points", num_points)):
        check_count(name, value)
    if tuple(logits.shape) != (len(split), len(split.classes)):
        raise ShapeError(
            f"`logits` (={list(logits.shape)}) must have a row for each of the {len(split)} clouds "
            f"and a column for each of the {len(split.classes)} classes"
        )
    share = logits.double().softmax(1)
    guess = share.argmax(1)
    own = share[torch.arange(len(split)), split.labels]
    right = guess == split.labels
    order = (own + 2.0 * right).argsort(stable=True)[:num]
    names = split.names or [None] * len(split)
    return [
        {
            "shape": row,
            "name": names[row],
            "true": split.classes[int(split.labels[row])],
            "guess": split.classes[int(guess[row])],
            "right": bool(right[row]),
            "probability_true": round(float(own[row]), 4),
            "probability_guess": round(float(share[row, guess[row]]), 4),
            "points": pack_points(split.clouds[row], num_points),
        }
        for row in order.tolist()
    ]


def pack_points(pos: Tensor, num_points: int) -> str:
    """Some points [N, 3] of a cloud as base64 of signed bytes, 127 the largest radius.

    **Equivariance:** turns with the points, to the 8 bits that are kept.
    """
    rows = np.linspace(0, len(pos) - 1, min(num_points, len(pos))).round().astype(int)
    points = pos.detach().cpu().double().numpy()[rows]
    points = points - (points.min(0) + points.max(0)) / 2
    radius = np.sqrt((points**2).sum(1).max()) or 1.0
    return base64.b64encode(np.rint(127 * points / radius).astype(np.int8).tobytes()).decode()


def save_hardest(folder: Path, protocol: str, logits: Tensor, split: Split) -> None:
    """Write ``hardest_shapes`` of a protocol into the folder of a run.

    **Equivariance:** as ``hardest_shapes``.
    """
    write_json(folder / HARDEST, {"protocol": protocol, "shapes": hardest_shapes(logits, split)})

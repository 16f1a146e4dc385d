"""Trained networks that come with pcequi, each with its card.

Weights lie beside this file in half precision (safetensors, below 5 MiB each),
settings and classes as JSON, and what they were trained on, how well they do and
where they fail as a card in Markdown.
"""

from __future__ import annotations

import os
from pathlib import Path

from pcequi.errors import ArgumentError
from pcequi.training.checkpoints import Checkpoint, load_checkpoint

__all__ = ["FOR_SCANS", "TOGETHER", "find_network", "load_network", "network_card", "network_names"]

FOLDER = Path(__file__).parent

#: Networks of the same classes whose mistakes differ: the mean of their probabilities is
#: right more often than any of them. The first two share their graphs. What ``pcequi predict``
#: asks where no network is named.
TOGETHER = ("modelnet40-large", "modelnet40-large-scan", "modelnet40-pairs")

#: The two of these that were trained on versions like scans: a little better where clouds are
#: noisy, uneven or partly hidden, a little worse on whole ones, and faster; ``pcequi predict
#: --scans``.
FOR_SCANS = ("modelnet40-large-scan", "modelnet40-pairs")


def network_names() -> list[str]:
    """The networks that come with this installation.

    **Equivariance:** does not apply.
    """
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_network(name: str = "modelnet40") -> Checkpoint:
    """A trained network: its model, in single precision and ``eval()`` mode, and its classes.

    Args:
        name: one of ``network_names()``.

    Raises:
        ArgumentError: no such network.
        FileError: its files are damaged.

    **Equivariance:** networks are invariant to rotation, shift and the order of the points, and
    ``predict_cloud`` to scale as well; their cards give figures.
    """
    checkpoint = load_checkpoint(_path(name))
    checkpoint.model.float()
    return checkpoint


def find_network(place: str | Path) -> Checkpoint:
    """A trained network by the folder of its run, its file, or the name under which it
    comes with pcequi; a folder of that name comes first.

    Raises:
        FileError: nothing is there, or its files are damaged.

    **Equivariance:** as the network.
    """
    if str(place) in network_names() and not os.path.exists(place):
        return load_network(str(place))
    return load_checkpoint(place)


def network_card(name: str = "modelnet40") -> str:
    """The card of a network, Markdown: data, protocol, accuracy by class, limits.

    Raises:
        ArgumentError: no such network.

    **Equivariance:** does not apply.
    """
    return _path(name).with_suffix(".md").read_text(encoding="utf-8")


def _path(name: str) -> Path:
    if name not in network_names():
        raise ArgumentError(f"`name` (={name!r}) must be one of {network_names()}")
    return FOLDER / f"{name}.safetensors"

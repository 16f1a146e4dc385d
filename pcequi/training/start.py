"""A network that begins with the weights of another: fine-tuning, and other budgets."""

from __future__ import annotations

from pathlib import Path

import torch

from pcequi.errors import ArgumentError
from pcequi.models import GroupConvClassifier

__all__ = ["start_from"]

# The last layer of the head, which names classes.
_NAMES = ("head.4.weight", "head.4.bias")


def start_from(model: GroupConvClassifier, classes: list[str], place: str | Path) -> bool:
    """Give a network the weights of a trained one with the same layers.

    Budgets of representatives, radii and the number of points may differ: weights do not
    depend on them. Where the classes differ, the last layer of the head stays as it is.

    Args:
        model: gets the weights.
        classes: names of its logits.
        place: name of a network that comes with pcequi, folder of a run, or file.

    Returns:
        Whether the classes are the same, so that all weights were taken.

    Raises:
        ArgumentError: layers of other widths or bases; the message names the weight.
        FileError: nothing is there, or its files are damaged.

    **Equivariance:** as the networks.
    """
    from pcequi.networks import find_network  # which reads checkpoints by this package

    found = find_network(place)
    given, own = found.model.state_dict(), model.state_dict()
    same = list(found.classes) == list(classes)
    for name in sorted(own.keys() | given.keys()):
        if name in _NAMES and not same:
            given[name] = own[name]
            continue
        shapes = [list(part[name].shape) if name in part else "absent" for part in (given, own)]
        if shapes[0] != shapes[1]:
            raise ArgumentError(
                f"`start` (={str(place)!r}) is another kind of network: its weight {name} is "
                f"{shapes[0]}, not {shapes[1]}; give the preset with which it was trained, or one "
                "that differs from it in its budgets alone"
            )
    with torch.no_grad():
        model.load_state_dict({name: given[name].to(own[name].dtype) for name in own})
    return same

"""A network that begins with the weights of another: fine-tuning, and other budgets."""

from __future__ import annotations

from pathlib import Path

import torch

from pcequi.errors import ArgumentError
from pcequi.models import GroupConvClassifier
from pcequi.models.classifier import LAST_LAYER, check_head
from pcequi.models.presets import PRESETS
from pcequi.training.checkpoints import Checkpoint

__all__ = ["start_from"]


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
        ArgumentError: no head; layers of other widths or bases, whose weight is named.
        FileError: nothing is there, or its files are damaged.

    **Equivariance:** as the networks.
    """
    from pcequi.networks import find_network  # which reads checkpoints by this package

    check_head(model)
    found = find_network(place)
    given, own = found.model.state_dict(), model.state_dict()
    same = list(found.classes) == list(classes)
    for name in sorted(own.keys() | given.keys()):
        if name in LAST_LAYER and not same:
            given[name] = own[name]
            continue
        shapes = [list(part[name].shape) if name in part else "absent" for part in (given, own)]
        if shapes[0] != shapes[1]:
            fits = ", ".join(_presets_of(found)) or "no preset of this version"
            raise ArgumentError(
                f"`start` (={str(place)!r}) is another kind of network: its weight {name} is "
                f"{shapes[0]}, not {shapes[1]}; layers like its own have: {fits}"
            )
    with torch.no_grad():
        model.load_state_dict({name: given[name].to(own[name].dtype) for name in own})
    return same


def _presets_of(found: Checkpoint) -> list[str]:
    """The presets whose layers are those of a network."""

    def shapes(model):
        return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}

    num = len(found.classes)
    with torch.random.fork_rng(devices=[]):
        networks = {name: GroupConvClassifier.from_preset(name, num) for name in PRESETS}
    return [name for name, one in networks.items() if shapes(one) == shapes(found.model)]

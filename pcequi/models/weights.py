"""Weights from elsewhere: compared with the settings beside them before anything is built."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pcequi.errors import ArgumentError, DataError
from pcequi.pose_graph import Level

__all__ = ["check_own_weights", "check_weights"]


def check_weights(network: type, settings: dict, tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors are the weights of the network that settings describe.

    A few bytes of settings can describe a network of any size; nothing of it is
    allocated here, so that a small file cannot fill the memory.

    Args:
        network: a class that takes the settings as arguments.
        settings: plain values, as its ``settings``.
        tensors: weights by name.

    Raises:
        DataError: a weight is missing, is one too many, or has another shape.
        PcequiError, LookupError, TypeError, ValueError, RuntimeError: the settings
            describe no network at all.

    **Equivariance:** does not apply.
    """
    # Made before the tensors without storage: levels keep constants that must have some.
    levels = [Level.from_dict(level) for level in settings["levels"]]
    with torch.device("meta"):
        wanted = network(**{**settings, "levels": levels}).state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        where = "missing" if name in wanted else "not one of the network's"
        raise DataError(f"the weight {name!r} is {where}; copy both files again")
    for name, value in wanted.items():
        if value.shape != tensors[name].shape:
            raise DataError(
                f"the weight {name!r} (={list(tensors[name].shape)}) must be {list(value.shape)}; "
                "copy both files again"
            )


def check_own_weights(model: nn.Module) -> None:
    """Whether a network has the layers that its settings say, so that what is saved can be read.

    Raises:
        ArgumentError: a layer was exchanged.

    **Equivariance:** does not apply.
    """
    try:
        check_weights(type(model), model.settings, model.state_dict())
    except DataError as error:
        reason = str(error).rpartition("; ")[0]
        raise ArgumentError(
            f"`model` has other layers than its settings say ({reason}); for other classes make it "
            "anew: from_preset(name, num_classes=...) keeps what a trained network has learned"
        ) from error

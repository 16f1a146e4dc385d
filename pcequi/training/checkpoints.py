"""Trained networks on disk: weights as safetensors, all the rest as JSON.

Reading one runs no code from it: the JSON names settings of pcequi's own
classes, and safetensors holds nothing but numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from pcequi import __version__
from pcequi.errors import ArgumentError, FileError, PcequiError
from pcequi.files import check_reach, expanded, make_folder, sha256_of
from pcequi.models import GroupConvClassifier
from pcequi.models.classifier import check_head
from pcequi.models.weights import check_own_weights, check_weights
from pcequi.training.files import read_json, read_tensors, write_json, write_tensors

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = "pcequi.classifier"
# Raise when a checkpoint of the new code cannot be read by the old.
VERSION = 1
_REMEDY = "copy model.safetensors and model.json again, or train again"


@dataclass
class Checkpoint:
    """A network with what is needed to use it.

    Attributes:
        model: in ``eval()`` mode, on the CPU.
        classes: names of the logits.
        extra: what was given to ``save_checkpoint``: data set, protocol, seed...

    **Equivariance:** as the network.
    """

    model: GroupConvClassifier
    classes: list[str]
    extra: dict = field(default_factory=dict)


def save_checkpoint(
    path: str | Path, model: nn.Module, classes: Sequence[str], extra: dict | None = None
) -> Path:
    """Write ``model.safetensors`` and ``model.json``.

    Args:
        path: a folder (made if needed), or a file name ending in
            ``.safetensors``, beside which the ``.json`` goes.
        model: a ``GroupConvClassifier``.
        classes: name of each logit.
        extra: plain values for JSON.

    Returns:
        The path of the weights.

    Raises:
        ArgumentError: the number of ``classes`` is not that of the logits, or the network has
            no head (``save_pretrained`` keeps it) or other layers than its settings say.

    **Equivariance:** does not apply.
    """
    check_head(model)
    if len(classes) != model.settings["num_classes"]:
        raise ArgumentError(
            f"`classes` (={len(classes)} names) must be as many as the network's logits "
            f"(={model.settings['num_classes']})"
        )
    check_own_weights(model)
    weights = _weights_path(Path(path))
    make_folder(weights.parent)
    write_tensors(weights, model.state_dict())
    write_json(
        weights.with_suffix(".json"),
        {
            "format": FORMAT,
            "version": VERSION,
            "pcequi": __version__,
            "settings": model.settings,
            "classes": list(classes),
            "extra": extra or {},
            "sha256": sha256_of(weights),
        },
    )
    return weights


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what ``save_checkpoint`` wrote.

    Args:
        path: the folder, the ``.safetensors`` or the ``.json``.

    Raises:
        FileError: a file is missing, damaged, or of a later version.

    **Equivariance:** does not apply.
    """
    weights = _weights_path(Path(path))
    about = weights.with_suffix(".json")
    folder = weights.parent
    if not os.path.exists(about) and os.path.exists(folder / "config.json"):
        raise FileError(
            f"`path` (={str(path)!r}) is a folder of `save_pretrained`; read it with "
            "`GroupConvClassifier.from_pretrained`, and write it with `training.save_checkpoint`, "
            "which keeps the names of the classes too"
        )
    nothing = not os.path.exists(about) and not os.path.exists(weights)
    if nothing:
        check_reach(about)
    if nothing and os.path.exists(folder / "state.safetensors"):
        raise FileError(
            f"`path` (={str(path)!r}) is a run that has not ended; end it with `pcequi train "
            f"--resume --run {folder}`"
        )
    if nothing:
        raise FileError(
            f"`path` (={str(path)!r}) holds no checkpoint ({about.name} and {weights.name}); "
            "give the folder of a finished run, or train one with `pcequi train`"
        )
    header = read_json(about, _REMEDY)
    if header.get("format") != FORMAT:
        raise FileError(f"{about} is not a checkpoint of pcequi; {_REMEDY}")
    if header.get("version") != VERSION:
        raise FileError(
            f"{about} has version {header.get('version')!r}, written by pcequi "
            f"{header.get('pcequi')!r}; this pcequi {__version__} reads version {VERSION}: "
            "install the one that wrote it"
        )
    tensors, _ = read_tensors(weights, _REMEDY)
    if header.get("sha256") != sha256_of(weights):
        raise FileError(f"{weights} does not belong to {about.name} beside it; {_REMEDY}")
    try:
        check_weights(GroupConvClassifier, header["settings"], tensors)
        model = GroupConvClassifier.from_settings(header["settings"])
        classes = [str(name) for name in header["classes"]]
        extra = dict(header.get("extra") or {})
        dtype = tensors["head.0.weight"].dtype
        model.to(dtype).load_state_dict(tensors)
    except (PcequiError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileError(f"{about} describes no network that fits ({error}); {_REMEDY}") from error
    if len(classes) != header["settings"]["num_classes"]:
        raise FileError(f"{about} names {len(classes)} classes, not one a logit; {_REMEDY}")
    return Checkpoint(model.eval(), classes, extra)


def _weights_path(path: Path) -> Path:
    path = expanded(path)
    if path.suffix in (".safetensors", ".json"):
        return path.with_suffix(".safetensors")
    return path / "model.safetensors"

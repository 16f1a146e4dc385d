"""Files written whole or not at all, and read with errors that help."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pcequi.errors import FileError
from pcequi.files import expanded, write_bytes

__all__ = [
    "holds_run",
    "read_json",
    "read_tensors",
    "run_folder",
    "write_json",
    "write_tensors",
    "write_text",
]


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and move it into place, in UTF-8; bytes in names of files that are
    no text are written out (``\\udcfc``).

    Raises:
        FileError: the disk is full, or the folder cannot be written.

    **Equivariance:** does not apply.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Write JSON, indented, with a newline at the end.

    Raises:
        FileError: as ``write_text``.

    **Equivariance:** does not apply.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def run_folder(run: str | Path) -> Path:
    """The folder of a run, by its name or that of its ``model.safetensors`` or ``model.json``.

    **Equivariance:** does not apply.
    """
    path = expanded(run)
    named = path.name in ("model.safetensors", "model.json") and os.path.isfile(path)
    return path.parent if named else path


def holds_run(folder: Path) -> bool:
    """Whether there are weights, or a training's state, in a folder, or, where they were lost,
    what only runs have side by side: other programs have settings of this name, too.

    **Equivariance:** does not apply.
    """
    if any(os.path.isfile(folder / name) for name in ("model.safetensors", "state.safetensors")):
        return True
    beside = ("data.json", "metrics.jsonl", "report.json", "model.json")
    return os.path.isfile(folder / "settings.json") and any(
        os.path.isfile(folder / name) for name in beside
    )


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object.

    Raises:
        FileError: the file is missing or damaged; the message ends in ``remedy``.

    **Equivariance:** does not apply.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise FileError(f"{path} is damaged (not a JSON object); {remedy}")
    return value


def write_tensors(path: Path, tensors: dict[str, Tensor], note: dict | None = None) -> None:
    """Write a safetensors file; ``note`` goes into its header, as JSON, and a checksum.

    Raises:
        FileError: as ``write_text``.

    **Equivariance:** does not apply.
    """
    # Copies: safetensors refuses tensors that share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    # One entry: safetensors writes several in any order, and files should not vary.
    note = {**(note or {}), "crc32": _sum(plain, note or {})}
    write_bytes(path, save(plain, {"note": json.dumps(note)}))


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict]:
    """Read a safetensors file and its note.

    Raises:
        FileError: the file is missing or damaged; the message ends in ``remedy``.

    **Equivariance:** does not apply.
    """
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get("note", "{}"))
            # Copies: what is mapped would change, or end the process, with the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        if not isinstance(note, dict):
            raise ValueError("its note is not a JSON object")
        if note.pop("crc32", None) != _sum(tensors, note):
            raise ValueError("its checksum differs")
        return tensors, note
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing; {remedy}") from error
    except (OSError, SafetensorError, ValueError, RecursionError, AttributeError) as error:
        raise FileError(f"{path} is damaged ({error}); {remedy}") from error


def _sum(tensors: dict[str, Tensor], note: dict) -> int:
    """CRC-32 of names, types, shapes and values, and of the note."""
    total = zlib.crc32(json.dumps(note).encode())
    for name, value in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), total)
        total = zlib.crc32(value.contiguous().flatten().view(torch.uint8).numpy(), total)
    return total

"""Files written whole or not at all, and read with errors that help."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pcequi.errors import FileError

__all__ = ["read_json", "read_tensors", "write_json", "write_tensors", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and move it into place.

    **Equivariance:** does not apply.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    os.replace(partial, path)


def write_json(path: Path, value) -> None:
    """Write JSON, indented, with a newline at the end.

    **Equivariance:** does not apply.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


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
    except ValueError as error:
        raise FileError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise FileError(f"{path} is damaged (not a JSON object); {remedy}")
    return value


def write_tensors(path: Path, tensors: dict[str, Tensor], note: dict | None = None) -> None:
    """Write a safetensors file; ``note`` goes into its header, as JSON.

    **Equivariance:** does not apply.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    # Copies: safetensors refuses tensors that share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(plain, partial, {"note": json.dumps(note)} if note is not None else None)
    os.replace(partial, path)


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict]:
    """Read a safetensors file and its note.

    Raises:
        FileError: the file is missing or damaged; the message ends in ``remedy``.

    **Equivariance:** does not apply.
    """
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get("note", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, note
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing; {remedy}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise FileError(f"{path} is damaged ({error}); {remedy}") from error

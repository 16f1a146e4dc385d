"""Reading parts of a safetensors file by their place, each checked before it is used.

The format (https://github.com/huggingface/safetensors): eight bytes with the
length of a JSON header, the header, and the tensors one after the other.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from pcequi.errors import FileError

__all__ = [
    "DTYPES",
    "KINDS",
    "StoredTensor",
    "damaged",
    "opened",
    "read_header",
    "read_into",
    "stamp_of",
]

_TYPES = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "F64": "<f8", "F32": "<f4", "F16": "<f2"}
#: NumPy's types by safetensors' names for them, and torch's by NumPy's.
KINDS = {name: np.dtype(kind) for name, kind in _TYPES.items()}
DTYPES = {kind: torch.from_numpy(np.empty(0, kind)).dtype for kind in KINDS.values()}
# Twenty tensors take two thousand bytes; a length of a gigabyte is damage.
_LARGEST_HEADER = 1 << 20
# Seeking and reading in one call to the system.
_AT_ONCE = hasattr(os, "preadv")


@dataclass
class StoredTensor:
    """Where a tensor lies in the file.

    **Equivariance:** does not apply.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    bytes: int
    row_bytes: int


def read_header(file: BinaryIO, path: Path) -> tuple[dict[str, StoredTensor], dict]:
    """Where the tensors lie, by name, and the note of a safetensors file.

    Raises:
        FileError: the header is damaged, or does not fit the size of the file.

    **Equivariance:** does not apply.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 0 < length <= min(size - 8, _LARGEST_HEADER):
        raise damaged(path, "it has no header")
    try:
        header = json.loads(file.read(length))
        note = json.loads((header.pop("__metadata__", None) or {}).get("pcequi", "{}"))
        tensors = {}
        for name, value in header.items():
            kind, shape = value["dtype"], tuple(value["shape"])
            start, stop = value["data_offsets"]
            row = prod(shape[1:]) * KINDS[kind].itemsize
            if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
                raise ValueError(f"{name!r} has a size that is none")
            if not shape or stop - start != shape[0] * row:
                raise ValueError(f"{name!r} has the shape {list(shape)} and {stop - start} bytes")
            tensors[name] = StoredTensor(kind, shape, 8 + length + start, stop - start, row)
        if not isinstance(note, dict):
            raise ValueError("its note is no object")
        spans = sorted((t.start, t.start + t.bytes) for t in tensors.values())
        spans = [(0, 8 + length), *spans, (size, size)]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise damaged(path, f"its header cannot be read: {error}") from error
    if any(stop != start for (_, stop), (start, _) in pairwise(spans)):
        raise damaged(path, f"its {size} bytes are not those that its header announces")
    return tensors, note


def stamp_of(file: BinaryIO) -> tuple[int, ...]:
    """What tells this file from another that takes its place, or from its longer self.

    **Equivariance:** does not apply.
    """
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def opened(path: Path) -> BinaryIO:
    """The file, open for reading.

    Raises:
        FileError: it cannot be opened.

    **Equivariance:** does not apply.
    """
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise damaged(path, error.strerror) from error


def read_into(file: BinaryIO, start: int, into: memoryview, path: Path) -> None:
    """Fill some bytes from a place in the file.

    Raises:
        FileError: the file ends too early, or cannot be read.

    **Equivariance:** does not apply.
    """
    got, wanted = 0, len(into)
    try:
        # The system may stop early, and goes on where it stopped.
        while got < wanted:
            if _AT_ONCE:
                more = os.preadv(file.fileno(), [into[got:] if got else into], start + got)
            else:
                file.seek(start + got)
                more = file.readinto(into[got:])
            if not more:
                raise damaged(path, "it ends too early")
            got += more
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise damaged(path, error.strerror) from error


def damaged(path: Path, reason: object) -> FileError:
    """The error to raise for a file.

    **Equivariance:** does not apply.
    """
    return FileError(f"{path} is missing or damaged ({reason}); precompute again, which repairs it")

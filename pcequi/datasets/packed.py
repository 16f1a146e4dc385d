"""The packed form of ModelNet: all clouds in one NumPy archive of 12-bit grids.

The arrays, for ``train`` and ``test``: ``{split}_low`` and ``{split}_high``, uint8
``[n, 3, N]``, the two bytes of a coordinate between 0 and 4095 that stands for -1
to 1; ``{split}_label`` uint8 ``[n]``; and ``classes``, the names that labels refer
to. The file is an ``.npz``, perhaps compressed as ``.npz.xz``.
"""

from __future__ import annotations

import io
import lzma
from pathlib import Path

import numpy as np

from pcequi.datasets.archives import brief
from pcequi.errors import DataError, FileError

__all__ = ["read_packed"]

# Unpacked; all of ModelNet40 takes 76 million bytes.
_LARGEST = 1 << 31


def read_packed(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read one split of a packed file.

    Args:
        path: The ``.npz`` or ``.npz.xz`` file.
        split: ``"train"`` or ``"test"``.

    Returns:
        The grid, uint16 ``[n, N, 3]`` (decode one cloud with
        ``cloud / 4095 * 2 - 1``); labels, int64 ``[n]``; names of the classes.

    Raises:
        FileError: The file is missing, damaged, or lacks an array.
        DataError: Arrays do not fit together, or a label is outside the classes.

    **Equivariance:** does not apply.
    """
    names = [f"{split}_low", f"{split}_high", f"{split}_label", "classes"]
    try:
        content = path.read_bytes()
        if path.suffix == ".xz":
            # As a whole: NumPy seeks to and fro, which a stream of xz would
            # answer by decompressing from the start each time.
            content = _unpack(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if missing:
                raise FileError(
                    f"`source` (={str(path)!r}) lacks the arrays {', '.join(missing)}: "
                    "it is not a packed ModelNet file"
                )
            if sum(info.file_size for info in archive.zip.infolist()) > _LARGEST:
                raise ValueError(f"it would unpack to more than {_LARGEST} bytes")
            low, high, labels, classes = (archive[name] for name in names)
        kinds = [low.dtype, high.dtype, labels.dtype.kind in "iu", classes.dtype.kind, classes.ndim]
        if kinds != [np.uint8, np.uint8, True, "U", 1]:
            raise ValueError("its arrays are not of the types of a packed file")
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"`source` (={str(path)!r}) cannot be read: {brief(error.strerror or error)}"
        ) from error
    except Exception as error:  # zipfile, zlib, lzma and NumPy each fail in their own way
        raise FileError(
            f"`source` (={str(path)!r}) is damaged or no packed file ({brief(error)}): copy it "
            "again"
        ) from error
    wanted = (len(labels), 3, low.shape[-1] if low.ndim == 3 else 0)
    if labels.ndim != 1 or low.shape != wanted or high.shape != wanted or not wanted[2]:
        raise DataError(
            f"`source` (={str(path)!r}) has {split} arrays of shapes {low.shape}, {high.shape} and "
            f"{labels.shape}, not [n, 3, N], [n, 3, N] and [n]: copy it again"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        raise DataError(
            f"`{split}_label` (={int(labels[outside[0]])}) of cloud {int(outside[0])} is outside "
            f"the {len(classes)} classes: the source {str(path)!r} is not usable"
        )
    grid = (high.astype(np.uint16) << 8) | low
    return grid.transpose(0, 2, 1), labels.astype(np.int64), [str(name) for name in classes]


def _unpack(content: bytes) -> bytes:
    """Decompress, as far as a sensible file goes."""
    machine = lzma.LZMADecompressor()
    content = machine.decompress(content, max_length=_LARGEST)
    if not machine.eof:
        raise ValueError(f"it ends too early, or unpacks to more than {_LARGEST} bytes")
    return content

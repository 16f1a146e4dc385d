"""Clouds as text: a point a line, columns separated by spaces, commas or semicolons."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np

__all__ = ["read_text"]

# Lines before the first point: a number of points, a comment, names of columns.
_HEADERS = 3
_COUNT = re.compile(r"\s*\d+\s*")
# 0,25 followed by another column: is the comma a decimal one, or does it separate?
_DECIMAL_COMMA = re.compile(r"\d,\d+(?:[eE][-+]?\d+)?[ \t]+[-+\d]")
_BESIDE_SEMICOLONS = re.compile(r"\d,\d[^\n]*;|;[^\n]*\d,\d")


def read_text(path: Path) -> np.ndarray:
    """Read a table of numbers.

    Lines that start with ``#`` or ``//``, and what follows a ``#``, are left out. At the
    top there may be a number of points, a comment or the names of the columns, in up to
    three lines.

    Args:
        path: The file, UTF-8.

    Returns:
        float64 ``[lines, columns]``; no lines: ``[0, 0]``.

    Raises:
        ValueError: A line is no row of numbers, or is longer or shorter than the first.
            The caller names the file.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    start = _first_row(text)
    sample = text[start : start + 65536]
    if _DECIMAL_COMMA.search(sample) or _BESIDE_SEMICOLONS.search(sample):
        raise ValueError(
            "its numbers seem to have decimal commas; write points, and separate columns by spaces"
        )
    body = text[start:].replace(",", " ").replace(";", " ")
    if "//" in body:
        body = re.sub(r"(?m)^\s*//.*$", "", body)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input contained no data")
        try:
            table = np.loadtxt(io.StringIO(body), dtype=np.float64, comments="#", ndmin=2)
        except ValueError as error:
            raise ValueError(_bad_line(text, start) or str(error)) from error
    return table if table.size else np.zeros((0, 0))


def _bad_line(text: str, start: int) -> str | None:
    """What the first line that does not fit looks like: NumPy counts rows, people lines."""
    columns = None
    for number, line in enumerate(text[start:].splitlines(), text.count("\n", 0, start) + 1):
        row = line.partition("#")[0].strip()
        if not row or row.startswith("//"):
            continue
        words = re.split(r"[\s;,]+", row.strip(" \t,;"))
        columns = columns or len(words)
        if not _numbers_in(row) or len(words) != columns:
            return f"line {number} is {line[:40]!r}, and no row of {columns} numbers"
    return None


def _first_row(text: str) -> int:
    """Where the first line of numbers starts; 0 if it is not near the top."""
    place = headers = 0
    counted = False
    while place < len(text) and headers <= _HEADERS:
        end = text.find("\n", place)
        end = len(text) if end < 0 else end + 1
        line = text[place:end].partition("#")[0].strip()
        if line and not line.startswith("//"):
            if not counted and headers == 0 and _COUNT.fullmatch(line):
                counted = True  # of points, and often a comment follows
            elif _numbers_in(line):
                return place
            headers += 1
        place = end
    return 0


def _numbers_in(line: str) -> bool:
    words = re.split(r"[\s;,]+", line.strip(" \t,;"))
    try:
        return len(words) > 1 and all(float(word) is not None for word in words)
    except ValueError:
        return False

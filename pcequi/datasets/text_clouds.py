"""Clouds as text: a point a line, columns separated by spaces, commas or semicolons."""

from __future__ import annotations

import codecs
import io
import re
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from pcequi.datasets.column_names import pick_columns

__all__ = ["read_text"]

_COUNT = re.compile(r"\d{1,18}")
# "0.25", as spreadsheets may write numbers; names in quotes stay as they are.
_QUOTED = re.compile(r'"[ \t]*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[ \t]*"')
_QUOTED_COMMA = re.compile(r'"[ \t]*[-+]?\d+,\d+[ \t]*"')
# 0,25 followed by another column: is the comma a decimal one, or does it separate?
_DECIMAL_COMMA = re.compile(r"\d,\d+(?:[eE][-+]?\d+)?[ \t]+[-+\d]")
_BESIDE_SEMICOLONS = re.compile(r"\d,\d[^\n]*;|;[^\n]*\d,\d")
# 0,25,1,05: whole numbers have no such zeros, decimals have.
_LEADING_ZERO = re.compile(r"(?m)\d,0\d+(?=,|\s|$)")
# 1,,3: a cell without a number between others; and one that begins or ends a row.
_EMPTY = r"(?<=[,;])[ \t]*(?=[,;])"
_EMPTY_ENDS = rf"{_EMPTY}|(?m:^[ \t]*(?=[,;])|(?<=[,;])[ \t]*$)"
# 12,377.19 beside other columns, or parted by blanks that hold numbers together.
_THOUSANDS = re.compile(
    r"\d,\d{3}\.\d+[ \t]+[-+\d]|\d[ \t]+[-+]?\d{1,3},\d{3}\.\d|\d[\u00a0\u202f\u2009]\d"
)


def read_text(path: Path) -> np.ndarray:
    """Read a table of numbers.

    Lines that start with ``#`` or ``//``, and what follows a ``#``, are left out. At the
    top there may be the number of points and a line after it, lines without any number, and the
    numbers of the columns, as pandas writes them over columns without names. A cell between two
    commas or semicolons that holds nothing is NaN; rows of such cells alone are left out.
    Where the last of them, comment or not, names all columns, they are picked by these names, see
    ``column_names.pick_columns``. Numbers may stand in double quotes.

    Args:
        path: The file, in UTF-8, UTF-16 with its mark, or Windows' cp1252.

    Returns:
        float64 ``[lines, columns]``; no lines: ``[0, 0]``.

    Raises:
        ValueError: A line is no row of numbers, or is longer or shorter than the first, or
            there are fewer than announced or none, or its numbers have decimal commas or thousands
            separators, or columns 1 to 3 are no coordinates and nothing says which are. The
            caller names the file.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    text = _decoded(path.read_bytes())
    if '"' in text:
        if _QUOTED_COMMA.search(text):
            raise ValueError("its numbers seem to have decimal commas; write points")
        text = _QUOTED.sub(r"\1", text)
    start, announced, above = _first_row(text)
    sample = text[start : start + 65536]
    if _THOUSANDS.search(sample):
        raise ValueError("its numbers seem to have thousands separators; write them without")
    doubled = "." not in sample and _LEADING_ZERO.search(sample)
    if doubled or _DECIMAL_COMMA.search(sample) or _BESIDE_SEMICOLONS.search(sample):
        raise ValueError(
            "its numbers seem to have decimal commas; write points, and separate columns by spaces"
        )
    text = text[:start] + _filled(text[start:], above)
    body = text[start:].replace(",", " ").replace(";", " ")
    if "//" in body:
        body = re.sub(r"(?m)^\s*//.*$", "", body)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input contained no data")
        try:
            table = np.loadtxt(io.StringIO(body), dtype=np.float64, comments="#", ndmin=2)
        except ValueError as error:
            raise ValueError(_bad_line(text, start) or str(error)) from error
    if len(table) < announced:
        raise ValueError(f"it announces {announced} points and holds {len(table)}")
    return pick_columns(table, above) if table.size else np.zeros((0, 0))


def _filled(body: str, above: str) -> str:
    """Rows whose empty cells hold ``nan``: without it the cells behind them would move up. What
    begins or ends a row is a cell where the line above has as many."""
    body = re.sub(r"(?m)^[ \t]*[,;][ \t,;]*$", "", body)
    first = body.lstrip().partition("\n")[0]
    cells, names = (re.split("[,;]", line.strip("#/ \t\n")) for line in (first, above))
    named = len(cells) == len(names) and names[-1]
    return re.sub(_EMPTY_ENDS if named else _EMPTY, "nan", body)


def _decoded(content: bytes) -> str:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # Names of columns may be in cp1252: numbers are the same in all but UTF-16.
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            # Spreadsheets end lines by returns alone, where they write for a Macintosh.
            return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    raise ValueError("it is no text in UTF-8, UTF-16 or cp1252")


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


def _first_row(text: str) -> tuple[int, int, str]:
    """Where the lines of numbers start, how many the lines before announce, 0 for nothing, and
    the last of these lines."""
    place = announced = 0
    above = said = ""
    free = False  # whether anything may stand here: the line after a number of points
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end + 1
        line = text[place:end].partition("#")[0].strip()
        if line and not line.startswith("//"):
            said = said or line
            if _COUNT.fullmatch(line) and not announced:
                announced, free = int(line), True
            elif _counts_columns(line) and "." in text[end:].lstrip().partition("\n")[0]:
                free = False
            elif _numbers_in(line) or not (free or _wordy(line)):
                return place, announced, above
            else:
                free = False
        above = text[place:end] if text[place:end].strip() else above
        place = end
    if announced:
        raise ValueError(f"it announces {announced} points and holds 0")
    if said:
        raise ValueError(
            f"it holds no points: none of its lines, as {said[:40]!r}, is a row of numbers"
        )
    return 0, 0, ""


def _counts_columns(line: str) -> bool:
    """0,1,2 and so on: over fractions no point, but the names that pandas gives columns."""
    words = re.split(r"[\s;,]+", line)
    return len(words) > 2 and words == [str(number) for number in range(len(words))]


def _wordy(line: str) -> bool:
    """No word of it is a number: names of columns, not a row with a slip in it."""
    return not any(_is_number(word) for word in re.split(r"[\s;,]+", line))


def _numbers_in(line: str) -> bool:
    words = re.split(r"[\s;,]+", line.strip(" \t,;"))
    return len(words) > 1 and all(map(_is_number, words))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True

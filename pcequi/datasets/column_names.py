"""Which columns of a table hold coordinates and normals, by the names above them."""

from __future__ import annotations

import re

import numpy as np

__all__ = ["pick_columns"]

_UNIT = r"(?:[ _./](?:um|mm|cm|dm|m|km|in|ft))?"
_PLACES = r"pos|position|points?|coords?|coordinates?"
# x, pos_x, x_coord, x_mm; ParaView numbers its vectors: Points:0, Points_0.
_COORDINATE = re.compile(
    rf"(?:(?:p|{_PLACES})[ _.:]?)?([xyz])(?:[ _.]?(?:{_PLACES}))?{_UNIT}"
    rf"|(?:{_PLACES})[ _.:]?([0-2]){_UNIT}"
)
_NORMAL = re.compile(r"(?:n|normals?)[ _.:]?([xyz])|normals?[ _.:]?([0-2])")
_OTHER = re.compile(
    r"(?:(?:point|vertex|node|cell|gps)[ _.]?)?(?:ids?|index|idx|number|frame|time|timestamp|temp|"
    r"temperature|pressure|velocity|intensity|reflectance|reflectivity|labels?|class|classification|"
    r"category|ring|red|green|blue|alpha|rgba?|curvature|confidence)"
    r"(?:[_.:]?\d+|[ _./][a-z]{1,2})?"
)
# In the first of four columns or more: time, and the number of a row, which pandas leaves unnamed.
_FIRST = re.compile(r"t?")
# So many rows that count up by one are no coordinates by chance.
_ROWS = 4


def pick_columns(table: np.ndarray, above: str) -> np.ndarray:
    """Coordinates, and normals, from the columns that a line of names says.

    ``x``, ``y`` and ``z`` may be in capital letters, have a unit (``x_mm``, ``x [m]``) or stand
    beside a word for positions (``pos_x``, ``Points:0``); normals are ``nx``, ``normal_x`` or
    ``Normals:0``.

    Args:
        table: ``[lines, columns]``.
        above: The line, which may be a comment, or no names at all.

    Returns:
        ``[lines, 3]``, or ``[lines, 6]`` with normals; the table as it is where the line
        does not name each of x, y and z once, or names them in columns 1 to 3.

    Raises:
        ValueError: It names something else where coordinates would be read, or no x, and the
            first column numbers the rows.

    **Equivariance:** does not apply.
    """
    columns = table.shape[1]
    names, parted = _names(above, columns)
    parted = parted and not above.lstrip().startswith(("#", "/"))  # a comment may hold commas
    if len(names) != columns:
        _check_unnumbered(table)
        return table
    axes = [_axis(name) for name in names]
    places = _places(names, axes, ("x", "y", "z"))
    if places is None:
        if _are_others(names, axes, parted):
            shown = ", ".join(repr(name[:20]) for name in names[:4])
            raise ValueError(
                f"its columns are called {shown}{' ...' if columns > 4 else ''}, which does not "
                "say where x, y and z stand; call these columns x, y and z"
            )
        if axes[0] != "x":
            _check_unnumbered(table)
        return table
    places += _places(names, axes, ("nx", "ny", "nz")) or []
    return table if places == list(range(len(places))) else table[:, places]


def _check_unnumbered(table: np.ndarray) -> None:
    """No column before the coordinates numbers the points, as lists of surveyors do."""
    if len(table) < _ROWS or table.shape[1] < 4 or (np.diff(table[:, 0]) != 1).any():
        return
    raise ValueError(
        f"its first of {table.shape[1]} columns numbers the rows ({table[0, 0]:g}, "
        f"{table[1, 0]:g} ...), and no name says where x, y and z stand; leave it out, or call "
        "the columns x, y and z"
    )


def _names(above: str, columns: int) -> tuple[list[str], bool]:
    """The words of a line, and whether more than blanks part them."""
    above = above.strip(" \r\n#/").lower()
    if re.search(r"[;,]", above):
        return _trim(re.split(r"[;,]", above), columns), True
    if "\t" in above:
        names = _trim(above.split("\t"), columns)
        if len(names) == columns:
            return names, True
    # The unit stays with its name: x [m].
    return _trim(re.sub(r"\s+(?=[\[(])", "", above).split(), columns), False


def _trim(words: list[str], columns: int) -> list[str]:
    # Between commas a name may be empty: that of an index, say.
    names = [word.strip(" \t\"'") for word in words]
    while len(names) > columns and not names[-1]:
        names.pop()
    return names


def _bare(name: str) -> str:
    return re.sub(r"\s*[\[(].*", "", name)


def _axis(name: str) -> str:
    """What a name says: ``x`` ... ``nz``, or nothing."""
    name = _bare(name)
    if found := _COORDINATE.fullmatch(name):
        return found[1] or "xyz"[int(found[2])]
    if found := _NORMAL.fullmatch(name):
        return "n" + (found[1] or "xyz"[int(found[2])])
    return ""


def _places(names: list[str], axes: list[str], wanted: tuple[str, ...]) -> list[int] | None:
    for found in (names, axes):
        if all(found.count(axis) == 1 for axis in wanted):
            return [found.index(axis) for axis in wanted]
    return None


def _are_others(names: list[str], axes: list[str], parted: bool) -> bool:
    """Whether columns 1 to 3 are plainly no coordinates. Names that say nothing (a, b, c), and
    east and north, are taken for x, y, z in this order."""
    if axes[:3] == ["x", "y", "z"]:
        return False
    others = [
        bool(axis[:1] == "n" or _OTHER.fullmatch(_bare(name)))
        or (place == 0 and len(names) > 3 and bool(_FIRST.fullmatch(name)))
        for place, (name, axis) in enumerate(zip(names, axes))
    ][:3]
    if not parted:  # it may be a sentence
        return any(others) and all(other or axis for other, axis in zip(others, axes))
    return any(others) or {"x", "y", "z"} <= set(axes)

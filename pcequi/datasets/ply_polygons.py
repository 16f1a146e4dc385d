"""PLY files whose faces trimesh misreads: binary ones of different numbers of corners, and strips.

Format: Greg Turk, "The PLY Polygon File Format", 1994. trimesh takes all faces of a binary file to
be as long as the first, and finds wrong ones where the length fits by chance; strips of triangles,
an element ``tristrips``, it passes over, and files with bytes behind the last element it refuses.
"""

from __future__ import annotations

import struct
from itertools import islice
from pathlib import Path

import numpy as np

from pcequi.datasets.meshes import cut_fan, cut_strip
from pcequi.datasets.ply_headers import CORNERS, Element, read_header, split_rows

__all__ = ["read_polygons"]

_STRIPS = "tristrips"


def read_polygons(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Read a PLY with strips of triangles, or a binary one with lists of different lengths or
    bytes behind its last element; polygons are cut into fans.

    Args:
        path: The file.

    Returns:
        Vertices, float64 ``[V, 3]``, triangles, int64 ``[F, 3]``, and the normals of the
        vertices, float64 ``[V, 3]``, where the file has them; None of any other file.

    Raises:
        ValueError, OverflowError: The file is damaged. The caller names it.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    with path.open("rb") as file:
        header = read_header(file.read(1 << 16))
    if header is None:
        return None
    order, elements, start = header
    strips = any(element.name == _STRIPS and element.length > 0 for element in elements)
    if not order and not strips:
        return None
    content = path.read_bytes()
    if order:
        found, end, even = _binary(content, start, order, elements)
        if even and not strips and end == len(content):
            return None
        if end > len(content):
            raise ValueError(f"it announces {end} bytes and holds {len(content)}")
        _check_line_ends(content[start:], len(content) - end)
    else:
        found = _text(content[start:], elements)
    points, normals = (
        _stack(found.get("vertex", {}), names) for names in (("x", "y", "z"), ("nx", "ny", "nz"))
    )
    if points is None:
        raise ValueError("its vertices have no x, y and z")
    return points, np.concatenate([_cut(_faces(found, "face")), *_strips(found)]), normals


def _binary(
    content: bytes, place: int, order: str, elements: list[Element]
) -> tuple[dict[str, dict], int, bool]:
    """The columns of all elements, where they end, and whether all rows are of one length."""
    found, even = {}, True
    for element in elements:
        columns, end = _even(content, place, order, element)
        if columns is None:
            even = False
            columns, end = _uneven(content, place, order, element)
        found[element.name], place = columns, end
    return found, place, even


def _check_line_ends(body: bytes, more: int) -> None:
    """Bytes behind the data do no harm, but returns that a transfer as text put before each line
    feed do: all behind the first would be read as other numbers."""
    if 0 < more == body.count(b"\r\n") == body.count(b"\n"):
        raise ValueError("a transfer as text changed its line ends; transfer it as binary")


def _text(body: bytes, elements: list[Element]) -> dict[str, dict]:
    """The columns of all elements of a text."""
    rows, found = iter(split_rows(body, elements)), {}
    for element in elements:
        columns = {name: [] for name, _, _ in element.properties}
        if element.length < 1:
            continue
        for row in islice(rows, element.length):
            words, place = row.split(), 0
            for name, _, count in element.properties:
                number = 1
                if count is not None:
                    number = int(float(words[place])) if place < len(words) else 1
                    place += 1
                values = [float(word) for word in words[place : place + max(number, 0)]]
                if len(values) != number:
                    raise ValueError(f"it ends within a row of {element.name!r}")
                columns[name].append(values[0] if count is None else values)
                place += number
        lists = element.lists()
        found[element.name] = {
            name: values if name in lists else np.array(values) for name, values in columns.items()
        }
    return found


def _even(
    content: bytes, place: int, order: str, element: Element
) -> tuple[dict[str, np.ndarray] | None, int]:
    """The columns of an element whose rows are as long as the first; None where they are not."""
    if element.length < 1:
        return {}, place
    offset, counts, layout = 0, [], {}
    for name, kind, count in element.properties:
        number = None
        if count is not None:
            if place + offset + struct.calcsize(order + count) > len(content):
                return None, place
            (number,) = struct.unpack_from(order + count, content, place + offset)
            counts.append((offset, count, number))
            offset += struct.calcsize(order + count)
        if number is not None and not 0 <= number <= len(content):
            return None, place
        layout[name] = (offset, kind, number)
        offset += struct.calcsize(order + kind) * (1 if number is None else int(number))
    end = place + element.length * offset
    if end > len(content):
        return None, place

    def column(start: int, kind: str, number: int | None) -> np.ndarray:
        size = struct.calcsize(order + kind)
        shape = (element.length,) if number is None else (element.length, int(number))
        steps = (offset,) if number is None else (offset, size)
        return np.ndarray(shape, order + kind, content, place + start, steps)

    if any((column(start, kind, None) != number).any() for start, kind, number in counts):
        return None, place
    return {name: column(*where) for name, where in layout.items()}, end


def _uneven(
    content: bytes, place: int, order: str, element: Element
) -> tuple[dict[str, list[tuple]], int]:
    """The lists of an element, row after row."""
    lists = {name: [] for name in element.lists()}
    if not lists:
        raise ValueError(f"it ends within its {element.length} rows of {element.name!r}")
    steps = [
        (name, kind, struct.calcsize(order + kind), count and struct.Struct(order + count))
        for name, kind, count in element.properties
    ]
    try:
        for _ in range(element.length):
            for name, kind, size, count in steps:
                if count is None:
                    place += size
                    continue
                (number,) = count.unpack_from(content, place)
                place += count.size
                if not 0 <= number <= len(content):
                    raise ValueError(f"a list of {element.name!r} announces {number} values")
                lists[name].append(
                    struct.unpack_from(f"{order}{int(number)}{kind}", content, place)
                )
                place += int(number) * size
    except struct.error as error:
        raise ValueError(f"it ends within its {element.length} rows of {element.name!r}") from error
    return lists, place


def _stack(columns: dict, names: tuple[str, ...]) -> np.ndarray | None:
    if any(getattr(columns.get(name), "ndim", 0) != 1 for name in names):
        return None
    return np.stack([columns[name].astype(np.float64) for name in names], axis=1)


def _faces(found: dict[str, dict], element: str) -> list | np.ndarray:
    lists = {
        name: values
        for name, values in found.get(element, {}).items()
        if not isinstance(values, np.ndarray) or values.ndim == 2
    }
    for name in [*CORNERS, *(lists if len(lists) == 1 else ())]:
        if name in lists:
            return lists[name]
    if found.get(element):
        raise ValueError(f"of the lists of its faces, none is called {' or '.join(CORNERS)}")
    return []


def _cut(faces: list | np.ndarray) -> np.ndarray:
    if isinstance(faces, np.ndarray) and faces.shape[1] > 2:
        parts = [faces[:, [0, place, place + 1]] for place in range(1, faces.shape[1] - 1)]
        return np.stack(parts, axis=1).reshape(-1, 3).astype(np.int64)
    triangles = [triangle for face in faces for triangle in cut_fan(face)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def _strips(found: dict[str, dict]) -> list[np.ndarray]:
    return [cut_strip(np.asarray(strip)) for strip in _faces(found, _STRIPS)]

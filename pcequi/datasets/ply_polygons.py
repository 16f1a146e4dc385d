"""Binary PLY files whose faces have different numbers of corners.

Format: Greg Turk, "The PLY Polygon File Format", 1994. trimesh reads the others; of these it
takes all faces to be as long as the first, and finds wrong ones where the length fits by chance.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from pcequi.datasets.meshes import cut_fan
from pcequi.datasets.ply_headers import CORNERS, Element, read_header

__all__ = ["read_polygons"]


def read_polygons(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Read a binary PLY with lists of different lengths; polygons are cut into fans.

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
    order, elements, place = header
    if not order or not any(element.lists() for element in elements):
        return None
    content = path.read_bytes()
    found, even = {}, True
    for element in elements:
        columns, end = _even(content, place, order, element)
        if columns is None:
            even = False
            columns, end = _uneven(content, place, order, element)
        found[element.name], place = columns, end
    if even:
        return None
    if place != len(content):
        raise ValueError(f"it announces {place} bytes and holds {len(content)}")
    points, normals = (
        _stack(found.get("vertex", {}), names) for names in (("x", "y", "z"), ("nx", "ny", "nz"))
    )
    if points is None:
        raise ValueError("its vertices have no x, y and z")
    triangles = [triangle for face in _faces(found) for triangle in cut_fan(face)]
    return points, np.array(triangles, dtype=np.int64).reshape(-1, 3), normals


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


def _faces(found: dict[str, dict]) -> list | np.ndarray:
    lists = {
        name: values
        for name, values in found.get("face", {}).items()
        if not isinstance(values, np.ndarray) or values.ndim == 2
    }
    for name in [*CORNERS, *(lists if len(lists) == 1 else ())]:
        if name in lists:
            return lists[name]
    if lists:
        raise ValueError(f"of the lists of its faces, none is called {' or '.join(CORNERS)}")
    return []

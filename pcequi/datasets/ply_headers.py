"""Headers of PLY files, and what of these files is put right or refused before trimesh reads them.

trimesh takes an ASCII file that was cut short for a whole one, and reads no header that is not in
UTF-8, has capital letters, lines that end by returns alone, or anything before its format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CORNERS", "Element", "mend_ply", "read_header", "split_rows"]

# Codes of struct, which NumPy understands too.
_TYPES = {
    **{"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I"},
    **{"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"},
    **{"int64": "q", "uint64": "Q", "float16": "e", "float": "f", "float32": "f"},
    **{"double": "d", "float64": "d"},
}
_TYPE_NAMES = {code: name for name, code in _TYPES.items()}
_FORMS = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}
# A first line that ends by a return alone, as all others then do.
_RETURN = re.compile(rb"[^\r\n]*\r(?!\r*\n)")
# Bytes that hold every header.
_HEAD = 1 << 16
#: What the list of a face's corners is called.
CORNERS = ("vertex_index", "vertex_indices")


@dataclass
class Element:
    """An element of a PLY file: its rows, and what each row holds.

    **Equivariance:** does not apply.
    """

    name: str
    length: int
    # Name, type, and type of the length where it is a list.
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, name: str, kind: str, count: str | None) -> None:
        """A further property, whose name is no other's."""
        taken = [other for other, _, _ in self.properties]
        name = f"{name}~{len(taken)}" if name in taken else name
        self.properties.append((name, kind, count))

    def lists(self) -> list[str]:
        """The names of its lists."""
        return [name for name, _, count in self.properties if count is not None]


def read_header(content: bytes) -> tuple[str, list[Element], int] | None:
    """Byte order (``""`` of text), elements, and where the data start; None where it is no PLY.

    Names are in small letters, but for those that would then be the same, and in ASCII.

    Args:
        content: The first bytes of a file, at most 65,536 are looked at.

    Raises:
        ValueError: A line is none of a header. The caller names the file.

    **Equivariance:** does not apply.
    """
    content = content[:_HEAD]
    elements: list[Element] = []
    order, place, words = None, 0, [""]
    ending = b"\r" if _RETURN.match(content) else b"\n"
    if b"ply" not in content[: content.find(ending) + 1].lower():
        return None
    while words[:1] != ["end_header"]:
        end = content.find(ending, place) + 1
        if not end:
            return None
        line = content[place:end].strip().decode("latin-1")
        words = [word.decode("latin-1") for word in content[place:end].lower().split()]
        place = end
        try:
            match words:
                case ["format", form, *_]:
                    binary = ">" if "big" in form else "<"
                    order = "" if "ascii" in form else binary
                case ["element", name, length]:
                    elements.append(Element(_ascii(name), int(length)))
                case ["property", "list", count, kind, name]:
                    elements[-1].add(_ascii(name), _TYPES[kind], _TYPES[count])
                case ["property", kind, *name] if name and kind != "list":  # some have blanks
                    elements[-1].add(_ascii("_".join(name)), _TYPES[kind], None)
                case ["format" | "element" | "property", *_]:
                    raise ValueError
        except (ValueError, LookupError):
            raise ValueError(f"its header has the line {line[:60]!r}") from None
    names = [element.name for element in elements]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"its header has two elements {twice!r}")
    return None if order is None else (order, elements, place)


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode()


def mend_ply(path: Path) -> bytes | None:
    """A PLY file as trimesh reads it: a header in its plainest form, the corners of faces under
    their usual name, and no blank lines between rows.

    Args:
        path: The file.

    Returns:
        The content; None of a file without the header of a PLY.

    Raises:
        ValueError: It holds fewer rows than its header announces, faces without corners or
            vertices without coordinates, or its header has a line that is none. The caller
            names it.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    content = path.read_bytes()
    if (found := read_header(content)) is None:
        return None
    order, elements, place = found
    for element in elements:
        names = [name for name, _, _ in element.properties]
        if element.name == "face" and element.length > 0:
            _name_corners(element)
        if element.name == "vertex" and element.length > 0 and not {"x", "y", "z"} <= set(names):
            raise ValueError("its vertices have no x, y and z")
    body = content[place:]
    return _plain(order, elements) + (body if order else b"\n".join(split_rows(body, elements)))


def _plain(order: str, elements: list[Element]) -> bytes:
    lines = ["ply", f"format {_FORMS[order]} 1.0"]
    for element in elements:
        lines.append(f"element {element.name} {element.length}")
        for name, kind, count in element.properties:
            listed = "" if count is None else f"list {_TYPE_NAMES[count]} "
            lines.append(f"property {listed}{_TYPE_NAMES[kind]} {name}")
    return "\n".join([*lines, "end_header", ""]).encode()


def _name_corners(faces: Element) -> None:
    lists = faces.lists()
    if set(CORNERS) & set(lists):
        return
    if len(lists) != 1:
        raise ValueError(f"of the lists of its faces, none is called {' or '.join(CORNERS)}")
    faces.properties = [
        (name if count is None else CORNERS[1], kind, count)
        for name, kind, count in faces.properties
    ]


def split_rows(body: bytes, elements: list[Element]) -> list[bytes]:
    """The lines of an ASCII file, a row each, as many as announced.

    Raises:
        ValueError: There are fewer, or the last is cut short. The caller names the file.

    **Equivariance:** does not apply.
    """
    rows = [row for row in body.splitlines() if row and not row.isspace()]
    total = sum(max(element.length, 0) for element in elements)
    if len(rows) < total:
        raise ValueError(f"it announces {total} rows and holds {len(rows)}")
    last = next((element for element in reversed(elements) if element.length > 0), None)
    if last is not None and len(words := rows[total - 1].split()) < _width(last, words):
        raise ValueError(f"it ends within a row of {last.name!r}")
    return rows[:total]


def _width(element: Element, words: list[bytes]) -> int:
    """How many numbers a row holds, by the lengths of its lists."""
    width = 0
    for _, _, count in element.properties:
        if count is not None and width < len(words):
            width += int(float(words[width]))
        width += 1
    return width

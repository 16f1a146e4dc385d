"""Headers of PLY files, and what of these files is put right or refused before trimesh reads them.

trimesh takes an ASCII file that was cut short for a whole one, and reads no header that is not in
UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CORNERS", "Element", "mend_ply", "read_header"]

# Codes of struct, which NumPy understands too.
_TYPES = {
    **{"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I"},
    **{"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"},
    **{"int64": "q", "uint64": "Q", "float16": "e", "float": "f", "float32": "f"},
    **{"double": "d", "float64": "d"},
}
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

    def lists(self) -> list[str]:
        """The names of its lists."""
        return [name for name, _, count in self.properties if count is not None]


def read_header(content: bytes) -> tuple[str, list[Element], int] | None:
    """Byte order (``""`` of text), elements, and where the data start; None where it is no PLY.

    Args:
        content: The first bytes of a file, at most 65,536 are looked at.

    **Equivariance:** does not apply.
    """
    content = content[:_HEAD]
    elements: list[Element] = []
    order, place, words = None, 0, [b"ply"]
    if b"ply" not in content[: content.find(b"\n") + 1].lower():
        return None
    while b"end_header" not in words:
        end = content.find(b"\n", place) + 1
        if not end:
            return None
        words, place = content[place:end].split(), end
        try:
            match [word.decode("latin-1") for word in words]:
                case ["format", form, *_]:
                    binary = ">" if "big" in form.lower() else "<"
                    order = "" if "ascii" in form.lower() else binary
                case ["element", name, length]:
                    elements.append(Element(name, int(length)))
                case ["property", "list", count, kind, name]:
                    elements[-1].properties.append((name, _TYPES[kind], _TYPES[count]))
                case ["property", kind, name]:
                    elements[-1].properties.append((name, _TYPES[kind], None))
        except (ValueError, LookupError):  # trimesh says what
            return None
    return None if order is None else (order, elements, place)


def mend_ply(path: Path) -> bytes | None:
    """A PLY file as trimesh reads it: a header without letters beyond ASCII, the corners of faces
    under their usual name, and no blank lines between rows.

    Args:
        path: The file.

    Returns:
        The content; None where the file will do as it is.

    Raises:
        ValueError: It holds fewer rows than its header announces, or faces without corners. The
            caller names it.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    with path.open("rb") as file:
        content = file.read(_HEAD)
    if (found := read_header(content)) is None:
        return None
    order, elements, place = found
    head = _plain(_with_corners(content[:place], elements))
    if order and head == content[:place]:
        return None
    body = path.read_bytes()[place:]
    return head + (body if order else b"\n".join(_rows(body, elements)))


def _plain(head: bytes) -> bytes:
    """Comments may be in any encoding, and nothing else goes beyond ASCII."""
    return head.decode("latin-1").encode("ascii", "replace")


def _with_corners(head: bytes, elements: list[Element]) -> bytes:
    for element in elements:
        lists = element.lists()
        if element.name != "face" or element.length < 1 or set(CORNERS) & set(lists):
            continue
        if len(lists) != 1:
            raise ValueError(f"of the lists of its faces, none is called {' or '.join(CORNERS)}")
        start = head.index(b"element face")
        old, new = f" {lists[0]}".encode("latin-1"), f" {CORNERS[1]}".encode()
        lines = head[start:].splitlines(keepends=True)
        row = next(n for n, line in enumerate(lines) if line.split()[:2] == [b"property", b"list"])
        ending = lines[row][len(lines[row].rstrip()) :]
        lines[row] = lines[row].rstrip().removesuffix(old) + new + ending
        return head[:start] + b"".join(lines)
    return head


def _rows(body: bytes, elements: list[Element]) -> list[bytes]:
    """The lines of an ASCII file, a row each, as many as announced."""
    rows = [row for row in body.splitlines() if row and not row.isspace()]
    total = sum(max(element.length, 0) for element in elements)
    if len(rows) < total:
        raise ValueError(f"it announces {total} rows and holds {len(rows)}")
    last = next((element for element in reversed(elements) if element.length > 0), None)
    if last is not None and len(words := rows[total - 1].split()) < _width(last, words):
        raise ValueError(f"it ends within a row of {last.name!r}")
    return rows


def _width(element: Element, words: list[bytes]) -> int:
    """How many numbers a row holds, by the lengths of its lists."""
    width = 0
    for _, _, count in element.properties:
        if count is not None and width < len(words):
            width += int(float(words[width]))
        width += 1
    return width

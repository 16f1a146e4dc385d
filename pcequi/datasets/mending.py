"""OBJ and STL files that trimesh would misread in silence, put right before it reads them."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import numpy as np

__all__ = ["mend_obj", "mend_stl"]

# A face, line or point that counts back from what stands above it.
_RELATIVE = re.compile(rb"(?m)^[flp] (?=[^\n]*-\d)")
# One that counts from 0, as those of other formats do.
_FROM_ZERO = re.compile(rb"(?m)^[flp] (?:[^\n]* )?0+(?=[/ \n]|\Z)")
# Lists that such a row refers to, in the order in which its slashes part them.
_LISTS = (b"v", b"vt", b"vn")

# Of a binary STL: header and number of triangles, and a triangle.
_STL_HEAD, _TRIANGLE = 84, 50


def mend_obj(path: Path) -> bytes | None:
    """An OBJ file whose rows begin with their first letter, and whose faces count from its
    beginning.

    Negative indices count back from the row of the face. trimesh takes them to count back
    from the end of the file, so that all objects of a file get the corners of the last; and it
    passes over rows after blanks or a mark of UTF-8, or with a tab behind their first letter.

    Args:
        path: The file.

    Returns:
        The content; None where it will do as it is.

    Raises:
        ValueError: An index is 0 or goes back behind the beginning. The caller names the file.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    given = path.read_bytes()
    content = _plain_rows(given)
    if found := _FROM_ZERO.search(content):
        shown = found[0].decode("latin-1")[:40]
        raise ValueError(f"{shown!r} refers to 0, and corners are counted from 1")
    if not _RELATIVE.search(content):
        return None if content == given else content
    seen = dict.fromkeys(_LISTS, 0)
    lines = content.splitlines()
    for place, line in enumerate(lines):
        words = line.split()
        if not words:
            continue
        if words[0] in seen:
            seen[words[0]] += 1
        elif words[0] in (b"f", b"l", b"p") and b"-" in line:
            lines[place] = b" ".join([words[0], *(_absolute(word, seen) for word in words[1:])])
    return b"\n".join(lines)


def _plain_rows(content: bytes) -> bytes:
    """The rows without comments, blanks before them, tabs and continuations."""
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"#" in content:
        content = re.sub(rb"#[^\n]*", b"", content)
    if b"\\" in content:  # a row that goes on
        content = re.sub(rb"\\\n", b" ", content)
    content = content.replace(b"\t", b" ")
    return re.sub(rb"(?m)^ +", b"", content)


def _absolute(corner: bytes, seen: dict[bytes, int]) -> bytes:
    parts = corner.split(b"/")
    for place, (part, kind) in enumerate(zip(parts, _LISTS)):
        if not part.startswith(b"-"):
            continue
        index = seen[kind] + 1 + int(part)
        if index < 1:
            shown = corner.decode("latin-1")
            raise ValueError(f"a face refers to {shown}, and {seen[kind]} stand above it")
        parts[place] = str(index).encode()
    return b"/".join(parts)


def mend_stl(path: Path) -> bytes | None:
    """A binary STL file without the bytes that may follow its triangles, or the text of one
    without a mark of UTF-8 and with line feeds between its lines.

    Args:
        path: The file.

    Returns:
        The content; None where the file will do as it is.

    Raises:
        ValueError: It is cut short. The caller names it.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_STL_HEAD)
    if size < _STL_HEAD:
        return None
    number = int(np.frombuffer(head, "<u4", 1, _STL_HEAD - 4)[0])
    end = _STL_HEAD + number * _TRIANGLE
    if size == end:
        return None
    content = path.read_bytes()
    bare = content.removeprefix(codecs.BOM_UTF8).lstrip()
    text = bare.lower() if bare[:5].lower() == b"solid" else b""
    if b"facet normal" in text:
        if text.rfind(b"facet normal") > text.rfind(b"endsolid"):
            raise ValueError("its last solid has no end")
        return bare if b"\n" in bare else bare.replace(b"\r", b"\n")
    if size < end:
        held = (size - _STL_HEAD) // _TRIANGLE
        raise ValueError(f"it announces {number} triangles and holds {held}")
    return content[:end]

"""PCD files, the Point Cloud Library's format: ascii, binary and compressed.

Format: PCL documentation, "The PCD (Point Cloud Data) file format", version 0.7.
"""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np

__all__ = ["decompress_lzf", "read_pcd"]

_TYPES = {"F": "f", "I": "i", "U": "u"}


def read_pcd(path: Path) -> np.ndarray:
    """Read coordinates, and normals where the file has them.

    Points that are not finite stand for places where a scanner saw nothing, and
    are left out. The viewpoint is not applied, as in PCL.

    Args:
        path: The file.

    Returns:
        float64 ``[N, 3]``, or ``[N, 6]`` with normals.

    Raises:
        ValueError: The file is none, or is damaged. The caller names the file.
        OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    header, body = _header(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    fields, sizes, kinds = header["FIELDS"], header["SIZE"], header["TYPE"]
    counts = header.get("COUNT", ["1"] * len(fields))
    if not len(fields) == len(sizes) == len(kinds) == len(counts):
        raise ValueError("FIELDS, SIZE, TYPE and COUNT differ in number")
    num = int(header.get("POINTS", [0])[0]) or int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    if num < 1:
        raise ValueError(f"it announces {num} points")
    names = ["x", "y", "z"]
    if {"normal_x", "normal_y", "normal_z"} <= set(fields):
        names += ["normal_x", "normal_y", "normal_z"]
    for name in names:
        if fields.count(name) != 1 or counts[fields.index(name)] != "1":
            raise ValueError(f"it has no single field {name!r}")
    widths = [int(count) for count in counts]
    if min(widths) < 1:
        raise ValueError("a COUNT is below 1")
    form = header["DATA"][0].lower()
    if form == "ascii":
        columns = _ascii(body, fields, widths, num)
    else:
        try:
            # Fields may share a name ("_" is padding): numbered ones do not.
            kind = np.dtype(
                [
                    (str(place), f"<{_TYPES[letter]}{int(size)}", (width,))
                    for place, (letter, size, width) in enumerate(zip(kinds, sizes, widths))
                ]
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"TYPE {kinds} and SIZE {sizes} are unknown") from error
        columns = _binary(body, fields, kind, num, form)
    table = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
    return table[np.isfinite(table[:, :3]).all(axis=1)]


def _header(content: bytes) -> tuple[dict[str, list[str]], bytes]:
    header: dict[str, list[str]] = {}
    start = 0
    while start < len(content):
        end = content.find(b"\n", start) % (len(content) + 1)
        line, start = content[start:end], end + 1
        if line.lstrip().startswith(b"#"):  # of any encoding
            continue
        words = line.decode("ascii").split()
        if not words:
            continue
        header[words[0].upper()] = words[1:]
        if words[0].upper() == "DATA":
            break
    missing = [
        name
        for name in ("FIELDS", "SIZE", "TYPE", "WIDTH", "HEIGHT", "DATA")
        if not header.get(name)
    ]
    if missing:
        raise ValueError(f"its header lacks {' '.join(missing)}")
    return header, content[start:]


def _ascii(body: bytes, fields: list[str], widths: list[int], num: int) -> dict[str, np.ndarray]:
    lines = [line.split() for line in body.splitlines() if line.strip()]
    if len(lines) < num:
        raise ValueError(f"it announces {num} points and holds {len(lines)}")
    table = np.array(lines[:num], dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != sum(widths):
        raise ValueError(f"a line does not hold the {sum(widths)} values of FIELDS and COUNT")
    starts = np.cumsum([0, *widths])
    return {name: table[:, start] for name, start in zip(fields, starts)}


def _binary(
    body: bytes, fields: list[str], kind: np.dtype, num: int, form: str
) -> dict[str, np.ndarray]:
    size = num * kind.itemsize
    if form == "binary":
        if len(body) < size:
            raise ValueError(f"it announces {size} bytes and holds {len(body)}")
        rows = np.frombuffer(body, dtype=kind, count=num)
        return {name: rows[str(place)][:, 0] for place, name in enumerate(fields)}
    if form != "binary_compressed":
        raise ValueError(f"DATA {form!r} is not ascii, binary or binary_compressed")
    if len(body) < 8:
        raise ValueError("it ends before its data")
    packed, unpacked = (int(value) for value in np.frombuffer(body[:8], dtype="<u4"))
    if unpacked != size or len(body) < 8 + packed:
        raise ValueError(f"it announces {packed} and {unpacked} bytes that do not fit its points")
    body = decompress_lzf(body[8 : 8 + packed], unpacked)
    columns, start = {}, 0
    # Field after field here, not point after point.
    for place, name in enumerate(fields):
        base, shape = kind[place].subdtype
        values = np.frombuffer(body, dtype=base, count=num * shape[0], offset=start)
        columns[name] = values.reshape(num, shape[0])[:, 0]
        start += values.nbytes
    return columns


def decompress_lzf(content: bytes, size: int) -> bytes:
    """Undo LZF, the compression of Marc Lehmann's LibLZF, after its description.

    A control byte below 32 announces so many literal bytes plus one; any other
    names, in its upper three bits, a length (7: a byte follows and is added) and,
    with the next byte, how far back the same bytes stand.

    Args:
        content: What is compressed.
        size: Bytes that come out.

    Returns:
        ``size`` bytes.

    Raises:
        ValueError: The content is damaged.

    **Equivariance:** does not apply.
    """
    out, place = bytearray(), 0
    try:
        while place < len(content):
            control = content[place]
            place += 1
            if control < 32:
                out += content[place : place + control + 1]
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += content[place]
                place += 1
            back = len(out) - ((control & 31) << 8) - content[place] - 1
            place += 1
            if back < 0:
                raise ValueError("its compressed data refer to before their beginning")
            length += 2
            if len(out) > size:
                raise ValueError(f"its compressed data hold more than {size} bytes")
            # What is copied may reach into what the copy itself writes.
            pattern = out[back : back + length]
            out += (pattern * (length // len(pattern) + 1))[:length]
    except IndexError:
        raise ValueError("its compressed data end too early") from None
    if len(out) != size:
        raise ValueError(f"its compressed data hold {len(out)} bytes, not {size}")
    return bytes(out)

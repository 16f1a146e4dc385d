"""Kinds of damage to a file, by name; each takes its path."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file


def _edit(change):
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def _flip(place):
    def change(content: bytes) -> bytes:
        at = place(content)
        return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]

    return change


def _data(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


def _header(change):
    """Change the header of a safetensors file, and keep its length right."""

    def damage(content: bytes) -> bytes:
        start = _data(content)
        header = json.dumps(change(json.loads(content[8:start]))).encode()
        return struct.pack("<Q", len(header)) + header + content[start:]

    return _edit(damage)


def _tensors(change):
    """Valid safetensors with other tensors in them, and nothing in the header."""

    def damage(path: Path) -> None:
        save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path)

    return damage


def _largest(tensors):
    return max(tensors, key=lambda name: tensors[name].numel())


def _reshaped(tensors):
    name = _largest(tensors)
    return {**tensors, name: tensors[name].flatten()[:-1].clone()}


def _other_type(tensors):
    name = _largest(tensors)
    return {**tensors, name: tensors[name].to(torch.complex64)}


def _dropped(tensors):
    name = _largest(tensors)
    return {key: value for key, value in tensors.items() if key != name}


def _without(header, key):
    header = dict(header)
    header.pop(key)
    return header


def _first(header):
    return next(name for name in header if name != "__metadata__")


def _shifted(header):
    name = _first(header)
    entry = dict(header[name])
    entry["data_offsets"] = [offset + 8 for offset in entry["data_offsets"]]
    return {**header, name: entry}


def _huge(header):
    name = _first(header)
    return {**header, name: {**header[name], "shape": [1 << 60]}}


def _negative(header):
    name = _first(header)
    return {**header, name: {**header[name], "data_offsets": [-8, 0]}}


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": list(range(100))}))


def _torch_saved(path: Path) -> None:
    torch.save({"weights": torch.zeros(9)}, path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


#: For any file.
ANY = {
    "empty": _edit(lambda content: b""),
    "one byte": _edit(lambda content: content[:1]),
    "cut at a quarter": _edit(lambda content: content[: len(content) // 4]),
    "cut at half": _edit(lambda content: content[: len(content) // 2]),
    "last two bytes missing": _edit(lambda content: content[:-2]),
    "zeros": _edit(lambda content: bytes(len(content))),
    "noise": _edit(lambda content: np.random.default_rng(0).bytes(len(content))),
    "text": _edit(lambda content: b"<html>404</html>"),
    "a list": _edit(lambda content: b"[1, 2, 3]"),
    "a number": _edit(lambda content: b"7"),
    "an empty object": _edit(lambda content: b"{}"),
    "deep brackets": _edit(lambda content: b"[" * 100000),
    "not utf-8": _edit(lambda content: b'{"a": "\xff\xfe"}'),
    "a pickle": _pickled,
    "saved by torch": _torch_saved,
    "an archive": _archive,
    "a dangling link": _dangling,
    "missing": Path.unlink,
}

#: For safetensors files; all are noticed when the file is opened or verified.
TENSORS = {
    "cut within the header": _edit(lambda content: content[:40]),
    "cut at the data": _edit(lambda content: content[: _data(content)]),
    "something appended": _edit(lambda content: content + b"more"),
    "data repeated": _edit(lambda content: content + content[_data(content) :]),
    "header length flipped": _edit(_flip(lambda content: 3)),
    "header length huge": _edit(lambda content: b"\xff" * 8 + content[8:]),
    "bit flipped early in the data": _edit(_flip(lambda content: _data(content) + 5)),
    "bit flipped amid the data": _edit(_flip(lambda c: (_data(c) + len(c)) // 2)),
    "last bit flipped": _edit(_flip(lambda content: len(content) - 1)),
    "second half zeros": _edit(lambda c: c[: len(c) // 2] + bytes(len(c) - len(c) // 2)),
    "name of a tensor flipped": _edit(_flip(lambda content: content.index(b"0."))),
    "a tensor missing": _header(lambda header: _without(header, _first(header))),
    "offsets shifted": _header(_shifted),
    "offsets negative": _header(_negative),
    "a shape that is huge": _header(_huge),
    "header is a list": _header(lambda header: [header]),
    "header without types": _header(lambda header: {name: {} for name in header}),
    "another shape": _tensors(_reshaped),
    "another type": _tensors(_other_type),
    "a tensor dropped": _tensors(_dropped),
    "no tensor": _tensors(lambda tensors: {"x": torch.zeros(1)}),
}

#: For JSON files.
JSON = {
    "a key missing": _edit(
        lambda content: json.dumps(dict(list(json.loads(content).items())[1:])).encode()
    ),
    "values are null": _edit(lambda c: json.dumps(dict.fromkeys(json.loads(c))).encode()),
    "values are text": _edit(lambda c: json.dumps(dict.fromkeys(json.loads(c), "x")).encode()),
    "values are lists": _edit(lambda c: json.dumps(dict.fromkeys(json.loads(c), [1])).encode()),
    "not a number": _edit(
        lambda c: json.dumps(dict.fromkeys(json.loads(c), float("nan"))).encode()
    ),
}


def copied(folder: Path, target: Path) -> Path:
    """A fresh copy of a folder, to be damaged."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target

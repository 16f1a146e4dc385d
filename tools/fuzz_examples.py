"""Valid files of every kind that pcequi reads, and what reads them; for ``fuzz_readers``."""

from __future__ import annotations

import io
import lzma
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fuzz_runs import RUN_NAMES, run_targets
from fuzz_sets import SET_NAMES, set_targets

from pcequi.datasets import ModelNet
from pcequi.datasets.modelnet import MODELNET_CLASSES
from pcequi.datasets.packed import read_packed
from pcequi.datasets.readers import READABLE, read_points

#: Kinds of files; each has a target.
KINDS = (*READABLE, "packed", "packed.xz", "archive", *SET_NAMES, *RUN_NAMES)

#: What an error may call the file of a target; of an archive also its members.
NAMES = {
    "archive": ("own.zip", ".off", "ModelNet10"),
    "packed": ("packed.npz",),
    "packed.xz": ("packed.npz.xz",),
    **SET_NAMES,
    **RUN_NAMES,
}


def _off() -> bytes:
    return b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


def _mesh(kind: str) -> list[bytes]:
    import trimesh

    box, ball = trimesh.creation.box((2, 1, 1)), trimesh.creation.icosphere(1)
    made = [box.export(file_type=kind), ball.export(file_type=kind)]
    if kind == "stl":
        made.append(box.export(file_type="stl_ascii"))
    if kind == "ply":
        made.append(box.export(file_type="ply", encoding="ascii"))
        made.append(trimesh.PointCloud(box.vertices).export(file_type="ply"))
        head = ["ply", "format ascii 1.0", "element vertex 1"]
        head += [f"property float {axis}" for axis in "xyz"] + ["property list uchar int a"]
        made.append("\n".join([*head, "end_header", "1 2 3 2 4 5", ""]))
        made += [_polygons("<"), _polygons(">")]
        made.append(_polygons("<").replace(b"element face", b"element tristrips"))
    return [part.encode() if isinstance(part, str) else part for part in made]


def _polygons(order: str) -> bytes:
    """A tetrahedron and a quad: faces of different lengths."""
    form = {"<": "little", ">": "big"}[order]
    head = ["ply", f"format binary_{form}_endian 1.0", "element vertex 5"]
    head += [f"property float {axis}" for axis in "xyz"] + ["element face 4", "property uchar a"]
    head += ["property list uchar int vertex_indices", "end_header", ""]
    points = (np.arange(15) % 4).astype(f"{order}f4").tobytes()
    faces = [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 4, 3)]
    rows = [struct.pack(f"{order}BB{len(face)}i", 9, len(face), *face) for face in faces]
    return "\n".join(head).encode() + points + b"".join(rows)


def _pcd(form: str) -> bytes:
    points = np.arange(18, dtype="<f4").reshape(6, 3)
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 6\nHEIGHT 1\n"
    head += f"POINTS 6\nDATA {form}\n"
    body = "\n".join(" ".join(map(str, row)) for row in points.tolist()).encode()
    if form == "binary":
        body = points.tobytes()
    if form == "binary_compressed":
        plain = points.T.tobytes()
        packed = b"".join(
            bytes([len(plain[i : i + 32]) - 1]) + plain[i : i + 32]
            for i in range(0, len(plain), 32)
        )
        body = struct.pack("<II", len(packed), len(plain)) + packed
    return head.encode() + body


def _saved(save: Callable, *args, **kwargs) -> bytes:
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


def _packed() -> bytes:
    low = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    arrays = {f"{s}_{k}": low for s in ("train", "test") for k in ("low", "high")}
    arrays |= {f"{s}_label": np.array([0, 1], np.uint8) for s in ("train", "test")}
    return _saved(np.savez_compressed, **arrays, classes=np.array(["a", "b"]))


def _archive(extra: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MODELNET_CLASSES["10"]:
            archive.writestr(f"ModelNet10/{name}/test/{name}_1.off", _off())
        for name, content in extra.items():
            archive.writestr(name, content)
    return file.getvalue()


def make_targets(folder: Path) -> dict[str, tuple[list[bytes], Callable[[bytes], object]]]:
    """For each kind of file valid examples, and what reads one given its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.default_rng(0).normal(size=(9, 6))
    table[:, 3:] /= np.linalg.norm(table[:, 3:], axis=1, keepdims=True)
    text = "\n".join(" ".join(f"{v:.4g}" for v in row) for row in table).encode()
    arrays = [_saved(np.save, table.astype(kind)) for kind in ("f8", "f4", "f2")]
    clouds = [_saved(np.savez, pos=table[:, :3], normal=table[:, 3:])]
    clouds += [_saved(np.savez_compressed, points=table)]
    examples = {
        ".off": [_off(), _off().replace(b"OFF\n", b"OFF", 1), b"COFF\n1 0 0\n1 2 3 255 0 0 1\n"],
        ".pcd": [_pcd(form) for form in ("ascii", "binary", "binary_compressed")],
        ".xyz": [text, text.replace(b" ", b",")],
        ".txt": [b"# x y z\n" + text],
        ".npy": arrays,
        ".npz": clouds,
    }
    targets = {}
    for ending in READABLE:
        path = folder / f"input{ending}"

        def points(content: bytes, path=path):
            path.write_bytes(content)
            data = read_points(path, 16, with_normals=len(content) % 4 == 0)
            assert data.pos.shape[1] == 3 and torch.isfinite(data.pos).all(), "no cloud"

        targets[ending] = (examples.get(ending) or _mesh(ending[1:]), points)

    def into(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def write_and_read(content: bytes):
            path.write_bytes(content)
            read(path)

        return write_and_read

    def archive(path: Path):
        root = folder / "modelnet"
        shutil.rmtree(root, ignore_errors=True)
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
        ModelNet(root, "10", train=False, source=path, num_points=4)
        assert {p.name for p in folder.parent.iterdir()} == {folder.name}, "it wrote outside"

    packed = _packed()
    targets["packed"] = ([packed], into("packed.npz", lambda p: read_packed(p, "train")))
    targets["packed.xz"] = (
        [lzma.compress(packed)],
        into("packed.npz.xz", lambda p: read_packed(p, "test")),
    )
    traversal = {"../../outside.off": _off(), "/etc/outside": b"x", "a/../../b": b"x"}
    bomb = {"bomb.off": bytes(40_000_000)}
    targets["archive"] = (
        [_archive({}), _archive(traversal), _archive(bomb)],
        into("own.zip", archive),
    )
    return targets | set_targets(folder, into) | run_targets(folder, into)

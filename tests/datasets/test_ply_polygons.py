"""Binary PLY files whose faces have different numbers of corners."""

import struct

import numpy as np
import pytest

from pcequi.datasets.meshes import cut_fan
from pcequi.datasets.ply_polygons import read_polygons
from pcequi.datasets.readers import read_points
from pcequi.errors import FileError

POINTS = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
MIXED = [
    [[0, 1, 2], [3, 4, 5, 6]],
    [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]],  # as many bytes as three faces of four
    [[0, 1, 2, 3, 4, 5], [4, 5, 6], [], [7, 8]],
    [[0, 1], [4, 5, 6]],
]
BINARY = ("binary_little_endian", "binary_big_endian")


def ply(faces, form=BINARY[0], *, before="", after="", count="uchar", corner="int", last="edge"):
    """The bytes of a PLY; ``before`` and ``after`` the corners each face has a byte, if named."""
    names = ("x", "y", "z", "nx", "ny", "nz")
    head = ["ply", f"format {form} 1.0", "comment é", f"element vertex {len(POINTS)}"]
    head += [f"property float {name}" for name in names] + [f"element face {len(faces)}"]
    head += [f"property uchar {before}"] * bool(before)
    head += [f"property list {count} {corner} vertex_indices"]
    head += [f"property uchar {after}"] * bool(after)
    head += [f"element {last} 2", "property int a", "property short b", "end_header", ""]
    rows = [[7] * bool(before) + [len(face), *face] + [8] * bool(after) for face in faces]
    if form == "ascii":
        table = [*POINTS.tolist(), *rows, [1, 2], [3, 4]]
        body = "\n".join(" ".join(map(str, row)) for row in table).encode()
    else:
        order = "<" if "little" in form else ">"
        codes = {"uchar": "B", "ushort": "H", "int": "i", "uint": "I", "int64": "q"}
        body = POINTS.astype(f"{order}f4").tobytes()
        for face, row in zip(faces, rows):
            kinds = (
                f"{'B' * bool(before)}{codes[count]}{len(face)}{codes[corner]}{'B' * bool(after)}"
            )
            body += struct.pack(order + kinds, *row)
        body += struct.pack(f"{order}ihih", 1, 2, 3, 4)
    return "\n".join(head).encode() + body


@pytest.mark.parametrize("form", BINARY)
@pytest.mark.parametrize("faces", MIXED)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"before": "a"},
        {"after": "a"},
        {"before": "a", "after": "b", "count": "ushort", "corner": "uint"},
        {"count": "int", "corner": "int64"},
    ],
)
def test_polygons_are_cut_into_fans(tmp_path, form, faces, options):
    path = tmp_path / "mesh.ply"
    path.write_bytes(ply(faces, form, **options))
    points, triangles, normals = read_polygons(path)
    assert (np.concatenate([points, normals], axis=1) == POINTS).all()
    assert triangles.tolist() == [list(part) for face in faces for part in cut_fan(face)]


@pytest.mark.parametrize("form", BINARY)
@pytest.mark.parametrize("faces", MIXED)
def test_points_are_those_of_the_mesh_that_is_cut_already(tmp_path, form, faces):
    (tmp_path / "mixed.ply").write_bytes(ply(faces, form))
    cut = [part for face in faces for part in cut_fan(face)]
    (tmp_path / "cut.ply").write_bytes(ply(cut, form))
    mixed, plain = (
        read_points(tmp_path / name, 50, normalize=False).pos for name in ("mixed.ply", "cut.ply")
    )
    assert np.allclose(mixed, plain, atol=1e-6)


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_files_of_one_length_are_left_to_trimesh(tmp_path, number):
    path = tmp_path / "mesh.ply"
    for form in (*BINARY, "ascii"):
        path.write_bytes(ply([range(number), range(1, 1 + number)], form))
        assert read_polygons(path) is None
        assert len(read_points(path, 9).pos) == 9
    path.write_bytes(ply(MIXED[0], "ascii"))
    assert read_polygons(path) is None


def test_only_the_corners_are_taken_for_faces(tmp_path):
    path = tmp_path / "mesh.ply"
    # Beside the corners stands a list of texture coordinates.
    head = ply([]).split(b"element face")[0] + b"element face 2\n"
    head += (
        b"property list uchar float texcoord\nproperty list uchar int vertex_index\nend_header\n"
    )
    body = POINTS.tobytes() + struct.pack("<B6fB3i", 6, *range(6), 3, 0, 1, 2)
    path.write_bytes(head + body + struct.pack("<B8fB4i", 8, *range(8), 4, 2, 3, 4, 5))
    assert read_polygons(path)[1].tolist() == [[0, 1, 2], [2, 3, 4], [2, 4, 5]]
    path.write_bytes(path.read_bytes().replace(b"vertex_index", b"corner"))
    with pytest.raises(
        FileError, match="of the lists of its faces, none is called vertex_index or"
    ):
        read_points(path)


@pytest.mark.parametrize("form", BINARY)
def test_damaged_files_say_what_is_wrong(tmp_path, form):
    path = tmp_path / "mesh.ply"
    whole = ply(MIXED[0], form)
    for content, reason in (
        (whole[:-1], "it ends within its 2 rows of 'edge'"),
        (whole[:-15], "it ends within its 2 rows of 'face'"),
        (whole + b"\n", "announces .* bytes and holds"),
        (ply([[0, 1, 2], [0, 1, 2, 12]], form), r"a vertex outside 0 \.\.\. 11"),
        (ply([[0, 1, 2], [0, 1, 2, -1]], form), r"a vertex outside 0 \.\.\. 11"),
        (ply(MIXED[0], form, last="vertex"), "its header has two elements 'vertex'"),
        (whole.replace(b"float z", b"float h"), "its vertices have no x, y and z"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=f"mesh.ply.*damaged or empty .*{reason}"):
            read_points(path)

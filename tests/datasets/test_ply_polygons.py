"""PLY files with faces of different numbers of corners, strips, or bytes behind them."""

import struct

import numpy as np
import pytest

from pcequi.datasets.meshes import cut_fan, cut_strip
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
    head += [f"element {last} 2", "property int a", "property short b"] * bool(last)
    head += ["end_header", ""]
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
        body += struct.pack(f"{order}ihih", 1, 2, 3, 4) * bool(last)
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
        (ply(MIXED[0], form, after="a", last=None)[:-1], "announces .* bytes and holds"),
        (ply([[0, 1, 2], [0, 1, 2, 12]], form), r"a vertex outside 0 \.\.\. 11"),
        (ply([[0, 1, 2], [0, 1, 2, -1]], form), r"a vertex outside 0 \.\.\. 11"),
        (ply(MIXED[0], form, last="vertex"), "its header has two elements 'vertex'"),
        (whole.replace(b"float z", b"float h"), "its vertices have no x, y and z"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=f"mesh.ply.*damaged or empty .*{reason}"):
            read_points(path)


@pytest.mark.parametrize("form", BINARY)
@pytest.mark.parametrize("faces", [*MIXED, [[0, 1, 2], [3, 4, 5]], [[0, 1, 2, 3]], []])
def test_bytes_behind_the_last_element_do_no_harm(tmp_path, form, faces):
    path = tmp_path / "mesh.ply"
    path.write_bytes(ply([part for face in faces for part in cut_fan(face)], form))
    expected = read_points(path, 50).pos
    for more in (b"\n", b"\r\n", bytes(range(200))):
        path.write_bytes(ply(faces, form) + more)
        assert np.allclose(read_points(path, 50).pos, expected, atol=1e-6)
    assert np.allclose(read_polygons(path)[2], POINTS[:, 3:])


def test_a_transfer_as_text_is_damage(tmp_path):
    content = ply([]).replace(POINTS.tobytes(), (POINTS.tobytes()[:-4] + b"\x01\n\n@"))
    path = tmp_path / "mesh.ply"
    path.write_bytes(content)
    assert len(read_points(path, 50, normalize=False).pos)
    path.write_bytes(content.replace(b"\n", b"\r\n"))
    with pytest.raises(FileError, match="a transfer as text changed its line ends"):
        read_points(path)


def strips_of(content, name="vertex_indices", length="int"):
    """The file with its faces called strips."""
    content = content.replace(b"element face", b"element tristrips")
    return content.replace(b"list int int vertex_indices", f"list {length} int {name}".encode())


@pytest.mark.parametrize("form", ["ascii", *BINARY])
@pytest.mark.parametrize("name", ["vertex_indices", "vertex_index"])
def test_strips_are_cut_into_triangles(tmp_path, form, name):
    strips = [[0, 1, 2, 3, 4, -1, 5, 6, 7, -1, 8, 9], [2, 4, 6, 8]]
    cut = [[0, 1, 2], [2, 1, 3], [2, 3, 4], [5, 6, 7], [2, 4, 6], [6, 4, 8]]
    path = tmp_path / "mesh.ply"
    for used, number in ((strips, 6), (strips[:1], 4), (strips[1:], 2)):
        path.write_bytes(strips_of(ply(used, form, count="int"), name))
        points, triangles, normals = read_polygons(path)
        assert np.allclose(np.concatenate([points, normals], axis=1), POINTS)
        # The same corners in the same turn, whichever comes first.
        expected = cut[:number] if used[0] == strips[0] else cut[-number:]
        assert [np.roll(t, -t.argmin()).tolist() for t in triangles] == [
            np.roll(t, -np.argmin(t)).tolist() for t in expected
        ]
    path.write_bytes(strips_of(ply(strips, form, count="int"), name))
    found = read_points(path, 50, normalize=False, with_normals=True)
    path.write_bytes(ply(triangles := cut_strip(strips[1]).tolist(), form))
    assert triangles == [[2, 4, 6], [6, 4, 8]]
    path.write_bytes(ply(cut, form))
    expected = read_points(path, 50, normalize=False, with_normals=True)
    assert np.allclose(found.normal, expected.normal, atol=1e-5)


@pytest.mark.parametrize("form", ["ascii", *BINARY])
def test_strips_may_stand_beside_faces(tmp_path, form):
    content = ply([[0, 1, 2, 3]], form, last="edge")
    head, body = content.split(b"element edge 2\n")
    body = body.split(b"end_header\n")[1]
    head += b"element tristrips 1\nproperty list uchar int vertex_indices\nend_header\n"
    if form == "ascii":
        body = body[: body.rindex(b"1 2\n3 4")] + b"4 4 5 6 7\n"
    else:
        body = body[:-12] + struct.pack(f"{'<' if 'little' in form else '>'}B4i", 4, 4, 5, 6, 7)
    path = tmp_path / "mesh.ply"
    path.write_bytes(head + body)
    assert read_polygons(path)[1].tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [6, 5, 7]]


def test_strips_that_end_early_or_point_outside_are_damage(tmp_path):
    path = tmp_path / "mesh.ply"
    for form in ("ascii", *BINARY):
        path.write_bytes(strips_of(ply([[0, 1, 2, 12]], form, count="int")))
        with pytest.raises(FileError, match=r"a vertex outside 0 \.\.\. 11"):
            read_points(path)
    path.write_bytes(strips_of(ply([[0, 1, 2, 3]], "ascii", count="int")).replace(b"4 0 1", b"4 0"))
    with pytest.raises(FileError, match="it ends within a row of 'tristrips'"):
        read_points(path)


@pytest.mark.parametrize("strip", [[], [1], [1, 2], [-1], [1, 2, -1], [-1, -1, 3, 4]])
def test_strips_of_fewer_than_three_corners_are_none(strip):
    assert cut_strip(np.array(strip)).shape == (0, 3)

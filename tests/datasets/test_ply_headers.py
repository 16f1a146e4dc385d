"""PLY files that are cut short, or whose headers have other words than most."""

import struct

import numpy as np
import pytest
import torch

from pcequi.datasets.readers import read_points
from pcequi.errors import FileError

FORMS = ("ascii", "binary_little_endian")
# Two triangles, of which the second is far from the first.
POINTS = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9], [8, 9, 9], [9, 8, 9]]
FACES = [[0, 1, 2], [3, 4, 5]]


def ply(form="ascii", *, comment=b"made", faces=FACES, corners="vertex_indices", before=""):
    """The bytes of a mesh; ``before`` the corners each face has a byte, if it is named."""
    head = [b"ply", f"format {form} 1.0".encode(), b"comment " + comment, b"element vertex 6"]
    head += [f"property float {name}".encode() for name in "xyz"]
    head += [f"element face {len(faces)}".encode()]
    head += [f"property uchar {before}".encode()] * bool(before)
    head += [f"property list uchar int {corners}".encode()] * bool(corners)
    head += [b"end_header", b""]
    if form == "ascii":
        rows = [*POINTS, *([*[7] * bool(before), len(face), *face] for face in faces)]
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    else:
        kinds = "<" + "B" * bool(before) + "B3i"
        body = np.array(POINTS, "<f4").tobytes()
        body += b"".join(struct.pack(kinds, *[7] * bool(before), 3, *face) for face in faces)
    return b"\n".join(head) + body


def sampled(path, content):
    path.write_bytes(content)
    return read_points(path, 40, normalize=False).pos


@pytest.mark.parametrize("faces", [FACES, []])
def test_a_text_that_is_cut_at_a_line_is_damaged(tmp_path, faces):
    whole = ply(faces=faces).splitlines(keepends=True)
    announced = 6 + len(faces)
    assert len(sampled(tmp_path / "mesh.ply", b"".join(whole))) == (40 if faces else 6)
    for cut in range(1, announced + 1):
        reason = f"announces {announced} rows and holds {announced - cut}"
        with pytest.raises(FileError, match=f"mesh.ply.*damaged or empty .*{reason}"):
            sampled(tmp_path / "mesh.ply", b"".join(whole[:-cut]))


def test_a_text_that_is_cut_within_its_last_row_is_damaged(tmp_path):
    for faces, cut, name in ((FACES, 3, "face"), (FACES, 7, "face"), ([], 3, "vertex")):
        with pytest.raises(FileError, match=f"it ends within a row of '{name}'"):
            sampled(tmp_path / "mesh.ply", ply(faces=faces)[:-cut])


def test_blank_lines_and_other_line_ends_are_no_rows(tmp_path):
    expected, text = sampled(tmp_path / "mesh.ply", ply()), ply()
    for other in (text.replace(b"\n", b"\r\n"), text + b"\n \n", text.replace(b"9\n", b"9\n\n")):
        assert torch.equal(sampled(tmp_path / "mesh.ply", other), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("comment", ["Prüfstück".encode("latin-1"), "Prüfstück".encode(), b"\xff"])
def test_comments_may_be_in_any_encoding(tmp_path, form, comment):
    expected = sampled(tmp_path / "mesh.ply", ply(form))
    assert torch.equal(sampled(tmp_path / "mesh.ply", ply(form, comment=comment)), expected)
    cloud = ply(form, comment=comment, faces=[])
    assert len(sampled(tmp_path / "mesh.ply", cloud)) == 6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", ["", "quality"])
def test_the_only_list_of_faces_is_of_their_corners(tmp_path, form, before):
    expected = sampled(tmp_path / "mesh.ply", ply(form, before=before))
    other = ply(form, corners="corner", before=before)
    assert torch.equal(sampled(tmp_path / "mesh.ply", other), expected)
    assert torch.equal(
        sampled(tmp_path / "mesh.ply", other.replace(b"corner\n", b"corner\r\n")), expected
    )


@pytest.mark.parametrize("form", FORMS)
def test_faces_without_corners_are_refused(tmp_path, form):
    content = ply(form, corners="", before="quality")
    with pytest.raises(FileError, match="of the lists of its faces, none is called vertex_index"):
        sampled(tmp_path / "mesh.ply", content)


def parts(content):
    start = content.index(b"end_header\n") + len(b"end_header\n")
    return content[:start], content[start:]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("faces", [FACES, []])
@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.replace(b"\n", b"\r"),
        lambda head: head.replace(b"\n", b"\r\n"),
        lambda head: head.upper(),
        lambda head: head.replace(b"float x", b"float X").replace(b"float z", b"Float Z"),
        lambda head: head.replace(b"vertex_indices", b"Vertex_Indices"),
        lambda head: head.replace(b"element vertex", b"Element Vertex"),
        lambda head: head.replace(b"ply\n", b"ply\n\ncomment first, by some tool in ascii\n"),
        lambda head: head.replace(b"comment made", b"comment before end_header"),
    ],
    ids=["returns", "both", "capitals", "x and z", "list", "element", "comment first", "end"],
)
def test_headers_may_be_written_in_other_ways(tmp_path, form, faces, change):
    head, body = parts(ply(form, faces=faces))
    expected = sampled(tmp_path / "mesh.ply", head + body)
    assert torch.equal(sampled(tmp_path / "mesh.ply", change(head) + body), expected)


def test_a_text_may_end_all_its_lines_by_returns(tmp_path):
    expected = sampled(tmp_path / "mesh.ply", ply())
    assert torch.equal(sampled(tmp_path / "mesh.ply", ply().replace(b"\n", b"\r")), expected)


@pytest.mark.parametrize("form", FORMS)
def test_normals_may_be_in_capital_letters(tmp_path, form):
    head, _ = parts(ply(form, faces=[]))
    normals = b"".join(b"property float N%s\n" % name for name in (b"X", b"Y", b"Z"))
    head = head.replace(b"property float x", normals + b"property float X")
    rows = np.array([[0, 0, 1, *point] for point in POINTS], "<f4")
    text = "\n".join(" ".join(map(str, row)) for row in rows.tolist())
    path = tmp_path / "cloud.ply"
    path.write_bytes(head + (text.encode() if form == "ascii" else rows.tobytes()))
    data = read_points(path, normalize=False, with_normals=True)
    assert data.pos.tolist() == POINTS and data.normal.tolist() == [[0, 0, 1]] * 6


@pytest.mark.parametrize("form", FORMS)
def test_names_that_differ_in_capital_letters_are_two(tmp_path, form):
    head, body = parts(ply(form, faces=[]))
    for old, new in ((b"float z", b"float X"), (b"vertex 6", b"vertex 6\nproperty float z")):
        head = head.replace(old, new)
    # Each row of the text, and of the bytes, has one number more.
    rows = np.array([[5, *point] for point in POINTS], "<f4")
    text = "\n".join(" ".join(map(str, row)) for row in rows.tolist()).encode()
    found = sampled(tmp_path / "cloud.ply", head + (text if form == "ascii" else rows.tobytes()))
    assert found.tolist() == [[x, y, 5] for x, y, _ in POINTS]


@pytest.mark.parametrize("form", FORMS)
def test_vertices_without_coordinates_are_told(tmp_path, form):
    content = ply(form).replace(b"float z", b"float h")
    with pytest.raises(FileError, match="damaged or empty .its vertices have no x, y and z"):
        sampled(tmp_path / "mesh.ply", content)


@pytest.mark.parametrize("form", FORMS)
def test_a_line_that_is_none_of_a_header_is_told(tmp_path, form):
    head, body = parts(ply(form))
    for line in (b"property quad x", b"element vertex six", b"property float", b"element vertex"):
        broken = head.replace(b"property float x", line)
        with pytest.raises(FileError, match=f"its header has the line '{line.decode()}'"):
            sampled(tmp_path / "mesh.ply", broken + body)
    twice = head.replace(b"element face", b"element vertex")
    with pytest.raises(FileError, match="its header has two elements 'vertex'"):
        sampled(tmp_path / "mesh.ply", twice + body)


def test_a_name_may_have_a_blank(tmp_path):
    head = ["ply", "format ascii 1.0", "element vertex 3", *(f"property float {n}" for n in "xyz")]
    head += ["property double time stamp", "end_header", "0 0 0 5", "1 0 0 6", "0 2 0 7", ""]
    path = tmp_path / "scan.ply"
    path.write_text("\n".join(head))
    cloud = read_points(path, 3, normalize=False).pos
    assert sorted(cloud.tolist()) == [[0, 0, 0], [0, 2, 0], [1, 0, 0]]

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

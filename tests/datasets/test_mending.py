"""OBJ and STL files that trimesh alone would misread."""

import os

import numpy as np
import pytest
import torch
import trimesh

from pcequi.datasets.readers import read_points
from pcequi.errors import FileError

BOX = trimesh.creation.box((1, 1, 1))


def sampled(path, content):
    path.write_bytes(content)
    return read_points(path, 60, normalize=False).pos


def obj(relative, normals=False, ending="\n"):
    """Two boxes, the second at 9, each an object whose faces follow its corners."""
    lines = []
    for number in range(2):
        lines += [f"o box{number}"]
        lines += [f"v {x} {y} {z}" for x, y, z in (BOX.vertices + 9 * number).tolist()]
        lines += ["vn 0 0 1"] * 3 * normals
        for face in BOX.faces:
            corners = face - 8 if relative else face + 1 + 8 * number
            normal = ("//-3" if relative else f"//{3 * number + 1}") * normals
            lines.append("f " + " ".join(f"{corner}{normal}" for corner in corners))
    return ending.join([*lines, ""]).encode("latin-1")


@pytest.mark.parametrize("normals", [False, True])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n# é\n"])
def test_faces_that_count_back_are_those_of_their_object(tmp_path, normals, ending):
    expected = sampled(tmp_path / "boxes.obj", obj(False, normals))
    found = sampled(tmp_path / "boxes.obj", obj(True, normals, ending))
    assert torch.equal(found, expected)
    assert found.min() < 1 and found.max() > 8


def test_rows_that_go_on_may_count_back(tmp_path):
    expected = sampled(tmp_path / "boxes.obj", obj(False))
    content = obj(True).replace(b"f ", b"f \\\n")
    assert torch.equal(sampled(tmp_path / "boxes.obj", content), expected)


def test_a_face_that_counts_back_too_far_is_damage(tmp_path):
    content = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -4\nv 0 0 1\n"
    with pytest.raises(FileError, match="damaged or empty .a face refers to -4, and 3 stand above"):
        sampled(tmp_path / "mesh.obj", content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content.removeprefix(b"o box0\n"),
        lambda content: content.replace(b"f ", b"  f "),
        lambda content: content.replace(b"v ", b" \tv "),
        lambda content: content.replace(b"f ", b"f\t"),
        lambda content: content.replace(b"\n", b" # of a box\n"),
        lambda content: content.replace(b"\n", b"\r"),
    ],
    ids=["mark", "blanks", "blanks and tab", "tab", "comments", "returns"],
)
def test_no_row_of_an_obj_is_passed_over(tmp_path, change):
    expected = sampled(tmp_path / "boxes.obj", obj(False))
    assert torch.equal(sampled(tmp_path / "boxes.obj", change(obj(False))), expected)


def test_corners_that_are_counted_from_0_are_damage(tmp_path):
    rows = [f"v {x} {y} {z}" for x, y, z in BOX.vertices.tolist()]
    for face in ("f 0 1 2", "f 2 0/1 1", "f 1 2 0"):
        with pytest.raises(FileError, match="refers to 0, and corners are counted from 1"):
            sampled(tmp_path / "box.obj", "\n".join([*rows, "f 1 2 3", face]).encode())


@pytest.mark.parametrize("header", [b"", b"solid of some program"])
def test_what_follows_the_triangles_of_a_binary_stl_is_left_out(tmp_path, header):
    whole = header.ljust(80, b" ") + BOX.export(file_type="stl")[80:]
    expected = sampled(tmp_path / "box.stl", whole)
    for more in (b"\n", b"\0" * 50, b"made by hand\r\n"):
        assert torch.equal(sampled(tmp_path / "box.stl", whole + more), expected)


@pytest.mark.parametrize("header", [b"", b"solid of some program"])
def test_a_binary_stl_that_is_cut_says_so(tmp_path, header):
    whole = header.ljust(80, b" ") + BOX.export(file_type="stl")[80:]
    for cut, held in ((1, 11), (50, 11), (600, 0)):
        with pytest.raises(FileError, match=f"announces 12 triangles and holds {held}"):
            sampled(tmp_path / "box.stl", whole[:-cut])


def test_a_text_stl_that_is_cut_says_so(tmp_path):
    one = BOX.export(file_type="stl_ascii").encode()
    other = BOX.copy().apply_translation([9, 9, 9]).export(file_type="stl_ascii").encode()
    assert np.ptp(sampled(tmp_path / "box.stl", one + b"\n" + other).numpy()) > 8
    for whole in (one, one + b"\n" + other):
        for cut in (20, 150, 400):
            with pytest.raises(FileError, match="damaged or empty .its last solid has no end"):
                sampled(tmp_path / "box.stl", whole[:-cut])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: b"\xef\xbb\xbf\r\n" + content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.replace(b"solid", "solid Prüfstück".encode("latin-1"), 1),
    ],
    ids=["mark", "mark and both", "returns", "name"],
)
def test_a_text_stl_may_be_written_in_other_ways(tmp_path, change):
    content = BOX.export(file_type="stl_ascii").encode()
    expected = sampled(tmp_path / "box.stl", content)
    assert torch.equal(sampled(tmp_path / "box.stl", change(content)), expected)
    with pytest.raises(FileError, match="damaged or empty .its last solid has no end"):
        sampled(tmp_path / "box.stl", change(content)[:-20])


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_names_of_meshes_may_be_no_text(tmp_path, kind):
    content = BOX.export(file_type=kind)
    content = content if isinstance(content, bytes) else content.encode()
    expected = sampled(tmp_path / f"box.{kind}", content)
    odd = tmp_path / os.fsdecode(b"t\xfcr." + kind.encode())  # in Latin-1
    assert torch.equal(sampled(odd, content), expected)

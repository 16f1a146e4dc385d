"""OFF files in all their forms, sampling by area, normalising."""

import numpy as np
import pytest

from pcequi.datasets.meshes import normalize_cloud, parse_off, read_off, sample_mesh
from pcequi.errors import DataError, FileError

SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
TRIANGLES = "3 0 1 2\n3 0 2 3\n"


@pytest.mark.parametrize(
    "text",
    [
        "OFF\n4 2 0\n" + SQUARE + TRIANGLES,
        "OFF4 2 0\n" + SQUARE + TRIANGLES,
        "OFF 4 2 0\n" + SQUARE + TRIANGLES,
        "off\r\n4 2 0\r\n" + (SQUARE + TRIANGLES).replace("\n", "\r\n"),
        "OFF\n# a comment\n\n4 2 0 # counts\n" + SQUARE + "\n" + TRIANGLES,
        "OFF\n4 1 0\n" + SQUARE + "4 0 1 2 3\n",
        "OFF\n4 2 0\n" + SQUARE + "3 0 1 2 255 0 0\n3 0 2 3 0.5 0.5 0.5\n",
        "OFF\n4 2 0\n" + SQUARE + "3 0 1 2\n3 0 2 3 0.5 0.5 0.5\n",
        "OFF\n4 2\n" + SQUARE + "3 0 1 2 7\n3 0 2 3\n",
        "NOFF\n4 2 0\n" + SQUARE.replace("\n", " 0 0 1\n") + TRIANGLES,
    ],
    ids=[
        "own-line",
        "run-together",
        "one-line",
        "crlf",
        "comments",
        "quad",
        "colours",
        "colours-later",
        "mixed",
        "noff",
    ],
)
def test_every_form_of_off_gives_the_same_mesh(text):
    vertices, faces = parse_off(text.encode())
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_edges_and_points_make_no_triangles():
    vertices, faces = parse_off(b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n2 0 1\n")
    assert vertices.shape == (3, 3)
    assert faces.shape == (0, 3)
    assert parse_off(b"OFF\n1 0 0\n1 2 3\n")[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start with OFF"),
        ("ply\n", "does not start with OFF"),
        ("OFF BINARY\n\x00", "binary OFF"),
        ("OFF\n", "numbers of vertices and faces are missing"),
        ("OFF\nfour two\n", "numbers of vertices and faces are missing"),
        ("OFF\n0 0 0\n", "announces 0 vertices"),
        ("OFF\n4 2 0\n" + SQUARE + "3 0 1 2\n", "announces 4 vertices and 2 faces, and holds 5"),
        (
            "OFF\n4 2 0\n" + SQUARE.replace("1 1 0", "1 x 0") + TRIANGLES,
            "cannot be read as numbers",
        ),
        ("OFF\n4 2 0\n" + SQUARE.replace("1 1 0", "1 1") + TRIANGLES, "cannot be read as numbers"),
        # As many numbers as there should be, in the wrong lines.
        (
            "OFF\n4 2 0\n" + SQUARE.replace("1 1 0", "1 1").replace("0 1 0", "0 1 0 0") + TRIANGLES,
            "cannot be read as numbers",
        ),
        ("OFF\n4 2 0\n" + SQUARE.replace("1 1 0", "1 nan 0") + TRIANGLES, "NaN or infinite"),
        ("OFF\n4 2 0\n" + SQUARE + "3 0 1 2\n3 0 2 4\n", r"outside 0 \.\.\. 3"),
        ("OFF\n4 2 0\n" + SQUARE + "3 0 1 2\n3 0 -1 2\n", r"outside 0 \.\.\. 3"),
        ("OFF\n4 2 0\n" + SQUARE + "3 0 1 2\n4 0 2 3\n", "cannot be read as numbers"),
    ],
)
def test_a_damaged_off_file_says_what_is_wrong(tmp_path, text, reason):
    path = tmp_path / "shape.off"
    path.write_text(text)
    with pytest.raises(FileError, match=reason) as caught:
        read_off(path)
    assert "shape.off" in str(caught.value) and "again" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"`path` \(='.*none.off'\) cannot be read"):
        read_off(tmp_path / "none.off")


def test_samples_are_uniform_by_area_and_on_the_surface():
    # Two triangles in the planes z = 0 and x = 5, of areas 3 : 1.
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 2, 0], [5, 0, 0], [5, 1, 0], [5, 0, 2.0]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    points, normals = sample_mesh(vertices, faces, 20000, np.random.default_rng(0))
    first = points[:, 0] < 4
    assert abs(first.mean() - 0.75) < 0.01
    assert np.abs(points[first, 2]).max() == 0
    assert (points[first, 0] / 3 + points[first, 1] / 2).max() <= 1 + 1e-12
    # A uniform sample of a triangle has its centroid as mean.
    assert np.abs(points[first].mean(0) - vertices[:3].mean(0)).max() < 0.02
    assert np.allclose(normals[first], [0, 0, 1]) and np.allclose(normals[~first], [1, 0, 0])


@pytest.mark.parametrize("faces", [np.zeros((0, 3), int), np.array([[0, 0, 1]])])
def test_a_mesh_without_area_is_sampled_at_its_vertices(faces):
    vertices = np.array([[0, 0, 0], [1, 0, 0.0]])
    points, normals = sample_mesh(vertices, faces, 50, np.random.default_rng(0))
    assert {tuple(p) for p in points} == {(0, 0, 0), (1, 0, 0)}
    assert (normals == 0).all()


def test_normalised_clouds_have_zero_mean_and_unit_radius():
    points = normalize_cloud(np.random.default_rng(0).normal(size=(100, 3)) * 40 + 7)
    assert np.abs(points.mean(0)).max() < 1e-15
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-15)


def test_clouds_without_extent_go_to_the_origin():
    assert (normalize_cloud(np.full((7, 3), 0.1)) == 0).all()
    assert (normalize_cloud(np.array([[3.0, 2, 1]])) == 0).all()


def test_unusable_clouds_are_named():
    with pytest.raises(DataError, match="`cup` is empty"):
        normalize_cloud(np.zeros((0, 3)), "cup")
    with pytest.raises(DataError, match="`cup` has 1 of 2 points with NaN or infinite"):
        normalize_cloud(np.array([[0, 0, 0], [np.inf, 0, 0]]), "cup")

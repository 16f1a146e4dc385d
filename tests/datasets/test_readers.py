"""One cloud from one file, in every format."""

import os
import threading

import numpy as np
import pytest
import torch
import trimesh

from pcequi.datasets.readers import ENDINGS, read_points
from pcequi.errors import ArgumentError, DataError, FileError


@pytest.fixture
def cloud() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 3))


@pytest.mark.parametrize("ending", [".off", ".obj", ".ply", ".stl", ".glb"])
def test_meshes_are_sampled_at_their_surface(tmp_path, ending):
    path = tmp_path / f"box{ending}"
    trimesh.creation.box((2, 1, 1)).export(path)
    data = read_points(path, 500, with_normals=True, normalize=False)
    assert data.pos.shape == data.normal.shape == (500, 3)
    assert data.pos.dtype == data.normal.dtype == torch.float32
    half = torch.tensor([1.0, 0.5, 0.5])
    assert ((data.pos.abs() / half).amax(dim=1) - 1).abs().max() < 1e-5
    # Outside is where the normal points.
    assert ((data.pos / half) * data.normal).sum(1).min() > 0.99
    again, other = read_points(path, 500, normalize=False), read_points(path, 500, seed=1)
    assert torch.equal(data.pos, again.pos) and not torch.equal(data.pos, other.pos)
    assert other.pos.norm(dim=1).max() == pytest.approx(1) and "normal" not in other


def write(path, table):
    if path.suffix == ".npy":
        np.save(path, table)
    elif path.suffix == ".npz":
        np.savez(path, points=table)
    else:
        comma = "," if path.suffix == ".txt" else " "
        np.savetxt(path, table, delimiter=comma, header="x y z")
    return path


@pytest.mark.parametrize("ending", [".xyz", ".txt", ".npy", ".npz"])
def test_clouds_are_kept_whole_or_thinned(tmp_path, cloud, ending):
    path = write(tmp_path / f"cloud{ending}", cloud)
    whole = read_points(path, normalize=False)
    assert np.allclose(whole.pos.numpy(), cloud, atol=1e-6)
    few = read_points(path, 20, normalize=False).pos
    assert few.shape == (20, 3) and len(few.unique(dim=0)) == 20
    assert (few[:, None] == whole.pos).all(-1).any(1).all()


@pytest.mark.parametrize("ending", [".xyz", ".txt", ".npy", ".npz"])
def test_columns_four_to_six_are_normals(tmp_path, cloud, ending):
    normals = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    path = write(tmp_path / f"cloud{ending}", np.concatenate([cloud, normals], axis=1))
    data = read_points(path, 20, with_normals=True, normalize=False)
    expected = torch.nn.functional.normalize(data.pos, dim=1)
    assert torch.allclose(data.normal, expected, atol=1e-5)
    assert "normal" not in read_points(path)


def test_npz_finds_its_arrays_by_name(tmp_path, cloud):
    path = tmp_path / "named.npz"
    normals = np.tile([0, 0, 1.0], (50, 1))
    np.savez(path, label=np.array([3]), pos=cloud, normal=normals)
    data = read_points(path, with_normals=True, normalize=False)
    assert np.allclose(data.pos, cloud, atol=1e-6) and torch.equal(data.normal[0], torch.eye(3)[2])
    np.savez(path, a=cloud, b=cloud)
    with pytest.raises(FileError, match=r"none is called pos or points"):
        read_points(path)


def test_a_mesh_format_without_faces_is_a_cloud(tmp_path, cloud):
    path = tmp_path / "scan.ply"
    trimesh.PointCloud(cloud).export(path)
    assert read_points(path, 30).pos.shape == (30, 3)
    assert read_points(path).pos.shape == (50, 3)
    (tmp_path / "scan.off").write_text("OFF\n2 0 0\n0 0 0\n1 1 1\n")
    assert read_points(tmp_path / "scan.off").pos.shape == (2, 3)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_a_ply_cloud_has_the_normals_of_its_columns(tmp_path, cloud, form):
    path = tmp_path / "scan.ply"
    names = ["x", "y", "z", "nx", "ny", "nz"]
    lines = ["ply", f"format {form} 1.0", f"element vertex {len(cloud)}"]
    lines += [*(f"property float {name}" for name in names), "end_header", ""]
    normals = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    table = np.concatenate([cloud, normals], axis=1).astype("<f4")
    body = table.tobytes()
    if form == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in table.tolist()).encode()
    path.write_bytes("\n".join(lines).encode() + body)
    data = read_points(path, 20, with_normals=True, normalize=False)
    expected = torch.nn.functional.normalize(data.pos, dim=1)
    assert data.pos.shape == (20, 3) and torch.allclose(data.normal, expected, atol=1e-5)
    assert "normal" not in read_points(path)


def test_a_scene_of_several_parts_keeps_their_places(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box((1, 1, 1)))
    away = trimesh.transformations.translation_matrix([10, 0, 0])
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=away)
    scene.export(tmp_path / "two.glb")
    pos = read_points(tmp_path / "two.glb", 400, normalize=False).pos
    assert pos[:, 0].min() < 0 and pos[:, 0].max() > 9


def test_one_point_and_duplicates_work(tmp_path):
    path = tmp_path / "one.xyz"
    path.write_text("1 2 3\n")
    assert torch.equal(read_points(path).pos, torch.zeros(1, 3))
    path.write_text("1 2 3\n1 2 3\n")
    assert torch.equal(read_points(path).pos, torch.zeros(2, 3))


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(FileError, match=r"`path` \(='.*gone.ply'\) does not exist"):
        read_points(tmp_path / "gone.ply")
    unknown = tmp_path / "cloud.las"
    unknown.write_text("")
    with pytest.raises(FileError, match=r"unknown format: it must end in \.off"):
        read_points(unknown)
    folder = tmp_path / "folder.ply"
    folder.mkdir()
    with pytest.raises(FileError, match="is a folder: name files"):
        read_points(folder)


def test_a_device_is_refused_and_a_pipe_is_read(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs devices as files")
    path = tmp_path / "zero.xyz"
    path.symlink_to("/dev/zero")  # which has no end
    with pytest.raises(FileError, match=r"`path` \(='.*zero.xyz'\) is a device, not a file: name"):
        read_points(path)
    with pytest.raises(FileError, match="is a device"):
        read_points("/dev/null")
    pipe = tmp_path / "pipe.xyz"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("1 2 3\n4 5 6\n",), daemon=True)
    writer.start()
    assert len(read_points(pipe).pos) == 2
    writer.join()


def test_a_file_out_of_reach_is_not_called_missing_or_damaged(tmp_path, monkeypatch):
    with pytest.raises(
        FileError, match=r"cannot be reached \(File name too long\): check the path"
    ):
        read_points(tmp_path / ("n" * 300) / "cloud.xyz")
    path = tmp_path / "cloud.xyz"
    path.write_text("1 2 3\n")
    monkeypatch.setattr("pcequi.datasets.readers.may_read", lambda path: False)
    with pytest.raises(FileError, match=r"cannot be read \(Permission denied\): check its perm"):
        read_points(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"\x00\xff garbage \x93 1 2\n3 4", b"solid nothing\n"])
def test_damaged_files_are_a_file_error(tmp_path, ending, content):
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"damaged|not a usable OFF|cannot be read as"):
        read_points(path)


def test_lines_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "cloud.xyz"
    for text, reason in (
        ("1 2 3\n4 5\n", "line 2 is '4 5', and no row of 3 numbers"),
        ("# a scan\n\n1 2 3\n4 5 six\n", "line 4 is '4 5 six'"),
        ("1 2 x\n3 4 5\n", "line 1 is '1 2 x'"),
        ("7\nhalf a file\n1 2 3\n", "announces 7 points and holds 1"),
        ("0,25 0,5 1,75\n", "decimal commas"),
        ("0,25;0,5;1,75\n", "decimal commas"),
        (b"\xff\xfe1\x00\x00", "no text in UTF-8"),
    ):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(FileError, match="cannot be read as a cloud") as refused:
            read_points(path)
        assert reason in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "//X Y Z\n1 2 3\n4 5 6\n",
        "x y z\n1 2 3\n4 5 6\n",
        "2\nmade by hand\n1 2 3\n4 5 6\n",
        "2\n1 2 3\n4 5 6\n",
        "\ufeff1 2 3\r\n4 5 6\r\n",
        "1;2;3\n4;5;6\n",
        "1.0, 2.0, 3.0\n4,5,6\n",
        "1\t2\t3 # the first\n\n// between\n4 5 6",
    ],
)
def test_text_of_many_kinds_is_read(tmp_path, text):
    path = tmp_path / "cloud.xyz"
    path.write_bytes(text.encode())
    found = read_points(path, normalize=False).pos
    assert torch.equal(found, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cloud.csv", '"x","y","z"\n1,2,3\n4,5,6\n'),
        ("cloud.CSV", "x;y;z;label\n1;2;3;0\n4;5;6;1\n"),
        ("cloud.csv", "time, X, Y, Z\n0.1, 1, 2, 3\n0.2, 4, 5, 6\n"),
        ("cloud.csv", "z,y,x\n3,2,1\n6,5,4\n"),
        ("cloud.csv", ",x,y,z\n0,1,2,3\n1,4,5,6\n"),  # pandas, with its index
        ("cloud.csv", "x,y,z,\n1,2,3,\n4,5,6,\n"),
        ("cloud.txt", "# intensity x y z\n9 1 2 3\n9 4 5 6\n"),
        ("cloud.pts", "2\n1 2 3 -817 71 61 44\n4 5 6 -735 70 60 43\n"),
        ("cloud.pts", "1 2 3\n4 5 6\n"),
        ("cloud.xyzrgb", "1 2 3 1 0 0\n4 5 6 0 1 0\n"),
        ("cloud.xyzn", "1 2 3 1 0 0\n4 5 6 0 1 0\n"),
    ],
)
def test_text_by_other_endings_is_read(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    found = read_points(path, normalize=False)
    assert torch.equal(found.pos, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert "normal" not in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cloud.xyzn", "1 2 3 1 0 0\n4 5 6 0 1 0\n"),
        ("cloud.csv", "x,y,z,nx,ny,nz\n1,2,3,1,0,0\n4,5,6,0,1,0\n"),
        ("cloud.csv", "x,y,z,r,g,b,nx,ny,nz\n1,2,3,9,9,9,1,0,0\n4,5,6,9,9,9,0,1,0\n"),
        ("cloud.txt", "//NX NY NZ X Y Z\n1 0 0 1 2 3\n0 1 0 4 5 6\n"),
    ],
)
def test_normals_of_text_by_other_endings(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    found = read_points(path, normalize=False, with_normals=True)
    assert torch.equal(found.pos, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert torch.equal(found.normal, torch.eye(3)[:2])


def test_colours_are_no_normals(tmp_path):
    for name, text in (("a.xyzrgb", "1 2 3 1 0 0\n"), ("a.pts", "1\n1 2 3 1 0 0 9\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="has no normals"):
            read_points(tmp_path / name, with_normals=True)


def test_a_count_that_does_not_fit_is_an_error_in_pts(tmp_path):
    (tmp_path / "cut.pts").write_text("3\n1 2 3\n4 5 6\n")
    with pytest.raises(FileError, match="announces 3 points and holds 2"):
        read_points(tmp_path / "cut.pts")


def test_layouts_that_hold_no_cloud_are_refused(tmp_path):
    path = tmp_path / "cloud.npy"
    for shape, reason in (
        ((4, 3, 3), r"its shape is \[4, 3, 3\]"),
        ((5, 2), r"its shape is \[5, 2\]"),
    ):
        np.save(path, np.zeros(shape))
        with pytest.raises(FileError, match=rf"holds no cloud \({reason}"):
            read_points(path)
    np.savez(tmp_path / "cloud.npz", a=np.zeros((4, 3)), b=np.zeros((4, 3)))
    with pytest.raises(FileError, match="none is called pos or points or xyz"):
        read_points(tmp_path / "cloud.npz")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".txt"])
def test_tables_with_more_columns_than_points_have_are_refused(tmp_path, ending):
    for shape, reason in (
        ((3, 500), "3 points of 500 columns, which looks transposed: save one point a row"),
        ((6, 1000), "6 points of 1000 columns, which looks transposed"),
        ((48, 640), "48 points of 640 columns, which looks like an image or a grid: save the poi"),
        ((480, 70), "480 points of 70 columns, which looks like an image"),
    ):
        path = write(tmp_path / f"cloud{ending}", np.ones(shape))
        with pytest.raises(FileError, match=reason):
            read_points(path)
    # Points may carry features.
    path = write(tmp_path / f"cloud{ending}", np.random.default_rng(0).normal(size=(5, 60)))
    assert read_points(path).pos.shape == (5, 3)


def test_records_are_read_by_the_names_of_their_fields(tmp_path, cloud):
    records = np.zeros(50, dtype=[("intensity", "f4"), ("x", "f8"), ("y", "f8"), ("z", "f8")])
    for place, name in enumerate("xyz"):
        records[name] = cloud[:, place]
    np.save(tmp_path / "cloud.npy", records)
    plain = read_points(tmp_path / "cloud.npy", normalize=False).pos
    assert torch.equal(plain, torch.from_numpy(cloud.astype(np.float32)))


def test_pickles_are_not_run(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="Python objects, which are not read.*np.save"):
        read_points(tmp_path / "objects.npy")


def test_not_a_number_is_a_data_error(tmp_path):
    path = tmp_path / "cloud.xyz"
    path.write_text("1 2 3\n4 nan 6\n")
    with pytest.raises(DataError, match="1 of 2 points with NaN or infinite"):
        read_points(path, normalize=False)


def test_places_without_a_return_are_left_out_of_pcd_files_alone(tmp_path):
    """The rule of docs/own-data.md, and that the remedy of the error is one."""
    points = np.random.default_rng(0).normal(size=(20, 3))
    points[::4] = np.nan
    head = "FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nWIDTH 20\nHEIGHT 1\nDATA ascii\n"
    np.savetxt(tmp_path / "scan.pcd", points, header=head.strip(), comments="")
    assert len(read_points(tmp_path / "scan.pcd").pos) == 15
    np.save(tmp_path / "scan.npy", points)
    trimesh.PointCloud(points).export(tmp_path / "scan.ply")
    for name in ("scan.npy", "scan.ply"):
        with pytest.raises(DataError, match="5 of 20 points .*leave them out, `points.* or save"):
            read_points(tmp_path / name)
    np.save(tmp_path / "scan.npy", points[np.isfinite(points[:, :3]).all(axis=1)])
    assert len(read_points(tmp_path / "scan.npy").pos) == 15


@pytest.mark.parametrize("ending", [".xyz", ".npy", ".npz"])
def test_one_bad_point_of_many_is_found_whatever_is_drawn(tmp_path, ending):
    points = np.random.default_rng(0).normal(size=(300, 3))
    points[137] = np.nan
    path = write(tmp_path / f"cloud{ending}", points)
    for seed in range(4):
        with pytest.raises(DataError, match="1 of 300 points with NaN or infinite"):
            read_points(path, num_points=10, seed=seed)


def test_normals_that_are_missing_or_no_normals_are_refused(tmp_path, cloud):
    path = write(tmp_path / "cloud.xyz", cloud)
    with pytest.raises(DataError, match="has no normals: pass with_normals=False"):
        read_points(path, with_normals=True)
    write(path, np.concatenate([cloud, np.full((50, 3), 128.0)], axis=1))
    with pytest.raises(DataError, match="are not unit vectors"):
        read_points(path, with_normals=True)


def test_arguments_out_of_range_are_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"`num_points` \(=0\)"):
        read_points(tmp_path / "any.off", 0)
    with pytest.raises(ArgumentError, match=r"`seed` \(=-1\)"):
        read_points(tmp_path / "any.off", seed=-1)

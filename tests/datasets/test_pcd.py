"""PCD: the three forms hold the same cloud, and damage is named."""

import numpy as np
import pytest
import torch

from pcequi.datasets.pcd import decompress_lzf, read_pcd
from pcequi.datasets.readers import read_points
from pcequi.errors import DataError, FileError

FIELDS = "x y rgb z _ normal_x normal_y normal_z _"


@pytest.fixture
def table():
    """Eleven points with normals, between fields that are of no use here."""
    rng = np.random.default_rng(0)
    kind = [("x", "<f4"), ("y", "<f4"), ("rgb", "<u4"), ("z", "<f4"), ("pad", "u1", 3)]
    kind += [("normal_x", "<f4"), ("normal_y", "<f4"), ("normal_z", "<f4"), ("end", "<i2")]
    rows = np.zeros(11, kind)
    for name in "xyz":
        rows[name] = rng.normal(size=11)
    normals = rng.normal(size=(11, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for place, name in enumerate("xyz"):
        rows[f"normal_{name}"] = normals[:, place]
    rows["rgb"], rows["pad"], rows["end"] = 7, 255, -1
    return rows


def header(form, num=11):
    return (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {FIELDS}\nSIZE 4 4 4 4 1 4 4 4 2\n"
        f"TYPE F F U F U F F F I\nCOUNT 1 1 1 1 3 1 1 1 1\nWIDTH {num}\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {num}\nDATA {form}\n"
    ).encode()


def literal_lzf(content):
    """LZF that compresses nothing: runs of up to 32 literal bytes."""
    runs = [content[start : start + 32] for start in range(0, len(content), 32)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def write(path, form, table):
    if form == "ascii":
        lines = [
            " ".join(str(v) for value in row.tolist() for v in np.atleast_1d(value))
            for row in table
        ]
        body = "\n".join(lines).encode() + b"\n"
    elif form == "binary":
        body = table.tobytes()
    else:
        body = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in table.dtype.names)
        packed = literal_lzf(body)
        body = np.array([len(packed), len(body)], "<u4").tobytes() + packed
    path.write_bytes(header(form, len(table)) + body)
    return path


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_each_form_is_read(tmp_path, table, form):
    path = write(tmp_path / "scan.pcd", form, table)
    found = read_pcd(path)
    names = ["x", "y", "z", "normal_x", "normal_y", "normal_z"]
    assert np.allclose(found, np.stack([table[name] for name in names], 1), atol=1e-6)
    data = read_points(path, with_normals=True, normalize=False)
    assert np.allclose(data.pos, found[:, :3], atol=1e-6)
    assert np.allclose(data.normal, found[:, 3:], atol=1e-6)
    assert read_points(path, 4).pos.shape == (4, 3)


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_places_where_nothing_was_seen_are_left_out(tmp_path, table, form):
    table["x"][3], table["z"][7] = np.nan, np.inf
    assert len(read_pcd(write(tmp_path / "scan.pcd", form, table))) == 9
    table["y"] = np.nan
    with pytest.raises(FileError, match="holds no points"):
        read_points(write(tmp_path / "scan.pcd", form, table))


def test_without_normals_and_as_doubles(tmp_path):
    path = tmp_path / "scan.pcd"
    path.write_text(
        "FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nWIDTH 2\nHEIGHT 1\nDATA ascii\n1 2 3\n4 5 6e-1\n"
    )
    assert read_pcd(path).tolist() == [[1, 2, 3], [4, 5, 0.6]]
    with pytest.raises(DataError, match="has no normals"):
        read_points(path, with_normals=True)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"DATA binary\n", b"DATA zipped\n", "'zipped' is not ascii, binary or binary_compressed"),
        (b"FIELDS x", b"FIELDS q", "no single field 'x'"),
        (b"SIZE 4", b"SIZE 5", "are unknown"),
        (b"TYPE F", b"TYPE Q", "are unknown"),
        (b"COUNT 1 ", b"COUNT ", "differ in number"),
        (b"COUNT 1 1 1 1 3", b"COUNT 1 1 1 1 0", "a COUNT is below 1"),
        (b"WIDTH 11\n", b"", "its header lacks WIDTH"),
        (b"POINTS 11", b"POINTS 12", "announces 396 bytes and holds 363"),
        (b"POINTS 11", b"POINTS -1", "announces -1 points"),
        (b"POINTS 11", b"POINTS many", "many"),
    ],
)
def test_damage_is_named(tmp_path, table, old, new, reason):
    path = write(tmp_path / "scan.pcd", "binary", table)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(FileError, match=f"scan.pcd.*damaged or empty.*{reason}"):
        read_points(path)


def test_ascii_that_is_cut_short_or_ragged(tmp_path, table):
    path = write(tmp_path / "scan.pcd", "ascii", table)
    text = path.read_text()
    path.write_text("\n".join(text.splitlines()[:-2]))
    with pytest.raises(FileError, match="announces 11 points and holds 9"):
        read_points(path)
    path.write_text(text.replace("255 255 255", "255", 11))
    with pytest.raises(FileError, match="does not hold the 11 values"):
        read_points(path)


def test_lzf_copies_what_came_before():
    # "abc", then 9 bytes from 3 back, which reach into the copy, then "d".
    assert (
        decompress_lzf(bytes([2]) + b"abc" + bytes([7 << 5, 0, 2, 0]) + b"d", 13)
        == b"abc" * 4 + b"d"
    )
    # A short copy: three bytes from four back.
    assert decompress_lzf(bytes([3]) + b"wxyz" + bytes([1 << 5, 3]), 7) == b"wxyzwxy"
    # Far back: 300 bytes.
    far = bytes(range(250)) + bytes(range(50))
    packed = literal_lzf(far) + bytes([(1 << 5) | (299 >> 8), 299 & 255])
    assert decompress_lzf(packed, 303) == far + far[:3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytes([32, 0]), "before their beginning"),
        (bytes([0, 65, 7 << 5]), "end too early"),
        (bytes([4, 65]), "hold 1 bytes, not 5"),
    ],
)
def test_damaged_lzf(content, reason):
    with pytest.raises(ValueError, match=reason):
        decompress_lzf(content, 5)


def test_comments_may_be_in_any_encoding_and_a_mark_may_be_first(tmp_path, table):
    path = write(tmp_path / "cloud.pcd", "ascii", table)
    content = path.read_bytes()
    wanted = read_points(path).pos
    for comment in ("# Gebäude 7\n".encode(), "# Gebäude 7\n".encode("latin-1"), b"\xef\xbb\xbf"):
        path.write_bytes(comment + content)
        assert torch.equal(read_points(path).pos, wanted)

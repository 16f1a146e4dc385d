"""Any bytes, and valid files that were changed, give a cloud or an error that names the file."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcequi.datasets import ModelNet
from pcequi.datasets.packed import read_packed
from pcequi.datasets.readers import READABLE, read_points
from pcequi.errors import DataError, FileError

TOOLS = Path(__file__).parents[2] / "tools"
# The same examples each time: the many and the new ones are those of `make fuzz`.
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
KINDS = (
    *READABLE, "packed", "packed.xz", "archive", "scanobjectnn.h5", "part.txt", "part-list.json",
    "part-classes.txt", "test-list.txt", "model.safetensors", "model.json",
    "pretrained.safetensors", "config.json", "tensors", "state", "settings.json", "report.json",
    "metrics.jsonl", "hardest.json", "store.json", "chunk", "chunk-unchecked",
)  # fmt: skip
SLOW = ("archive", ".glb", ".obj", "state", "scanobjectnn.h5", "part.txt", "part-list.json",
    "model.safetensors", "model.json", "pretrained.safetensors", "config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def fuzz():
    """The module ``tools/fuzz_readers.py``."""
    sys.path.insert(0, str(TOOLS))
    try:
        import fuzz_readers

        yield fuzz_readers
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def targets(fuzz, tmp_path_factory):
    return fuzz.make_targets(tmp_path_factory.mktemp("fuzz") / "work")


def test_every_kind_of_file_is_tried(fuzz, targets):
    assert set(targets) == set(KINDS) == set(fuzz.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_valid_files_are_read(fuzz, targets, kind):
    examples, read = targets[kind]
    expected = ["read"] * len(examples)
    if kind == "scanobjectnn.h5":
        expected[-1] = "refused"  # its mask is announced, and nothing is held
    assert [fuzz.attempt(read, content) for content in examples] == expected


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in SLOW])
@given(number=st.integers(min_value=10, max_value=10**9))
@QUICK
def test_changed_files(fuzz, targets, kind, number):
    examples, read = targets[kind]
    content = fuzz.make_input(examples, number, seed=0)
    outcome = fuzz.attempt(read, content, fuzz.NAMES.get(kind, ("input", kind)))
    assert outcome in ("read", "refused")


@pytest.mark.parametrize("kind", SLOW)
@given(number=st.integers(min_value=10, max_value=10**9))
@settings(QUICK, max_examples=15)
def test_changed_files_that_take_longer(fuzz, targets, kind, number):
    examples, read = targets[kind]
    content = fuzz.make_input(examples, number, seed=0)
    fuzz.attempt(read, content, fuzz.NAMES.get(kind, ("input", kind)))


@pytest.mark.parametrize("kind", KINDS)
@given(content=st.binary(max_size=120))
@settings(QUICK, max_examples=25)
def test_any_bytes(fuzz, targets, kind, content):
    fuzz.attempt(targets[kind][1], content, fuzz.NAMES.get(kind, ("input", kind)))


def announce(path, shape, kind="<f8"):
    """An .npy file whose header announces more than it holds."""
    np.lib.format.write_array_header_1_0(
        file := path.open("wb"), {"descr": kind, "fortran_order": False, "shape": shape}
    )
    file.write(bytes(48))
    file.close()


@pytest.mark.parametrize("shape", [(1 << 40, 3), (3, 1 << 40), (1 << 62, 1 << 62), (-3, 3)])
def test_a_header_that_announces_too_much_allocates_nothing(tmp_path, shape):
    path = tmp_path / "huge.npy"
    announce(path, shape)
    with pytest.raises(FileError, match=r"huge.npy.*damaged"):
        read_points(path)


@pytest.mark.parametrize("kind", ["<U4", "|V0", "<c16", "|S3"])
def test_arrays_of_other_things_are_refused(tmp_path, kind):
    path = tmp_path / "words.npy"
    np.save(path, np.zeros((4, 3), kind))
    with pytest.raises(FileError, match=r"words.npy.*holds no cloud \(its type is"):
        read_points(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pos.npy", bytes(1 << 20))
    content = path.read_bytes()
    # What the directory announces is all that is looked at, and may be as large as it likes.
    place = content.index(b"PK\x01\x02") + 24
    content = content[:place] + (1 << 30).to_bytes(4, "little") + content[place + 4 :]
    path.write_bytes(content)
    with pytest.raises(FileError, match="bomb.npz.*would unpack to 1073741824 bytes"):
        read_points(path)
    path.rename(tmp_path / "bomb.zip")
    with pytest.raises(FileError, match="bomb.zip.*would unpack to 1073741824 bytes"):
        ModelNet(tmp_path / "root", "10", source=tmp_path / "bomb.zip")


def test_a_damaged_stream_in_an_archive_is_named(tmp_path):
    path = tmp_path / "cloud.npz"
    np.savez_compressed(path, pos=np.random.default_rng(0).normal(size=(200, 3)))
    content = bytearray(path.read_bytes())
    content[60:80] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"cloud.npz.*damaged"):
        read_points(path)
    with pytest.raises(FileError, match=r"cloud.npz"):
        read_packed(path, "train")


@pytest.mark.parametrize("face", ["3 0 1 9", "3 -1 0 1"])
def test_faces_outside_the_vertices_are_refused(tmp_path, face):
    path = tmp_path / "mesh.ply"
    head = ["ply", "format ascii 1.0", "element vertex 3"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    path.write_text("\n".join([*head, "0 0 0", "1 0 0", "0 1 0", face, ""]))
    with pytest.raises(FileError, match=r"mesh.ply.*(outside 0 ... 2|out of bounds)"):
        read_points(path)


def test_a_header_of_a_million_lines_takes_no_time(tmp_path, fuzz):
    path = tmp_path / "long.pcd"
    path.write_bytes(b"\n" * 1_000_000)
    with fuzz.limits(10), pytest.raises(FileError, match="long.pcd.*its header lacks"):
        read_points(path)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e6, 1e200, 1e307])
def test_any_scale_that_float64_holds_is_normalised(tmp_path, scale):
    path = tmp_path / "cloud.npy"
    cloud = np.random.default_rng(0).normal(size=(20, 3))
    np.save(path, cloud)
    expected = read_points(path).pos.numpy()
    np.save(path, cloud * scale)
    pos = read_points(path).pos.numpy()
    assert np.allclose(pos, expected, atol=1e-4 if scale < 1e-300 else 1e-6)
    if scale > 1e100:
        with pytest.raises(DataError, match=r"`normalize` \(=False\).*float32 cannot hold"):
            read_points(path, normalize=False)


def test_materials_of_a_mesh_are_not_opened(tmp_path):
    (tmp_path / "secret.mtl").mkdir()  # Opening a folder would fail.
    path = tmp_path / "mesh.obj"
    path.write_text("mtllib secret.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert read_points(path, 5).pos.shape == (5, 3)


def test_a_mesh_with_a_point_that_is_no_number_is_refused_whatever_the_draw(tmp_path):
    path = tmp_path / "mesh.ply"
    head = ["ply", "format ascii 1.0", "element vertex 4"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    rows = ["0 0 0", "1 0 0", "0 1 0", "nan 0 0", "3 0 1 2", ""]
    path.write_text("\n".join([*head, *rows]))
    with pytest.raises(DataError, match="1 of 4 points with NaN"):
        read_points(path, 3)


def test_vertices_of_other_dimensions_are_refused(tmp_path):
    path = tmp_path / "mesh.obj"
    path.write_text("v 0\nv 1\nv 2\nf 1 2 3\n")
    with pytest.raises(FileError, match=r"mesh.obj.*its points have the shape \[3, 1\]"):
        read_points(path)


def test_what_a_library_quotes_is_kept_short(tmp_path, fuzz):
    path = tmp_path / "packed.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_low.npy", b"x" * 9)
    content = bytearray(path.read_bytes())
    # The length of the name, in the directory and where the member begins, no longer agree.
    content[26:28] = (9000).to_bytes(2, "little")
    path.write_bytes(content + bytes(9000))
    with pytest.raises(FileError, match="packed.npz") as caught:
        read_packed(path, "train")
    assert len(str(caught.value)) < 1000

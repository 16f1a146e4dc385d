"""ModelNet from every kind of source; the files are made here."""

import io
import lzma
import zipfile

import numpy as np
import pytest
import torch

from pcequi.datasets import ModelNet, default_root, modelnet
from pcequi.datasets.archives import verify_archive
from pcequi.datasets.downloads import download
from pcequi.datasets.modelnet import MODELNET_CLASSES
from pcequi.errors import ArgumentError, DataError, FileError
from pcequi.files import sha256_of

TEN = MODELNET_CLASSES["10"]
CUBE = b"OFF8 6 0\n" + b"".join(b"%d %d %d\n" % (i & 1, i >> 1 & 1, i >> 2) for i in range(8))
CUBE += b"4 0 2 3 1\n4 4 5 7 6\n4 0 1 5 4\n4 2 6 7 3\n4 0 4 6 2\n4 1 3 7 5\n"


def off_files(names=TEN, each=2):
    for name in names:
        for place in range(each):
            yield f"{name}/train/{name}_{place:04d}.off", CUBE
        yield f"{name}/test/{name}_{each:04d}.off", CUBE


@pytest.fixture
def folder(tmp_path):
    for name, content in off_files():
        path = tmp_path / "off" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "off"


def write_zip(path, members, top="ModelNet10"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(f"{top}/{name}" if top else name, content)
    return path


def packed_arrays(per_class=2, points=32):
    rng = np.random.default_rng(0)
    names = MODELNET_CLASSES["40"]
    arrays = {"classes": np.array(names)}
    for split in ("train", "test"):
        n = per_class * len(names)
        clouds = rng.normal(size=(n, points, 3))
        clouds -= clouds.mean(1, keepdims=True)
        clouds /= np.linalg.norm(clouds, axis=2).max(1)[:, None, None]
        grid = np.round((clouds + 1) / 2 * 4095).astype(np.uint16).transpose(0, 2, 1)
        arrays[f"{split}_low"] = (grid & 255).astype(np.uint8)
        arrays[f"{split}_high"] = (grid >> 8).astype(np.uint8)
        arrays[f"{split}_label"] = np.repeat(np.arange(len(names)), per_class).astype(np.uint8)
    return arrays


def write_packed(path, arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    content = stream.getvalue()
    path.write_bytes(lzma.compress(content, preset=0) if path.suffix == ".xz" else content)
    return path


def test_a_folder_of_off_files_is_read(tmp_path, folder):
    data = ModelNet(tmp_path / "root", "10", source=folder, num_points=200)
    assert len(data) == 20 and data.num_classes == 10 and data.classes == TEN
    assert torch.cat([d.y for d in data]).tolist() == [k for k in range(10) for _ in range(2)]
    for item in data:
        assert item.pos.shape == (200, 3) and item.pos.dtype == torch.float32
        assert item.y.shape == (1,) and item.y.dtype == torch.long
        assert item.pos.mean(0).abs().max() < 1e-6
        assert float(item.pos.norm(dim=1).max()) == pytest.approx(1, abs=1e-6)
    assert not torch.equal(data[0].pos, data[1].pos), "each file has draws of its own"
    assert len(ModelNet(tmp_path / "root", "10", False, source=folder, num_points=200)) == 10
    again = ModelNet(tmp_path / "again", "10", source=folder, num_points=200)
    assert torch.equal(again.pos, data.pos)
    other = ModelNet(tmp_path / "again", "10", source=folder, num_points=200, seed=1)
    assert not torch.equal(other.pos, data.pos)


def test_a_folder_without_a_class_is_refused(tmp_path, folder):
    for path in (folder / "sofa" / "test").iterdir():
        path.unlink()
    assert len(ModelNet(tmp_path / "root", "10", source=folder, num_points=8)) == 20
    with pytest.raises(DataError, match=r"no file sofa/test/\*\.off: it must hold all 10 classes"):
        ModelNet(tmp_path / "root", "10", False, source=folder, num_points=8)
    with pytest.raises(DataError, match="all 40 classes"):
        ModelNet(tmp_path / "root", "40", source=folder, num_points=8)


def test_damaged_off_files_of_both_splits_are_named_at_once(tmp_path, folder):
    broken = [f"desk/train/desk_{n:04d}.off" for n in range(2)] + ["sofa/test/sofa_0002.off"]
    for name in broken:
        (folder / name).write_bytes(CUBE[:60])
    for train in (True, False):
        with pytest.raises(FileError, match="has 3 of 30 files that cannot be used") as error:
            ModelNet(tmp_path / "root", "10", train, source=folder, num_points=8)
        assert all(str(folder / name) in str(error.value) for name in broken)
    for path in sorted((folder / "bed").rglob("*.off")):
        path.write_bytes(b"")
    with pytest.raises(FileError, match="has 6 of 30 files"):
        ModelNet(tmp_path / "root", "10", source=folder, num_points=8)


def test_files_of_a_folder_that_change_are_read_again(tmp_path, folder):
    def load(train=True):
        return ModelNet(tmp_path / "root", "10", train, source=folder, num_points=16)

    first, tested = load(), load(False)
    path = folder / "bed" / "train" / "bed_0000.off"
    path.write_bytes(CUBE.replace(b"1 0 0\n", b"9 0 0\n"))
    second = load()
    place = [d.y.item() for d in first].index(TEN.index("bed"))
    moved = [i for i in range(20) if not torch.equal(first[i].pos, second[i].pos)]
    assert moved == [place]
    (folder / "bed" / "train" / "bed_0009.off").write_bytes(CUBE)
    assert len(load()) == 21
    path.unlink()
    assert len(load()) == 20
    made = sorted((tmp_path / "root").rglob("test.pt"))
    assert len(load(False)) == len(tested) == 10
    assert sorted((tmp_path / "root").rglob("test.pt")) == made, "the other split is not made again"


def test_the_identity_of_an_archive_and_a_packed_file_stays(tmp_path):
    """Or the processed files of every user would be made again."""
    archive = write_zip(tmp_path / "own.zip", off_files())
    status = archive.stat()
    expected = f"own.zip {status.st_size} {status.st_mtime_ns}"
    assert modelnet._identity(archive, []) == expected
    packed = write_packed(tmp_path / "packed.npz", packed_arrays())
    assert modelnet._identity(packed, []) == sha256_of(packed)


@pytest.mark.parametrize("below", ["", "raw"])
def test_the_unpacked_archive_is_found_in_the_root(tmp_path, folder, below, monkeypatch):
    monkeypatch.setattr(modelnet, "download", None)
    root = tmp_path / "mn"
    (root / below).mkdir(parents=True, exist_ok=True)
    folder.rename(root / below / "ModelNet10")
    data = ModelNet(root, "10", num_points=8)
    assert len(data) == 20 and data.source == root / below / "ModelNet10"


def test_the_folder_above_the_unpacked_archive_will_do_as_source(tmp_path, folder):
    (tmp_path / "mn").mkdir()
    with pytest.raises(DataError, match="all 10 classes of ModelNet10, or a folder ModelNet10 tha"):
        ModelNet(tmp_path / "root", "10", source=tmp_path / "mn", num_points=8)
    folder.rename(tmp_path / "mn" / "ModelNet10")
    data = ModelNet(tmp_path / "root", "10", source=tmp_path / "mn", num_points=8)
    assert len(data) == 20
    with pytest.raises(DataError, match="all 40 classes"):
        ModelNet(tmp_path / "root", "40", source=tmp_path / "mn", num_points=8)


def test_an_archive_is_read_in_place(tmp_path, folder):
    noise = [("../../evil.off", CUBE), ("/tmp/evil.off", CUBE), ("__MACOSX/bed/train/x.off", CUBE)]
    noise += [("ModelNet10/../bed/train/evil.off", CUBE), ("ModelNet10/README.txt", b"words")]
    members = [(f"ModelNet10/{name}", content) for name, content in off_files()] + noise
    source = write_zip(tmp_path / "deep" / "er" / "own.zip", members, top="")
    before = {path for path in tmp_path.rglob("*") if path.suffix == ".off"}
    data = ModelNet(tmp_path / "root", "10", source=source, num_points=64)
    assert len(data) == 20, "no member outside the set's own folders is read"
    assert {path for path in tmp_path.rglob("*") if path.suffix == ".off"} == before
    from_folder = ModelNet(tmp_path / "root", "10", source=folder, num_points=64)
    assert torch.equal(data.pos, from_folder.pos), "the same shapes whatever the container"


def test_an_official_archive_must_have_the_official_counts(tmp_path):
    source = write_zip(tmp_path / "ModelNet10.zip", off_files())
    with pytest.raises(DataError, match="has 20 train shapes, and ModelNet10 has 3991"):
        ModelNet(tmp_path / "root", "10", source=source, num_points=8)


def test_an_archive_without_a_class_is_refused(tmp_path):
    source = write_zip(tmp_path / "own.zip", off_files(TEN[:-2]))
    with pytest.raises(DataError, match="has no train shapes of table, toilet"):
        ModelNet(tmp_path / "root", "10", source=source, num_points=8)


def test_an_archive_member_that_would_fill_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(modelnet, "_LARGEST", 100)
    source = write_zip(tmp_path / "own.zip", off_files())
    with pytest.raises(FileError, match="bytes, more than 100"):
        ModelNet(tmp_path / "root", "10", source=source, num_points=8)


def test_an_archive_is_trusted_on_first_use_only(tmp_path):
    source = write_zip(tmp_path / "own.zip", off_files())
    digest = verify_archive(source, None)
    record = tmp_path / "own.zip.sha256"
    assert record.read_text().split() == [digest, "own.zip"]
    assert verify_archive(source, None) == verify_archive(source, digest) == digest
    write_zip(source, off_files(each=3))
    with pytest.raises(FileError, match=f"{digest} is expected: fetch it again, or delete own.zip"):
        verify_archive(source, None)
    record.unlink()
    with pytest.raises(FileError, match="is expected"):
        verify_archive(source, digest)
    assert verify_archive(source, None) == sha256_of(source)


def test_a_damaged_archive_is_refused(tmp_path):
    source = tmp_path / "own.zip"
    with pytest.raises(FileError, match=r"`source` \(='.*own.zip'\) does not exist"):
        verify_archive(source, None)
    write_zip(source, off_files())
    content = bytearray(source.read_bytes())
    source.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match="no readable zip archive"):
        verify_archive(source, None)
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("ModelNet10/bed/train/bed_0001.off", CUBE)
    content = bytearray(source.read_bytes())
    content[content.index(b"OFF8") + 6] ^= 1
    source.write_bytes(content)
    with pytest.raises(FileError, match="damaged at member 'ModelNet10/bed/train/bed_0001.off'"):
        ModelNet(tmp_path / "root", "10", source=source)


def test_without_a_source_the_raw_folder_is_searched_then_the_archive_fetched(
    tmp_path, monkeypatch
):
    made = write_zip(tmp_path / "served" / "ModelNet10.zip", off_files())
    fetched = []

    def serve(url, path, **options):
        fetched.append(url)
        download(url, path, **options)

    monkeypatch.setattr(modelnet, "download", serve)
    counts = {"train": 20, "test": 10}
    monkeypatch.setitem(modelnet._ARCHIVES, "10", (made.as_uri(), None, counts))
    root = tmp_path / "root"
    assert len(ModelNet(root, "10", num_points=8)) == 20
    assert (root / "raw" / "ModelNet10.zip.sha256").is_file()
    assert len(ModelNet(root, "10", False, num_points=8)) == 10
    assert fetched == [made.as_uri()], "the second time, what is there is used"
    monkeypatch.setitem(modelnet._ARCHIVES, "10", (made.as_uri(), "0" * 64, counts))
    with pytest.raises(FileError, match=f"and {'0' * 64} is expected"):
        ModelNet(tmp_path / "other", "10", num_points=8)


@pytest.mark.parametrize("ending", [".npz", ".npz.xz"])
def test_a_packed_file_is_read(tmp_path, ending):
    arrays = packed_arrays()
    source = write_packed(tmp_path / f"packed{ending}", arrays)
    data = ModelNet(tmp_path / "root", "40", source=source, num_points=32)
    assert len(data) == 80 and data.num_classes == 40
    # The same points as the formula of the format gives, in another order.
    grid = (arrays["train_high"].astype(np.uint16) << 8) | arrays["train_low"]
    expected = grid.transpose(0, 2, 1) / np.float32(4095) * 2 - 1
    near = torch.cdist(data[5].pos, torch.from_numpy(expected[5]).float())
    assert near.amin(dim=1).max() < 2e-3 and near.diagonal().max() > 0.1
    assert sorted(near.argmin(dim=1).tolist()) == list(range(32))
    few = ModelNet(tmp_path / "root", "40", source=source, num_points=8)
    assert few[0].pos.shape == (8, 3) and float(few[0].pos.norm(dim=1).max()) == pytest.approx(1)


def test_ten_classes_come_from_the_packed_forty_by_name(tmp_path):
    source = write_packed(tmp_path / "packed.npz", packed_arrays())
    data = ModelNet(tmp_path / "root", "10", False, source=source, num_points=32)
    full = ModelNet(tmp_path / "root", "40", False, source=source, num_points=32)
    assert len(data) == 20 and data.classes == TEN
    own = [item for item in full if full.classes[int(item.y)] in TEN]
    assert all(torch.equal(a.pos, b.pos) for a, b in zip(data, own, strict=True))
    assert [TEN[int(a.y)] for a in data] == [full.classes[int(b.y)] for b in own]


def test_another_packed_file_of_the_same_name_is_not_mistaken(tmp_path):
    source = write_packed(tmp_path / "packed.npz", packed_arrays())
    first = ModelNet(tmp_path / "root", source=source, num_points=32)
    write_packed(source, packed_arrays(per_class=1))
    assert len(first) == 80
    assert len(ModelNet(tmp_path / "root", source=source, num_points=32)) == 40


def test_unusable_packed_files_are_refused(tmp_path):
    arrays, source = packed_arrays(), tmp_path / "packed.npz"

    def load(num_points=32):
        return ModelNet(tmp_path / "root", source=source, num_points=num_points)

    outside = arrays["train_label"].copy()
    outside[3] = 40
    write_packed(source, arrays | {"train_label": outside})
    with pytest.raises(DataError, match=r"`train_label` \(=40\) of cloud 3 is outside the 40"):
        load()
    write_packed(source, arrays | {"train_label": outside[:-1]})
    with pytest.raises(DataError, match="train arrays of shapes"):
        load()
    write_packed(source, {name: arrays[name] for name in arrays if name != "train_high"})
    with pytest.raises(FileError, match="lacks the arrays train_high"):
        load()
    renamed = arrays["classes"].copy()
    renamed[5] = "jar"
    write_packed(source, arrays | {"classes": renamed})
    with pytest.raises(DataError, match="lacks the classes bottle of ModelNet40"):
        load()
    write_packed(source, arrays)
    with pytest.raises(ArgumentError, match=r"`num_points` \(=64\) must be at most the 32 points"):
        load(64)
    source.write_bytes(source.read_bytes()[:2000])
    with pytest.raises(FileError, match="damaged or no packed file"):
        load()
    source = write_packed(tmp_path / "packed.npz.xz", arrays)
    source.write_bytes(source.read_bytes()[:2000])
    with pytest.raises(FileError, match="damaged or no packed file"):
        load()


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ArgumentError, match=r"`name` \(='30'\) must be '10' or '40'"):
        ModelNet(tmp_path, "30")
    with pytest.raises(ArgumentError, match=r"`num_points` \(=0\)"):
        ModelNet(tmp_path, num_points=0)
    with pytest.raises(FileError, match=r"`source` \(='.*gone'\) does not exist"):
        ModelNet(tmp_path, source=tmp_path / "gone")
    (tmp_path / "data.tar").write_bytes(b"")
    with pytest.raises(ArgumentError, match="must be a folder of OFF files, a .zip archive"):
        ModelNet(tmp_path, source=tmp_path / "data.tar")


def test_the_default_root(tmp_path, monkeypatch):
    monkeypatch.setenv("PCEQUI_DATASETS", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("PCEQUI_DATASETS")
    package = tmp_path / "checkout" / "pcequi" / "datasets" / "roots.py"
    monkeypatch.setattr("pcequi.datasets.roots.__file__", str(package))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "checkout" / "datasets").mkdir(parents=True)
    cache = tmp_path / ".cache" / "pcequi" / "datasets"
    assert default_root() == cache, "a folder `datasets` in site-packages is another package"
    (tmp_path / "checkout" / "pyproject.toml").write_text("")
    assert default_root() == (tmp_path / "checkout" / "datasets").resolve()

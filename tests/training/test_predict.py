"""Predictions of files: one bad file is reported, the rest go on."""

import csv
import io
import json
import warnings

import numpy as np
import pytest
import torch
import trimesh
from torch_geometric.data import Data

from pcequi.cli import main
from pcequi.datasets.meshes import sample_mesh
from pcequi.datasets.shapes import SHAPE_CLASSES, make_shape
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.outliers import kept_points
from pcequi.training import Checkpoint, predict, save_checkpoint
from pcequi.training.predict import (
    largest_heap,
    predict_cloud,
    predict_each,
    predict_files,
    stray_points,
)

NUM = 30


@pytest.fixture
def files(tmp_path):
    """Clouds of many sizes, among them one that is broken, missing, empty, no number, a folder."""
    paths = []
    for n in range(NUM):
        path = tmp_path / f"{n}.npy"
        np.save(path, np.random.default_rng(n).normal(size=(1 + 3 * n, 3)))
        paths.append(path)
    paths[3].write_bytes(b"broken")
    paths[7].unlink()
    np.save(paths[11], np.zeros((0, 3)))
    np.save(paths[13], np.full((5, 3), np.nan))
    paths[17].unlink()
    paths[17].mkdir()
    trimesh.creation.box().export(tmp_path / "box.stl")
    return [*paths, tmp_path / "box.stl"]


BAD = {3, 7, 11, 13, 17}


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(tiny.tiny_model().eval(), tiny.CLASSES, {"num_points": 24})


def test_bad_files_do_not_stop_the_rest(checkpoint, files):
    told = []
    found = predict_files(checkpoint, files, top=2, progress=lambda *done: told.append(done))
    assert [entry["file"] for entry in found] == [str(path) for path in files]
    assert {place for place, entry in enumerate(found) if "error" in entry} == BAD
    for place in BAD:
        assert str(files[place]) in found[place]["error"]
    assert all(len(entry["predictions"]) == 2 for n, entry in enumerate(found) if n not in BAD)
    assert told == [(n + 1, NUM + 1) for n in range(NUM + 1)]
    # A file's answer does not depend on its neighbours.
    assert predict_files(checkpoint, files[-1:], top=2) == found[-1:]


def test_networks_of_equal_levels_share_a_graph(tiny, checkpoint, monkeypatch):
    built, real = [], predict.built_batch
    monkeypatch.setattr(predict, "built_batch", lambda *a, **k: built.append(a) or real(*a, **k))
    other = Checkpoint(tiny.tiny_model().eval(), tiny.CLASSES, {})
    wide = other.model.with_budget(num=5)
    cloud = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    together = predict_cloud([checkpoint, other], cloud, top=1)
    assert len(built) == 1
    assert together == predict_cloud([checkpoint, other], cloud, top=1)
    predict_cloud([checkpoint, Checkpoint(wide, tiny.CLASSES, {})], cloud)
    assert len(built) == 4  # one more for the second call, two for other budgets


def test_a_cloud_of_few_points_gets_a_warning(checkpoint, files):
    found = predict_files(checkpoint, [files[1], files[2], files[20]])  # 4, 7 and 61 points
    assert "4 points" in found[0]["warning"] and "24" in found[0]["warning"]
    assert not any("warning" in entry for entry in found[1:])
    asked = predict_files(checkpoint, files[20:21], num_points=5)
    assert "5 points" in asked[0]["warning"]


def test_several_networks_are_averaged(tiny, checkpoint):
    other = Checkpoint(tiny.tiny_model().eval(), tiny.CLASSES, {})
    other.model.head[-1].bias.data += torch.linspace(0, 3, len(tiny.CLASSES))
    cloud = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))

    def shares(networks):
        found = predict_cloud(networks, cloud, top=99)
        return {entry["class"]: entry["probability"] for entry in found}

    one, two, both = shares(checkpoint), shares(other), shares([checkpoint, other])
    assert max(abs(one[name] - two[name]) for name in one) > 0.05
    for name in both:
        assert both[name] == pytest.approx((one[name] + two[name]) / 2, abs=2e-6)
    with pytest.raises(ArgumentError, match="`checkpoint`.*classes"):
        predict_cloud([checkpoint, Checkpoint(other.model, tiny.CLASSES[::-1], {})], cloud)
    with pytest.raises(ArgumentError, match="`checkpoint`"):
        predict_cloud([], cloud)


def test_what_is_no_files_fault_is_an_error_at_once(checkpoint, files):
    with pytest.raises(ArgumentError, match=r"`top` \(=0\)"):
        predict_files(checkpoint, files, top=0)
    with pytest.raises(ArgumentError, match=r"`num_points` \(=0\)"):
        predict_files(checkpoint, files, num_points=0)
    with pytest.raises(ArgumentError, match=r"`seed` \(=-1\)"):
        predict_files(checkpoint, files, seed=-1)
    with pytest.raises(ArgumentError, match=r"`top` \(=0\)"):
        predict_each(checkpoint, files, top=0)  # at once, not with the first answer
    with pytest.raises(ArgumentError, match=r"`workers` \(=0\)"):
        predict_each(checkpoint, files, workers=0)
    with pytest.raises(ArgumentError, match=r"`workers` \(=2\).*'cuda'.*workers=1.*'cpu'"):
        predict_each(checkpoint, files, workers=2, device="cuda")


def test_the_command_says_it_on_stderr_in_json_and_by_its_exit(checkpoint, files, tmp_path, capsys):
    save_checkpoint(tmp_path / "run", checkpoint.model, checkpoint.classes, checkpoint.extra)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(tmp_path / "run"), *map(str, arguments), "--threads", "1"])
        return stop.value.code, *capsys.readouterr()

    code, out, err = run(*files, "--json")
    found = json.loads(out)
    assert code == 1 and out.count("\n") == 1
    assert found["classified"] == NUM + 1 - len(BAD) and found["failed"] == len(BAD)
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == len(BAD)
    assert all(any(files[place].name in line for line in errors) for place in BAD)

    code, out, err = run(*files)
    assert code == 1 and out.count("cannot be used") == len(BAD) + 1
    assert f"{NUM + 1 - len(BAD)} files classified, {len(BAD)} cannot be used" in out

    code, out, err = run(files[0], files[-1])
    assert code == 0 and "2 files classified, 0 cannot be used" in out and "Error" not in err
    assert err.count("Warning: ") == 1 and f"Warning: {files[0]}: 1 point, where" in err
    assert "%" in out and any(name in out for name in checkpoint.classes)


def test_answers_are_a_table_for_spreadsheets(checkpoint, files, tmp_path, capsys):
    save_checkpoint(tmp_path / "run", checkpoint.model, checkpoint.classes, checkpoint.extra)
    odd = tmp_path / 'a, "b"\n=c.npy'
    np.save(odd, np.random.default_rng(0).normal(size=(50, 3)))

    def run(*more):
        arguments = [tmp_path / "run", odd, files[3], "--threads", 1, *more]
        with pytest.raises(SystemExit) as stop:
            main(["predict", *map(str, arguments)])
        return stop.value.code, *capsys.readouterr()

    code, out, _ = run("--csv", "-", "--top", 2)
    first, second = csv.DictReader(io.StringIO(out))
    names = ["file", "class", "probability", "class 2", "probability 2", "warning", "error"]
    assert code == 1 and list(first) == names and first["file"] == str(odd)
    assert {first["class"], first["class 2"]} < set(checkpoint.classes)
    assert float(first["probability"]) >= float(first["probability 2"])
    assert second["class"] == "" and "3.npy" in second["error"]
    code, printed, _ = run("--csv", tmp_path / "answers.csv", "--top", 2)
    assert code == 1 and (tmp_path / "answers.csv").read_text() == out
    assert "2 files" not in out and "1 files classified" in printed
    code, _, err = run("--csv", "-", "--json")
    assert code == 1 and "`--csv` (='-') and `--json` both print" in err
    code, _, err = run("--csv", tmp_path / "none" / "answers.csv")
    assert code == 1 and "`--csv`" in err and "make the folder first" in err


def test_strays_are_left_out_where_it_is_asked_for(checkpoint, tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    whole = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=1)
    whole = whole * torch.tensor([1.0, 0.7, 0.4])
    stray = torch.tensor([[4.0, 1.0, 0.0], [0.0, -5.0, 2.0], [1.0, 2.0, 6.0]])
    scan = torch.cat([whole, stray])
    # Whole clouds and cleaned scans need not agree to rounding: a few thin places go as well.
    kept = predict_cloud(checkpoint, scan[kept_points(scan)])
    assert predict_cloud(checkpoint, scan, drop_outliers=True) == kept
    assert predict_cloud(checkpoint, scan) != kept
    np.save(tmp_path / "scan.npy", scan.numpy())
    save_checkpoint(tmp_path / "run", checkpoint.model, checkpoint.classes, checkpoint.extra)
    arguments = ["predict", str(tmp_path / "run"), str(tmp_path / "scan.npy"), "--json"]
    with pytest.raises(SystemExit, match="^0$"):
        main([*arguments, "--drop-outliers"])
    found = json.loads(capsys.readouterr().out)["files"][0]
    assert [one["class"] for one in found["predictions"]] == [one["class"] for one in kept]


def test_points_that_are_left_decide_whether_a_cloud_is_sparse(checkpoint, tmp_path):
    generator = torch.Generator().manual_seed(0)
    whole = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=1)
    scan = torch.cat([whole, 9 * torch.randn(60, 3, generator=generator)])
    np.save(tmp_path / "scan.npy", scan.numpy())
    kept = len(kept_points(scan))
    for trained, sparse in ((4 * kept, False), (4 * len(scan), True)):
        checkpoint.extra["num_points"] = trained
        (found,) = predict_files(checkpoint, [tmp_path / "scan.npy"], drop_outliers=True)
        assert ("warning" in found) == sparse, trained
    assert f"{kept} points" in found["warning"] and found["dropped"] == len(scan) - kept > 0


def test_an_error_of_torch_is_the_files_own(checkpoint, files, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("memory ran out")

    monkeypatch.setattr("pcequi.training.predict.predict_cloud", fail)
    found = predict_files(checkpoint, files[:2])
    assert [entry["error"] for entry in found] == ["memory ran out"] * 2


def test_weights_in_16_bits_classify_files(checkpoint, files):
    checkpoint.model.half()
    found = predict_files(checkpoint, [files[0], files[-1]])
    assert not any("error" in result for result in found)


def test_heaps_and_strays_are_told(checkpoint, tmp_path):
    checkpoint.extra["num_points"] = 400
    generator = torch.Generator().manual_seed(0)
    whole = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=1)
    clouds = {
        "plain": whole,
        "copies": torch.zeros(300, 3),
        "zeros": torch.cat([whole, torch.zeros(40, 3)]),
        "strays": torch.cat([whole, 60 * torch.randn(3, 3, generator=generator)]),
    }
    files = [tmp_path / f"{name}.npy" for name in clouds]
    for file, cloud in zip(files, clouds.values(), strict=True):
        np.save(file, cloud.numpy())
    found = dict(zip(clouds, predict_files(checkpoint, files), strict=True))
    assert "warning" not in found["plain"]
    assert "1 different point," in found["copies"]["warning"]
    assert "40 of 340 points lie in one place" in found["zeros"]["warning"]
    assert "3 points lie far from all others, as stray points" in found["strays"]["warning"]
    assert found["strays"]["warning"].count("stray") == 1


def test_points_that_set_the_size_of_a_cloud_are_told(checkpoint, tmp_path):
    checkpoint.extra["num_points"] = 1024
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(2)
    chair, _ = sample_mesh(*make_shape("chair", rng), 1024, rng)
    far = torch.nn.functional.normalize(torch.randn(8, 3, generator=generator), dim=1)
    middle, radius = chair.mean(0), np.linalg.norm(chair - chair.mean(0), axis=1).max()
    scan = np.concatenate([chair[8:], middle + 6 * radius * far.numpy()])
    np.save(tmp_path / "scan.npy", scan)
    (found,) = predict_files(checkpoint, [tmp_path / "scan.npy"])
    assert "8 points lie far from all others" in found["warning"]
    assert "--drop-outliers" in found["warning"]
    (found,) = predict_files(checkpoint, [tmp_path / "scan.npy"], drop_outliers=True)
    assert "warning" not in found and found["dropped"] >= 8
    scan = torch.from_numpy(scan)
    assert stray_points(scan) == stray_points(scan[:-7] * 40 + 900) + 7 == 8


@pytest.mark.parametrize("seed", range(5))
def test_whole_clouds_have_no_stray_points(seed):
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(1024, 3, generator=generator)
    cube = torch.rand(1024, 3, generator=generator)
    clouds = [normal, normal * torch.tensor([1.0, 1.0, 0.0]), cube, cube[:40], cube[:1]]
    clouds += [torch.nn.functional.normalize(normal, dim=1), torch.zeros(30, 3)]
    assert [stray_points(cloud) for cloud in clouds] == [0] * 7
    rng = np.random.default_rng(seed)
    for kind in SHAPE_CLASSES:
        points, _ = sample_mesh(*make_shape(kind, rng), 1024, rng)
        assert stray_points(torch.from_numpy(points)) == 0, kind


def test_warnings_of_others_are_passed_on(checkpoint, tmp_path, monkeypatch):
    def warns(*args, **kwargs):
        warnings.warn("something else", DeprecationWarning, stacklevel=2)
        return []

    monkeypatch.setattr("pcequi.training.predict.predict_cloud", warns)
    np.save(tmp_path / "cloud.npy", torch.randn(300, 3).numpy())
    with pytest.warns(DeprecationWarning, match="something else"):
        predict_files(checkpoint, [tmp_path / "cloud.npy"])


def _locked(points):
    points = points.copy()
    points.flags.writeable = False
    return points


HOLDERS = {
    "tensor": torch.from_numpy,
    "with a gradient": lambda points: torch.from_numpy(points).requires_grad_(),
    "sparse": lambda points: torch.from_numpy(points).to_sparse(),
    "lists": np.ndarray.tolist,
    "backwards": lambda points: points[::-1].copy()[::-1],
    "columns": np.asfortranarray,
    "foreign byte order": lambda points: points.astype(points.dtype.newbyteorder("S")),
    "long": lambda points: points.astype(np.longdouble),
    "as a mapped file": _locked,
    "of trimesh": trimesh.caching.tracked_array,
    "nothing masked": np.ma.masked_array,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_points_may_be_held_by_anything(holder, checkpoint):
    points = np.random.default_rng(0).normal(size=(40, 3))
    held = HOLDERS[holder](points)
    assert predict_cloud(checkpoint, held) == predict_cloud(checkpoint, points)


@pytest.mark.parametrize(
    "kind, named",
    [(complex, "complex128"), (object, "object"), (str, "<U32"), ("datetime64[s]", "datetime64")],
)
def test_what_is_no_real_number_is_no_point(kind, named, checkpoint):
    points = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ShapeError, match=f"`pos` .a ndarray of {named}.*real numbers"):
        predict_cloud(checkpoint, points.astype(kind))
    if kind is complex:
        with pytest.raises(ShapeError, match="`pos` .a Tensor of torch.complex128"):
            predict_cloud(checkpoint, torch.from_numpy(points.astype(kind)))


def test_what_is_masked_is_no_point(checkpoint):
    points = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(DataError, match="`pos` has 1 points that are NaN .*first: point 7"):
        predict_cloud(checkpoint, np.ma.masked_array(points, np.arange(120).reshape(40, 3) == 22))
    with pytest.raises(DataError, match="points that are NaN or infinite"):
        predict_cloud(checkpoint, points.astype(np.longdouble) * np.longdouble("1e309"))


def test_what_is_no_network_or_no_cloud_is_named(checkpoint):
    pos = torch.zeros(5, 3)
    for wrong in ("modelnet40", checkpoint.model):
        with pytest.raises(
            ArgumentError, match=r"`checkpoint` \(a (str|GroupConv.*)\) must be what"
        ):
            predict_cloud(wrong, pos)
    with pytest.raises(ShapeError, match=r"`pos` \(a Data\) must be points .*`data.pos`"):
        predict_cloud(checkpoint, Data(pos=pos))


@pytest.mark.parametrize("size, heap, shown", [(100, 5, 0), (100, 6, 6), (20, 2, 0), (20, 3, 3)])
def test_many_points_in_one_place_are_a_heap(size, heap, shown):
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(size, 3, generator=generator)
    pos[: size // 2, 0] = 0.5  # a wall is none,
    pos[size // 4 :, 1] = 0.5  # nor are two
    pos[-heap:] = 0.25
    assert largest_heap(pos[torch.randperm(size, generator=generator)]) == shown
    assert largest_heap(pos[:0]) == 0

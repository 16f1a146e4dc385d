"""Files that are copies of others are warned of, whenever a folder of them is loaded."""

import json
import shutil
import warnings

import numpy as np
import pytest
import trimesh

from pcequi.datasets import FolderClouds, copies
from pcequi.datasets.copies import find_copies, known_copies


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two classes of a file to train and one to test on."""
    monkeypatch.setenv("PCEQUI_DATASETS", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for kind in ("a", "b"):
            place = tmp_path / "parts" / part / kind
            place.mkdir(parents=True)
            np.save(place / f"{part}.npy", rng.normal(size=(30, 3)))
    return tmp_path / "parts"


def twin(parts):
    """A mesh that is trained and tested on."""
    trimesh.creation.box((2, 1, 1)).export(parts / "train" / "a" / "box.ply")
    return shutil.copy(parts / "train" / "a" / "box.ply", parts / "test" / "a" / "same.ply")


def load(parts, train, **options):
    """What is said while a split is loaded."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        FolderClouds(parts, train, num_points=20, **options)
    return [str(warning.message) for warning in told]


def test_a_file_in_both_splits_is_warned_of_by_the_split_that_it_harms(parts):
    assert load(parts, False) == []
    twin(parts)
    for _ in range(3):
        (said,) = load(parts, False)
        assert "1 of 6" in said and "both tested and trained on" in said
        assert "one of test/a/same.ply and train/a/box.ply" in said
        assert load(parts, True) == []


def test_a_file_in_two_classes_is_warned_of(parts):
    shutil.copy(parts / "train" / "a" / "train.npy", parts / "train" / "b" / "more.npy")
    for _ in range(3):
        (said,) = load(parts, True)
        assert "1 of 5" in said and "two classes" in said
        assert "train/a/train.npy and train/b/more.npy" in said
        assert load(parts, False) == []


def test_the_warning_ends_with_the_copy_whichever_split_it_was_in(parts):
    for gone in ("train/a/box.ply", "test/a/same.ply"):
        twin(parts)
        assert load(parts, False)
        (parts / gone).unlink()
        assert load(parts, False) == []


def test_files_are_compared_once(parts, monkeypatch):
    twin(parts)
    said = load(parts, False)
    monkeypatch.setattr(copies, "_digest", lambda *_, **__: pytest.fail("it was read again"))
    assert load(parts, False) == said


def test_a_note_that_is_missing_or_damaged_is_made_again(parts, tmp_path):
    twin(parts)
    said = load(parts, False)
    (note,) = (tmp_path / "store").rglob("test-copies.json")
    whole = json.loads(note.read_bytes())
    wrong = ["", "null", "[]", "{", "[" * 100_000, "\xff", json.dumps({**whole, "twins": 3})]
    wrong += [json.dumps({**whole, "twins": [[0, 99]]}), json.dumps({"files": whole["files"]})]
    for content in wrong:
        note.write_text(content, encoding="latin-1")
        assert load(parts, False) == said
        assert json.loads(note.read_bytes()) == whole
    note.unlink()
    assert load(parts, False) == said and note.exists()
    note.write_text(json.dumps({**whole, "twins": []}))
    assert load(parts, False, force_reload=True) == said
    assert not list((tmp_path / "store").rglob("*.part"))


def test_a_note_that_cannot_be_written_is_done_without(parts, tmp_path):
    test = [(path, 0) for path in sorted((parts / "test").rglob("*.npy"))]
    train = [(path, 0) for path in sorted((parts / "train").rglob("*.npy"))]
    train.append((shutil.copy(test[0][0], parts / "train" / "a" / "more.npy"), 0))
    for _ in range(2):
        found = known_copies(tmp_path / "no" / "such" / "note.json", test, train)
        assert found == ([(test[0][0], train[-1][0])], [])


def test_large_files_are_compared_whole(tmp_path):
    files = [(tmp_path / f"{n}.npy", 0) for n in range(3)]
    rows = np.random.default_rng(0).normal(size=(3000, 3))
    for n, (path, _) in enumerate(files):
        rows[-1] = n > 0  # the same size, and the same beginning
        np.save(path, rows)
    assert find_copies(files[:2], files[2:]) == ([(files[1][0], files[2][0])], [])
    assert find_copies(files[:2], [(tmp_path / "gone.npy", 0)]) == ([], [])

"""The cache of graphs can be looked at and cleared, and nothing else goes with it."""

import json
import os
import shutil
import time

import pytest

from pcequi.cli import main
from pcequi.errors import ArgumentError, FileError
from pcequi.graph_store import GraphStore
from pcequi.training.cached import cached_graphs, remove_graphs

# Not the package's own, whatever their names: folders with other files, a file, a link.
OTHERS = ["mine", "0" * 15, "a" * 16, "run-" + "b" * 16, "2" * 16, "c" * 16]


@pytest.fixture
def cache(tiny, split, tmp_path):
    """Two finished stores, one that was begun, one of an interrupted run, and other things."""
    cache = tmp_path / "cache"
    tiny.tiny_store(cache, split)
    tiny.tiny_store(cache, tiny.tiny_split(seed=5))
    for name in ("0" * 16, "run-" + "1" * 16 + "/" + "3" * 16):
        (cache / name).mkdir(parents=True)
        for file in ("chunk-00000.safetensors.12-ab.part", "chunk-00001.safetensors", "store.lock"):
            (cache / name / file).write_bytes(b"x" * 100)
    for name in OTHERS[:4]:
        (cache / name).mkdir()
        (cache / name / "thesis.txt").write_text("somebody's")
    (cache / OTHERS[4]).write_text("a file of that name")
    finished = next(path.parent for path in cache.glob("*/store.json"))
    shutil.copytree(finished, tmp_path / "elsewhere")
    (cache / OTHERS[5]).symlink_to(tmp_path / "elsewhere")
    return cache


def age(folder, days):
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 86400 * days,) * 2)


def test_it_is_listed_with_its_size(cache, split):
    found = cached_graphs(cache)
    assert sorted(one.shapes or 0 for one in found) == [0, 0, len(split), len(split)]
    for one in found:
        whole = sum(path.stat().st_size for path in one.folder.rglob("*"))
        assert one.size == whole > 0
        if one.shapes:
            levels = GraphStore(one.folder).levels
            assert one.representatives == [level.sampling.num for level in levels]
    assert cached_graphs(cache / "nowhere") == []


def test_it_is_cleared_by_age_and_nothing_else_goes(cache):
    finished = next(one for one in cached_graphs(cache) if one.shapes)
    age(finished.folder, 9)
    assert cached_graphs(cache)[-1].folder == finished.folder
    gone = remove_graphs(cached_graphs(cache), older=7)
    assert [one.folder for one in gone] == [finished.folder] and not finished.folder.exists()
    assert len(remove_graphs(cached_graphs(cache))) == 3
    assert sorted(path.name for path in cache.iterdir()) == sorted(OTHERS)
    assert all((cache / name / "thesis.txt").exists() for name in OTHERS[:4])
    assert len(GraphStore(cache / OTHERS[5])) > 0
    with pytest.raises(ArgumentError, match=r"`older` \(=-1\)"):
        remove_graphs([], older=-1)


def test_what_cannot_be_deleted_is_named_and_the_rest_goes(cache, monkeypatch):
    found, remove = cached_graphs(cache), shutil.rmtree

    def refuse(folder):
        if folder == found[1].folder:
            raise OSError("busy")
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(FileError, match=rf"1 folders .*{found[1].folder.name} \(busy\)"):
        remove_graphs(found)
    assert [one.folder for one in cached_graphs(cache)] == [found[1].folder]


def test_the_command(cache, capsys, monkeypatch):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["cache", *arguments])
        return stop.value.code, *capsys.readouterr()

    monkeypatch.setenv("PCEQUI_CACHE", str(cache))
    code, out, _ = run()
    assert code == 0 and "4 folders" in out and out.count("begun") == 2
    code, _, err = run("--older", "3")
    assert code == 1 and "`older` (=3.0)" in err and len(cached_graphs(cache)) == 4
    age(next(one for one in cached_graphs(cache) if one.shapes).folder, 9)
    code, out, _ = run("--clear", "--older", "3", "--json")
    assert [one["deleted"] for one in json.loads(out)["graphs"]] == [False, False, False, True]
    code, out, _ = run("--clear", "--cache", str(cache))
    assert "3 deleted" in out and cached_graphs(cache) == []

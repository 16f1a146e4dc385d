"""The cache of graphs can be looked at and cleared, and nothing else goes with it."""

import json
import os
import time

import pytest

from pcequi.cli import main
from pcequi.errors import ArgumentError
from pcequi.graph_store import GraphStore
from pcequi.training.cached import cached_graphs, remove_graphs


@pytest.fixture
def cache(tiny, split, tmp_path):
    """Two finished stores, one that was begun, one of an interrupted run, and other things."""
    cache = tmp_path / "cache"
    tiny.tiny_store(cache, split)
    tiny.tiny_store(cache, tiny.tiny_split(seed=5))
    for name in ("0" * 16, "run-" + "1" * 16, "mine", "0" * 15):
        (cache / name / "inner").mkdir(parents=True)
        (cache / name / "inner" / "file").write_bytes(b"x" * 100)
    (cache / ("2" * 16)).write_text("a file of that name")
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
    assert sorted(path.name for path in cache.iterdir()) == ["0" * 15, "2" * 16, "mine"]
    with pytest.raises(ArgumentError, match=r"`older` \(=-1\)"):
        remove_graphs([], older=-1)


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

"""What a store promises of its files: damage is noticed and repaired, work is shared."""

import json
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pcequi import graph_build, graph_store
from pcequi.errors import ArgumentError, FileError
from pcequi.files import locked, write_bytes
from pcequi.graph_chunks import write_chunk
from pcequi.graph_store import GraphStore, store_key


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(graph_store, "CHUNK", 2)


@pytest.fixture
def clouds(make_blob):
    return [make_blob(n, n).float() for n in (12, 9, 7)]


@pytest.fixture
def build(tmp_path, clouds, levels_of):
    def run(**options):
        return GraphStore.build(tmp_path, clouds, levels_of(num=6), workers=1, **options)

    return run


def content(store):
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_by_verify_and_repaired_by_build(build, caplog):
    store = build()
    store.verify()
    whole = content(store)
    flip(store.chunks[1].path, -3)
    with pytest.raises(FileError, match=r"chunk-00001.*checksum of .* differs.*precompute again"):
        GraphStore(store.folder).verify()
    with caplog.at_level(logging.WARNING):
        assert content(build()) == whole
    assert [r.getMessage().count("made again now") for r in caplog.records] == [1]
    assert "chunk-00001" in caplog.text


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_file_that_is_cut_off_is_noticed_on_opening(build, keep):
    store = build()
    whole, path = content(store), store.chunks[0].path
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match=r"chunk-00000.*is missing or damaged"):
        GraphStore(store.folder)
    assert content(build()) == whole


def test_a_file_that_goes_while_it_is_in_use_is_an_error(build):
    store = build()
    os.truncate(store.chunks[0].path, 2000)
    with pytest.raises(FileError, match="changed while it was in use; open the store again"):
        store.batch([0, 1])
    store.chunks[0].path.unlink()
    with pytest.raises(FileError, match="No such file"):
        store.batch([0])
    assert store.batch([2]).levels[0].num == 6


def test_a_chunk_of_another_store_is_stale(build, clouds, levels_of, tmp_path, caplog):
    store = build()
    whole = content(store)
    other = GraphStore.build(tmp_path, [c + 1 for c in clouds], levels_of(num=6), workers=1)
    shutil.copy(other.chunks[0].path, store.chunks[0].path)
    with pytest.raises(FileError, match=f"belongs to the store {other.folder.name!r}"):
        GraphStore(store.folder)
    assert content(build()) == whole and "belongs to the store" in caplog.text


def test_settings_that_are_damaged_are_written_again(build, caplog):
    store = build()
    whole = content(store)
    (store.folder / "store.json").write_text('{"levels": 3}')
    with pytest.raises(FileError, match="holds no finished graph store"):
        GraphStore(store.folder)
    assert content(build()) == whole and "store.json describes another store" in caplog.text


@pytest.mark.parametrize("note", ["{}", '{"store": "KEY"}', '{"store": "KEY", "crc32": {}}'])
def test_a_chunk_without_its_checksums_is_damaged(build, note):
    store = build()
    whole, path = content(store), store.chunks[0].path
    save_file(load_file(path), path, {"pcequi": note.replace("KEY", store.folder.name)})
    with pytest.raises(FileError, match="chunk-00000.*(belongs to the store None|its checksums)"):
        GraphStore(store.folder)
    assert content(build()) == whole


def test_a_finished_store_may_be_read_only(build, monkeypatch):
    build()
    monkeypatch.setattr(graph_store, "write_bytes", None)
    monkeypatch.setattr(graph_build, "write_chunk", None)
    assert len(build()) == 3


def test_rows_outside_the_store_are_named(build):
    store = build()
    for rows in ([], [-1], [3]):
        with pytest.raises(ArgumentError, match=r"`rows` .* from 0 to 2"):
            store.batch(rows)


def test_a_chunk_that_another_makes_is_waited_for(build, tmp_path, clouds, levels_of, caplog):
    folder = tmp_path / store_key(clouds, levels_of(num=6), None)
    folder.mkdir()
    with locked(folder / "chunk-00000.lock", wait=False) as mine:
        assert mine
        done = []
        thread = threading.Thread(
            target=build, kwargs={"progress": lambda *counts: done.append(counts)}
        )
        thread.start()
        while not done:
            thread.join(0.01)
        # The other chunk is made meanwhile, and this one waited for.
        assert (folder / "chunk-00001.safetensors").exists() and thread.is_alive()
    thread.join(60)
    assert not thread.is_alive() and len(done) == 2
    assert "1 chunks are being made by another process" in caplog.text
    assert len(GraphStore(folder)) == 3 and not list(folder.glob("*.lock"))


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_killed_process_left_is_removed(build, finished):
    store = build()
    path = store.chunks[0].path
    left = [path.with_name(f"{name}.77-abc.part") for name in (path.name, "store.json")]
    for file in (*left, path.with_suffix(".lock")):
        file.write_bytes(b"half")
    if not finished:
        path.unlink()
    build()
    assert sorted(content(store)) == [
        "chunk-00000.safetensors", "chunk-00001.safetensors", "store.json",
    ]  # fmt: skip


def test_a_folder_in_the_place_of_a_file_is_named(build):
    store = build()
    store.chunks[0].path.unlink()
    store.chunks[0].path.mkdir()
    with pytest.raises(FileError, match=r"chunk-00000.* is a folder, not a file; remove it"):
        build()


def test_columns_of_two_widths_are_joined(build, monkeypatch):
    store = build()
    for number, path in enumerate(sorted(store.folder.glob("*.safetensors"))):
        tensors = load_file(path)
        if number:
            tensors["1.col"] = tensors["1.col"].int() + 40000
        with safe_open(path, "pt") as file:
            save_file(tensors, path, file.metadata())
    col = GraphStore(store.folder).batch([0, 2]).levels[1].col
    assert col.dtype == torch.int32 and col.max() >= 40000 and col[0] < 40000


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_bytes(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"state cannot be written \(No space left.*free some"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["state"]


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for the memory used")
def test_a_store_takes_no_more_memory_than_a_batch(build, clouds, levels_of, tmp_path):
    small = build()
    graph = {name: value[:0] for name, value in load_file(small.chunks[0].path).items()}
    graph = {name: value for name, value in graph.items() if not name.endswith(".ptr")}
    # Eight megabytes a cloud, 160 in all.
    graph["0.lift"] = torch.zeros(1 << 21, 1)
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(10):
        write_chunk(folder / f"chunk-{number:05d}.safetensors", [graph, graph], "key")
    header = {"levels": [level.to_dict() for level in small.levels], "size": 20, "key": "key"}
    (folder / "store.json").write_text(json.dumps(header))
    store = GraphStore(folder)
    store.batch([0])
    before = resident()
    for row in range(20):
        store.batch([row])
    store.verify()
    assert resident() - before < 40e6

"""A graph from the store is the fresh one, to the rounding of 16-bit values."""

import json
import os

import pytest
import torch

from pcequi import graph_build, graph_store
from pcequi.errors import ArgumentError, DataError, FileError, ShapeError
from pcequi.graph_build import build_stored_graph, pack
from pcequi.graph_store import GraphStore, store_key
from pcequi.models import preset
from pcequi.pose_graph import PoseGraph, build_pose_graph
from pcequi.rotations import random_rotations


@pytest.fixture
def clouds(make_blob):
    return [make_blob(n, n).float() for n in (12, 20, 7, 31, 9)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(graph_store, "CHUNK", 2)


def test_stored_graphs_equal_fresh_ones(tmp_path, clouds, levels_of, network):
    levels = levels_of(num=10)
    told = []
    store = GraphStore.build(
        tmp_path, clouds, levels, workers=1, progress=lambda *counts: told.append(counts)
    )
    assert len(store) == 5 and told == [(2, 5), (4, 5), (5, 5)] and store.levels == levels
    rows = [4, 0, 3]
    stored = store.batch(rows)
    fresh = PoseGraph.batch(
        [build_pose_graph(clouds[r].double(), levels, dtype=torch.float32) for r in rows]
    )
    for a, b in zip(stored.levels, fresh.levels, strict=True):
        assert a.basis == b.basis
        for name in ("count", "weight", "pos", "rot", "lift"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None and y is None) or torch.equal(x, y), name
        if a.val is not None:
            assert torch.equal(a.entries.long(), b.entries.long())
            assert torch.equal(a.col.long(), b.col.long())
            torch.testing.assert_close(a.val, b.val, rtol=2.0**-11, atol=2.0**-24)
    model = network(levels)
    with torch.no_grad():
        change = (model(stored.to(torch.float64)) - model(fresh.to(torch.float64))).abs().max()
    print(f"cached graph against fresh one, largest change of a logit: {float(change):.1e}")
    assert change < 0.02


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, clouds, levels_of, monkeypatch):
    levels = levels_of(num=6)
    GraphStore.build(tmp_path, clouds, levels, workers=1)
    folder = next(tmp_path.iterdir())
    (folder / "store.json").unlink()
    (folder / "chunk-00001.safetensors").unlink()
    with pytest.raises(FileError, match="holds no finished graph store"):
        GraphStore(folder)
    built = []
    whole = graph_build.build_chunk
    monkeypatch.setattr(graph_build, "build_chunk", lambda job: built.append(job[1]) or whole(job))
    store = GraphStore.build(tmp_path, clouds, levels, workers=1)
    assert built == [2] and len(store) == 5
    GraphStore.build(tmp_path, clouds, levels, workers=1)
    assert built == [2]


def test_rotations_are_applied_first(tmp_path, clouds, levels_of, generator):
    levels = levels_of(num=6)
    turns = random_rotations(5, generator=generator)
    plain = GraphStore.build(tmp_path, clouds, levels, workers=1).batch([3])
    turned = GraphStore.build(tmp_path, clouds, levels, rotations=turns, workers=1).batch([3])
    moved = plain.levels[0].pos @ turns[3].T
    torch.testing.assert_close(turned.levels[0].pos, moved, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.levels[0].lift, plain.levels[0].lift, atol=1e-5, rtol=0)


def test_the_key_sees_all_that_matters(clouds, levels_of, generator, monkeypatch):
    levels = levels_of(num=6)
    moved = [clouds[0] + 1e-6, *clouds[1:]]
    keys = [
        store_key(clouds, levels, None),
        store_key(moved, levels, None),
        store_key(clouds, levels_of(num=7), None),
        store_key(clouds, levels, random_rotations(5, generator=generator)),
    ]
    monkeypatch.setattr(graph_store, "VERSION", graph_store.VERSION + 1)
    keys.append(store_key(clouds, levels, None))
    assert len(set(keys)) == 5
    assert keys[-1] == store_key([c.clone() for c in clouds], levels, None)


def test_damage_is_reported(tmp_path, clouds, levels_of):
    GraphStore.build(tmp_path, clouds, levels_of(num=6), workers=1)
    folder = next(tmp_path.iterdir())
    (folder / "chunk-00000.safetensors").write_bytes(b"not a chunk")
    with pytest.raises(FileError, match="chunk-00000.* missing or damaged .*precompute again"):
        GraphStore(folder)
    (folder / "store.json").write_text("{")
    with pytest.raises(FileError, match="holds no finished graph store"):
        GraphStore(folder)


def test_unusable_clouds_are_named(tmp_path, clouds, levels_of):
    clouds[3] = clouds[3] / 0
    with pytest.raises(DataError, match="cloud 3: `pos` has 31 points that are NaN or infinite"):
        GraphStore.build(tmp_path, clouds, levels_of(num=6), workers=1)
    with pytest.raises(DataError, match=r"`clouds` \(=\[\]\) is empty"):
        GraphStore.build(tmp_path, [], levels_of())
    with pytest.raises(ShapeError, match=r"`clouds\[1\]` \(=ndarray\) must be a tensor"):
        GraphStore.build(tmp_path, [clouds[0], clouds[1].numpy()], levels_of())
    eye = torch.eye(3).expand(2, 3, 3)
    with pytest.raises(ShapeError, match=r"`rotations` \(=\[2, 3, 3\]\) .* \[1, 3, 3\]"):
        GraphStore.build(tmp_path, clouds[:1], levels_of(), rotations=eye)
    with pytest.raises(ArgumentError, match=r"`workers` \(=-1\) .* whole number, at least 1"):
        GraphStore.build(tmp_path, clouds[:1], levels_of(), workers=-1)


def test_clouds_may_carry_gradients(tmp_path, clouds, levels_of):
    one = GraphStore.build(tmp_path, clouds[:1], levels_of(num=6), workers=1)
    clouds[0].requires_grad_()
    assert GraphStore.build(tmp_path, clouds[:1], levels_of(num=6), workers=1).folder == one.folder


def test_workers_share_no_memory_with_the_clouds(tmp_path, make_blob, levels_of, monkeypatch):
    # Torch's way to send a tensor keeps a file open for each, or moves all that shares its memory.
    monkeypatch.setattr("pcequi.graph_store.CHUNK", 2)
    clouds = list(torch.stack([make_blob(20, n) for n in range(4)]))
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    GraphStore.build(tmp_path, clouds, levels_of(num=6), workers=2)
    assert not clouds[0].is_shared()
    if files:
        assert len(os.listdir("/proc/self/fd")) <= files + 2


@pytest.mark.parametrize("name", ["default", "pairs", "large"])
@pytest.mark.parametrize("dense", [False, True])
def test_what_a_store_keeps_is_made_without_the_rest(name, dense, make_blob):
    levels = preset(name)["levels"]
    if dense:  # rows of all poses where nothing asks for orbits
        levels = [level.with_budget() for level in levels]
    found = pack(build_stored_graph(make_blob(60), levels), levels)
    whole = pack(build_pose_graph(make_blob(60), levels, dtype=torch.float32), levels)
    assert found.keys() == whole.keys()
    assert all(torch.equal(value, whole[key]) for key, value in found.items())


def test_large_columns_do_not_overflow(make_blob, levels_of):
    levels = levels_of(num=6)
    graph = build_pose_graph(make_blob(12), levels)
    graph.levels[1].col = graph.levels[1].col + 40000
    packed = pack(graph, levels)
    assert packed["1.col"].dtype == torch.int32 and int(packed["1.col"].max()) >= 40000


def test_a_store_names_its_settings(tmp_path, clouds, levels_of):
    levels = levels_of(num=6)
    GraphStore.build(tmp_path, clouds, levels, workers=1)
    header = json.loads((tmp_path / store_key(clouds, levels, None) / "store.json").read_text())
    assert header["size"] == 5 and len(header["levels"]) == 3


def test_the_key_tells_the_same_numbers_cut_into_other_clouds_apart():
    rows = torch.arange(18.0).view(6, 3)
    keys = {store_key(list(rows.split(sizes)), [], None) for sizes in ([2, 4], [3, 3], [4, 2])}
    assert len(keys) == 3


def test_levels_sampled_at_random_are_stored_the_same_again(tmp_path, clouds, levels_of):
    levels = levels_of(num=5, method="random")
    first = GraphStore.build(tmp_path / "first", clouds, levels, workers=1)
    torch.rand(3)
    state = torch.get_rng_state()
    second = GraphStore.build(tmp_path / "second", clouds, levels, workers=1)
    assert torch.equal(torch.get_rng_state(), state)
    rows = list(range(len(clouds)))
    for a, b in zip(first.batch(rows).levels, second.batch(rows).levels, strict=True):
        assert torch.equal(a.pos, b.pos) if a.pos is not None else torch.equal(a.val, b.val)

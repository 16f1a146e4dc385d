"""The same seed gives the same bits, and graphs do not depend on how many threads make them."""

import os
import subprocess
import sys

import pytest
import torch

from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.models.online import forward_online
from pcequi.pose_graph import build_pose_graph
from pcequi.sampling import FeatureSampler
from pcequi.training.threads import set_threads


@pytest.fixture
def threads():
    """Sets torch's and numba's threads; one again at the end."""
    yield set_threads
    set_threads(1)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GroupConvClassifier.from_preset("small", 5).eval()


def tensors_of(graph):
    for level in graph.levels:
        for name, value in vars(level).items():
            if isinstance(value, torch.Tensor):
                yield name, value


def assert_same(first, second):
    pairs = list(zip(tensors_of(first), tensors_of(second), strict=True))
    assert pairs
    for (name, one), (other_name, other) in pairs:
        assert name == other_name and one.dtype == other.dtype
        if one.is_floating_point():
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
        else:
            assert torch.equal(one, other), name


# Enough points that torch and numba share the work among threads.
@pytest.mark.parametrize("num", [60, 4000])
def test_representatives_and_graphs_are_those_of_one_thread(model, make_blob, threads, num):
    made = []
    for count in (1, 2, 2):
        threads(count)
        made.append(build_pose_graph(make_blob(num), model.levels))
    for other in made[1:]:
        assert_same(made[0], other)


def test_symmetric_clouds_too(model, symmetric_cloud, threads):
    threads(1)
    one = build_pose_graph(symmetric_cloud, model.levels)
    threads(2)
    assert_same(one, build_pose_graph(symmetric_cloud, model.levels))


def test_samplers_that_draw_follow_their_generator(levels_of, make_blob, threads):
    levels = [
        level.__class__(
            **{**vars(level), "sampling": FeatureSampler(num=8, method=method, refine=1)}
        )
        for level, method in zip(levels_of(num=8), ("random", "fps", "fps"), strict=True)
    ]
    made = []
    for count, seed in ((1, 0), (2, 0), (1, 1)):
        threads(count)
        generator = torch.Generator().manual_seed(seed)
        made.append(build_pose_graph(make_blob(50), levels, generator=generator))
    assert_same(made[0], made[1])
    with pytest.raises(AssertionError):
        assert_same(made[0], made[2])


def test_logits_of_a_store_and_online_do_not_depend_on_threads(model, make_blob, threads, tmp_path):
    clouds = [make_blob(200, seed).float() for seed in range(4)]
    found = []
    for count in (1, 2):
        threads(count)
        store = GraphStore.build(tmp_path / str(count), clouds, model.levels, workers=1)
        with torch.no_grad():
            found.append((model(store.batch(range(4))), forward_online(model, clouds)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # What is computed to be kept is the same to the bit.
    first, second = (next((tmp_path / str(count)).glob("*/chunk-*")) for count in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def test_the_same_seed_gives_the_same_bits(model, make_blob, threads):
    threads(1)
    clouds = [make_blob(100, seed).float() for seed in range(3)]
    with torch.no_grad():
        assert torch.equal(forward_online(model, clouds), forward_online(model, clouds))
    one, other = (build_pose_graph(make_blob(100), model.levels) for _ in range(2))
    for (_, a), (_, b) in zip(tensors_of(one), tensors_of(other), strict=True):
        assert torch.equal(a, b)


FIRST_USE = """
import hashlib
import torch
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import PoseGraph, build_pose_graph
from pcequi.testing import generic_clouds

clouds = generic_clouds(3, generator=torch.Generator().manual_seed(0))
content = hashlib.sha256()
torch.manual_seed(0)
torch.set_num_threads(1)
for preset in ("large", "pairs"):
    model = GroupConvClassifier.from_preset(preset, 3)
    graph = PoseGraph.batch([build_pose_graph(cloud, model.levels) for cloud in clouds])
    for level in graph.levels:
        for value in vars(level).values():
            if isinstance(value, torch.Tensor):
                content.update(value.numpy().tobytes())
    logits = model(graph.to(torch.float32))
    logits.square().sum().backward()
    for value in (logits, *(weight.grad for weight in model.parameters())):
        content.update(value.detach().numpy().tobytes())
print(content.hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_gives_the_bits_of_those_that_load(tmp_path):
    pytest.importorskip("numba")
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}
    found = [
        subprocess.run(
            [sys.executable, "-c", FIRST_USE], env=env, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert found[0] == found[1] != ""
    assert any(tmp_path.rglob("*.nbc"))  # or nothing was compiled

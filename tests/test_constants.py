"""Constants are the same whoever asks first, and in whatever mode."""

import importlib
import pkgutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import pcequi
from pcequi import constants
from pcequi.constants import constant, group_constant
from pcequi.rotations import finite_group

FIRST = """
import torch
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import PoseGraph, build_pose_graph

clouds = [torch.randn(70, 3, generator=torch.Generator().manual_seed(n)) for n in range(2)]
levels = preset("small")["levels"]
with {mode}:
    {first}
graph = PoseGraph.batch([build_pose_graph(cloud, levels, dtype=torch.float32) for cloud in clouds])
model = GroupConvClassifier.from_preset("small", num_classes=3)
model(graph).square().sum().backward()
assert all(weight.grad is not None for weight in model.parameters())
pos = clouds[0].double().requires_grad_()
SE3Kernel(15, 4)(pos).sum().backward()
"""


@pytest.mark.parametrize(
    ("mode", "first"),
    [
        (
            "torch.inference_mode()",
            "GroupConvClassifier.from_preset('small', num_classes=3).eval()"
            "(build_pose_graph(clouds[0], levels, dtype=torch.float32))",
        ),
        ("torch.device('meta')", "GroupConvClassifier.from_preset('small', num_classes=3)"),
    ],
)
def test_training_works_whatever_came_first(mode, first):
    code = FIRST.format(mode=mode, first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


# Data decide where their graphs are, whatever the default device; "meta" has no values.
ELSEWHERE = """
import torch

torch.set_default_device("meta")
from torch_geometric.data import Data
from pcequi import rotations
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, averaged_logits, forward_online
from pcequi.nn import GroupConv
from pcequi.pose_graph import Level, build_pose_graph, build_pose_graphs
from pcequi.poses import GridPoses, PairPoses, TangentPoses
from pcequi.sampling import FeatureSampler
from pcequi.transforms import BuildPoseGraph

for name in ("C4", "D3", "T", "O", "I"):
    group = rotations.finite_group(name)
    assert group.device.type == "cpu" and group[0].equal(rotations.finite_group("C1")[0])
    assert rotations.finite_group(name, device="meta").device.type == "meta"
assert rotations.super_fibonacci(7).device.type == "cpu"
assert rotations.random_rotations(7).device.type == "cpu"

cloud = torch.randn(70, 3, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
few, drawn = FeatureSampler(num=20, orbits=True), FeatureSampler(num=20, method="random")
for poses, sampling in (
    (TangentPoses(4), few), (GridPoses("D3"), few), (PairPoses(2), drawn), (GridPoses(13), drawn)
):
    assert 18 <= build_pose_graph(cloud, [Level(0.5, poses, sampling)]).levels[0].num <= 20
for name in ("default", "pairs"):
    with torch.device("cpu"):
        model = GroupConvClassifier.from_preset(name, num_classes=3).eval()
        expected = model(build_pose_graph(cloud, model.levels))
        mean = averaged_logits(model, build_pose_graph(cloud, model.levels))
    built = BuildPoseGraph(model.levels, points=True)(Data(pos=cloud))
    assert torch.equal(model(built), expected) and torch.equal(averaged_logits(model, built), mean)
    assert forward_online(model, [cloud]).device.type == "cpu"
    assert build_pose_graphs([cloud, cloud], model.levels).levels[0].pos.device.type == "cpu"
with torch.device("cpu"):
    conv, x, offset = GroupConv(8, 4, SE3Kernel(15, 4)), torch.randn(20, 8), torch.rand(60, 3)
    edges = torch.randint(20, (2, 60))
assert conv(x, edges, (offset, None)).shape == (20, 4)
"""


def test_the_default_device_changes_nothing():
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_constant_is_made_once_and_keeps_its_name():
    calls = []

    @constant
    def table(num):
        "Words."
        calls.append(num)
        return torch.arange(num)

    with torch.inference_mode():
        first = table(3)
    assert table(num=3).tolist() == [0, 1, 2]
    calls.pop()
    assert table(3) is first and not first.is_inference() and calls == [3]
    assert table.__name__ == "table" and table.__doc__ == "Words."


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(pcequi.__path__, "pcequi.")
    if "__main__" not in module.name and ".compiled" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name):
    module = importlib.import_module(name)
    missing = [one for one in getattr(module, "__all__", ()) if not hasattr(module, one)]
    assert missing == []


def test_constants_of_groups_survive_threads_that_clear_each_others(monkeypatch):
    monkeypatch.setattr(constants, "_MOST", 1)  # each new group clears the table
    calls = []

    @group_constant
    def traces(group, shift):
        calls.append(shift)
        return group.diagonal(dim1=1, dim2=2).sum(1) + shift

    groups = [finite_group(name, dtype=torch.float64) for name in ("C2", "C3", "D2", "D3")]
    wanted = [[group.diagonal(dim1=1, dim2=2).sum(1) + n for n in (0, 1)] for group in groups]
    assert traces(groups[0], 0) is traces(groups[0], 0)
    assert calls == [0]

    def ask(turn: int) -> bool:
        place, shift = turn % 4, turn // 4 % 2
        return torch.equal(traces(groups[place], shift), wanted[place][shift])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(2000)))


def test_a_group_without_a_constant_is_asked_once_and_arguments_have_names():
    asked = []

    @group_constant
    def nothing(group, size):
        asked.append(size)

    group = finite_group("D2")
    assert nothing(group, 3) is nothing(group, size=3) is nothing(size=3, group=group) is None
    assert asked == [3]
    with pytest.raises(TypeError, match="missing"):
        nothing(group=group)

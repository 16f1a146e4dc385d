"""Constants are the same whoever asks first, and in whatever mode."""

import importlib
import pkgutil
import subprocess
import sys

import pytest
import torch

import pcequi
from pcequi.constants import constant

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

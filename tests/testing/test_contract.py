"""The contract holds for layers of pcequi, and each law catches its breach."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import global_mean_pool

from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier
from pcequi.nn import GroupConv
from pcequi.ops import pairs_within
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses, TangentPoses
from pcequi.sampling import FeatureSampler
from pcequi.testing import EquivariantLayerContract, as_vectors


class Surface(torch.nn.Module):
    """``GroupConv`` on frames of the surface."""

    def __init__(self):
        super().__init__()
        self.conv = GroupConv(1, 4, SE3Kernel(7, 4))

    def forward(self, pos, batch):
        every = [TangentPoses(1)(pos[batch == b].detach()).rot[:, 0] for b in batch.unique()]
        frame = torch.cat(every)
        target, source = pairs_within(pos.detach(), pos.detach(), 0.5, batch, batch)
        offset = (frame[target].mT @ (pos[source] - pos[target])[:, :, None])[:, :, 0] / 0.5
        relative = offset, frame[target].mT @ frame[source]
        return self.conv(pos.new_ones(len(pos), 1), torch.stack([source, target]), relative)


class TestGroupConv(EquivariantLayerContract):
    per_point = True

    def make_layer(self):
        return Surface()


class TestClassifier(EquivariantLayerContract):
    def make_layer(self):
        grid = GridPoses("O", "principal")
        levels = [Level(0.5, grid, FeatureSampler(num=24), num_points=20)]
        levels += [Level(1.5, CentroidPoses("O"), kernel_points=7)]
        return GroupConvClassifier(levels, 3, channels=[4, 6], head_channels=8, dropout=0.0)

    def call(self, layer, pos, batch):
        clouds = [pos[batch == b].detach() for b in batch.unique()]
        return layer(PoseGraph.batch([build_pose_graph(cloud, layer.levels) for cloud in clouds]))


class Offsets(torch.nn.Module):
    """From the centroid, scaled by a learned function of the distance."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Linear(1, 1)

    def forward(self, pos, batch):
        offset = pos - global_mean_pool(pos, batch)[batch]
        return offset * self.scale(offset.square().sum(1, keepdim=True))


class TestVectors(EquivariantLayerContract):
    action, per_point, group = as_vectors, True, "E(3)"

    def make_layer(self):
        return Offsets()


class OverClouds(Offsets):
    def forward(self, pos, batch):
        return super().forward(pos, torch.zeros_like(batch))


class SmallOverClouds(OverClouds):
    def forward(self, pos, batch):
        return 1e-18 * super().forward(pos, batch)


class Doubled(Offsets):
    def forward(self, pos, batch):
        return super().forward(pos, batch).double()


class Raw(Offsets):
    def forward(self, pos, batch):
        return pos * self.scale(pos.square().sum(1, keepdim=True))


class NanGradient(Offsets):
    def forward(self, pos, batch):
        away = pos - pos[:1]
        return super().forward(pos, batch) + 0 * away.norm(dim=1, keepdim=True).sqrt().sum()


class NoGradient(Offsets):
    def forward(self, pos, batch):
        return super().forward(pos, batch).detach() + 0 * pos


class Forgetful(Offsets):
    """A weight that ``state_dict`` does not know."""

    def __init__(self):
        super().__init__()
        self.factor = torch.randint(1, 10**9, ()).item() if Forgetful.draw else 1.0
        Forgetful.draw = True

    draw = False

    def forward(self, pos, batch):
        return self.factor * super().forward(pos, batch)


BREACHES = [
    (OverClouds, "test_batching", "in a batch differs"),
    (SmallOverClouds, "test_batching", "in a batch differs"),
    (Doubled, "test_dtype", "gave an output in torch.float64"),
    (Raw, "test_moves_as_it_should", "missing centring"),
    (Raw, "test_moves_as_it_should_in_float32", "missing centring"),
    (NanGradient, "test_gradients_are_finite", "gradient of points is not finite"),
    (NoGradient, "test_gradients_are_finite", "no weight gets a gradient"),
    (Forgetful, "test_copies_are_equal", "after state_dict"),
]


@pytest.mark.parametrize(("layer", "law", "message"), BREACHES)
def test_each_law_catches_its_breach(layer, law, message):
    class Contract(TestVectors):
        def make_layer(self):
            return layer()

    with pytest.raises(AssertionError, match=message):
        getattr(Contract(), law)()


def test_the_layer_must_be_given():
    with pytest.raises(NotImplementedError, match="make_layer"):
        EquivariantLayerContract().test_batching()


def test_the_example_of_the_documentation_works_as_it_stands(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "faq.md").read_text()
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "EquivariantLayerContract" in block
    ]
    centring = " - global_mean_pool(pos, batch)[batch]"
    assert centring in block
    (tmp_path / "test_spread.py").write_text(block)
    (tmp_path / "test_raw.py").write_text(block.replace(centring, ""))
    command = [sys.executable, "-m", "pytest", "-q", "-rpf", "--color=no"]
    command += ["-p", "no:cacheprovider", "-p", "no:dash"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    words = done.stdout + done.stderr
    assert "PASSED test_spread.py" in words and "FAILED test_spread.py" not in words, words
    assert "FAILED test_raw.py" in words and "missing centring" in words, words

"""Clouds, seeds and small networks that the tests share."""

import copy
import functools
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses
from pcequi.sampling import FeatureSampler

torch.set_num_threads(1)

# What must not break anything, and has no generic geometry.
DEGENERATE_CLOUDS = ("one point", "two points", "duplicates", "one place", "collinear", "coplanar")
# Clouds that turns exchange with themselves: every selection meets ties.
SYMMETRIC_CLOUDS = ("cube", "grid", "sphere", "corners", "prism")


def _unit(pos):
    pos = pos - pos.mean(0)
    size = pos.norm(dim=1).max()
    return pos / size if size > 0 else pos


def _lattice(n):
    return torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64)] * 3)


def blob(num=60, seed=0):
    """A bumpy ellipsoid with no symmetry, a surface as scanners see it."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(num, 3, dtype=torch.float64, generator=generator)
    pos = torch.nn.functional.normalize(pos, dim=1)
    wave = torch.randn(3, dtype=torch.float64, generator=generator)
    stretch = pos.new_tensor([1.0, 0.7, 0.5])
    return _unit(pos * (1 + 0.3 * torch.sin(3 * pos @ wave))[:, None] * stretch)


def _sphere(num=80):
    step = torch.arange(num, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * step / num, math.pi * (1 + math.sqrt(5)) * step
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * turn.cos(), ring * turn.sin(), z], 1)


def _prism():
    turn = torch.arange(6, dtype=torch.float64) * (math.pi / 3)
    ring = torch.stack([turn.cos(), turn.sin(), torch.zeros_like(turn)], 1)
    return torch.cat([ring + ring.new_tensor([0.0, 0.0, z]) for z in (-0.4, 0.0, 0.4)])


def make_cloud(name):
    surface = _lattice(4)
    surface = surface[((surface == 0) | (surface == 3)).any(1)]
    line = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    return {
        "blob": lambda: blob(),
        "cube": lambda: _unit(surface),
        "grid": lambda: _unit(_lattice(5)),
        "sphere": _sphere,
        "corners": lambda: _unit(_lattice(2)),
        "prism": lambda: _unit(_prism()),
        "one point": lambda: torch.tensor([[0.3, -2.0, 5.0]], dtype=torch.float64),
        "two points": lambda: torch.tensor([[0.0, 0, 0], [0.0, 0, 1]], dtype=torch.float64),
        "duplicates": lambda: blob(10).repeat(3, 1),
        "one place": lambda: torch.full((9, 3), 0.7, dtype=torch.float64),
        "collinear": lambda: line * line.new_tensor([0.6, 0.0, 0.8]),
        "coplanar": lambda: blob(30) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64),
    }[name]()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def make_blob():
    return blob


@pytest.fixture(params=("blob", *SYMMETRIC_CLOUDS))
def solid_cloud(request):
    """Generic and symmetric clouds, one at a time."""
    return make_cloud(request.param)


@pytest.fixture(params=SYMMETRIC_CLOUDS)
def symmetric_cloud(request):
    return make_cloud(request.param)


@pytest.fixture(params=DEGENERATE_CLOUDS)
def degenerate_cloud(request):
    return make_cloud(request.param)


@pytest.fixture
def named_cloud():
    return make_cloud


def small_levels(poses=None, num=24, last=None, **sampling):
    """Three levels; ``num=None`` is dense."""
    poses = GridPoses("O", "principal") if poses is None else poses
    sampler = FeatureSampler(num=num, **sampling)
    if isinstance(poses, NormalPoses):  # the kernel on pairs, then one that reads its axes
        return [
            Level(0.5, poses, sampler, num_points=20, pairs=(2, 2, 3, 2)),
            Level(0.8, poses, sampler, num_points=14, pairs=(3, 2, 3, 1)),
            Level(1.5, last or CentroidPoses("O"), kernel_points=7),
        ]
    return [
        Level(0.5, poses, sampler, num_points=20, kernel_points=15),
        Level(0.8, poses, sampler, num_points=14, kernel_points=7, kernel_rotations=4),
        Level(1.5, last or CentroidPoses("O"), kernel_points=7),
    ]


@functools.lru_cache(maxsize=64)
def _calibrated(levels, seed):
    torch.manual_seed(seed)
    model = GroupConvClassifier(
        levels, 4, channels=[6, 8, 10][: len(levels)], head_channels=12
    ).double()
    torch.nn.init.zeros_(model.head[-1].bias)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = None
    graphs = [build_pose_graph(blob(40, s), levels) for s in (101, 102, 103)]
    with torch.no_grad():
        model.train()(PoseGraph.batch(graphs))
    return model.eval()


def calibrated_network(levels, seed=0):
    """A random network in float64 whose batch norms know their inputs, so that
    its logits differ from cloud to cloud and no change of them is hidden."""
    return copy.deepcopy(_calibrated(tuple(levels), seed))


@pytest.fixture
def levels_of():
    return small_levels


@pytest.fixture
def network():
    return calibrated_network


@pytest.fixture
def interrupted(tmp_path):
    """Python with these arguments, in ``tmp_path``; all of its processes get Ctrl-C so many seconds
    after it has two. Its exit status and what it wrote. Whatever happens, none of them is left."""

    def run(*arguments, wait):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Who is started in the background is deaf to it, and so are the children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        children, end = f"/proc/{process.pid}/task/{process.pid}/children", time.monotonic() + 300
        try:
            while time.monotonic() < end and process.poll() is None:
                with open(children) as file:
                    if len(file.read().split()) >= 2:  # what tracks semaphores is one
                        break
                time.sleep(0.02)
            time.sleep(wait)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=300)
            return process.returncode, out, err
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    return run

"""Nothing optional is needed: a network runs with numpy and torch alone."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pcequi.ops.backends import parallel_kernel

PROGRAM = """
import sys
HIDDEN = ("numba", "torch_cluster", "open3d", "huggingface_hub", "lightning_fabric")

finders = list(sys.meta_path)

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in HIDDEN:
            return next(filter(None, (f.find_spec(name, path, target) for f in finders)), None)

    def find_distributions(self, *context):
        known = [f.find_distributions for f in finders if hasattr(f, "find_distributions")]
        return (found for find in known for found in find(*context))

sys.meta_path[:] = [Hide()]
import torch
torch.set_num_threads(1)
from pcequi.models import GroupConvClassifier
from pcequi.ops import HAS_NUMBA, HAS_TORCH_CLUSTER
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import CentroidPoses, TangentPoses
from pcequi.sampling import FeatureSampler

assert not HAS_NUMBA and not HAS_TORCH_CLUSTER
levels = [
    Level(0.6, TangentPoses(4), FeatureSampler(num=12, refine=1), kernel_points=7),
    Level(1.5, CentroidPoses("O"), kernel_points=7),
]
torch.manual_seed(0)
model = GroupConvClassifier(levels, 3, channels=[4, 6]).eval()
pos = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
print([round(v, 5) for v in model(build_pose_graph(pos, levels))[0].tolist()])
assert not any(name in sys.modules for name in HIDDEN)
"""


def run(program):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=120, env=environment, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_network_runs_without_optional_packages_and_gives_the_same():
    hidden = run(PROGRAM)
    hides = next(line for line in PROGRAM.splitlines() if line.startswith("HIDDEN"))
    seen = PROGRAM.replace(hides, "HIDDEN = ()")
    seen = seen.replace("assert not HAS_NUMBA and not HAS_TORCH_CLUSTER\n", "")
    assert hidden == run(seen) and hidden.startswith("[")


def test_switches_turn_backends_off(monkeypatch):
    from pcequi.ops.backends import _importable

    assert _importable("json", "PCEQUI_NO_SUCH_THING")
    monkeypatch.setenv("PCEQUI_NO_SUCH_THING", "1")
    assert not _importable("json", "PCEQUI_NO_SUCH_THING")
    monkeypatch.setenv("PCEQUI_NO_SUCH_THING", "0")
    assert _importable("json", "PCEQUI_NO_SUCH_THING")
    assert not _importable("no_such_module_anywhere", "UNSET_SWITCH")


def test_numba_does_not_say_how_old_the_tbb_of_another_package_is(monkeypatch):
    """Open3D's is; numba looks as its first kernel begins."""
    numba = pytest.importorskip("numba")

    def unknown():
        raise ValueError("Threading layer is not initialized.")

    monkeypatch.setattr(numba, "threading_layer", unknown)
    with pytest.warns(UserWarning) as told, parallel_kernel():
        warnings.warn("The TBB threading layer requires TBB version 2021", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in told] == ["something else"]

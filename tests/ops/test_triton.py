"""Kernels for a GPU: tried before they are relied on, and equal to plain torch."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from pcequi.ops import backends


@pytest.fixture
def asked(monkeypatch):
    """``has_triton`` as a GPU would ask it, with this in place of the trial."""

    def answer(trial):
        module = ModuleType("gpu_fourier")
        module.try_out = trial
        monkeypatch.setattr(backends, "_importable", lambda *names: True)
        monkeypatch.setitem(sys.modules, "pcequi.ops.compiled.gpu_fourier", module)
        return backends.has_triton()

    backends.has_triton.cache_clear()
    yield answer
    backends.has_triton.cache_clear()


def test_what_compiles_is_used(asked):
    tried = []
    assert asked(lambda: tried.append(1)) and tried == [1]
    assert backends.has_triton() and tried == [1]  # once a process


def test_what_does_not_compile_is_told_and_done_without(asked):
    def trial():
        raise RuntimeError("Failed to find C compiler")

    with pytest.warns(RuntimeWarning, match="Failed to find C compiler.*PCEQUI_NO_TRITON=1"):
        assert not asked(trial)
    assert not backends.has_triton()  # which does not warn again


def test_without_triton_nothing_is_tried(monkeypatch):
    backends.has_triton.cache_clear()
    monkeypatch.setenv("PCEQUI_NO_TRITON", "1")
    monkeypatch.setitem(sys.modules, "pcequi.ops.compiled.gpu_fourier", None)  # not to be imported
    assert not backends.has_triton()
    backends.has_triton.cache_clear()


INTERPRETED = """
import torch
from pcequi.ops.dense import Characters, _transformed
from pcequi.ops.compiled.gpu_fourier import fourier
from pcequi.orbits import group_products
from pcequi.rotations import finite_group

draw = torch.Generator().manual_seed(0)
for group in ("C2", "D2"):
    elements = finite_group(group, dtype=torch.float64)
    size = len(elements)
    for basis, channels, spare in ((1, 5, 0), (7, 6, 1), (15, 16, 8)):
        turns = torch.stack([torch.randperm(basis, generator=draw) for _ in range(size)])
        one = Characters.of(turns, group_products(elements))
        for back in (False, True):
            x = torch.randn(3, *((size, 5) if back else (5, size)), basis, channels, generator=draw)
            last = torch.randn(3, 5, basis, generator=draw) if back else None
            rest = one.inverse, back, 0.5, spare, last
            found, wanted = fourier(x, *rest), _transformed(x, one.signs, *rest)
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
print("equal")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_interpreted_on_the_cpu():
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=environment
    )
    assert done.stdout == "equal\n", done.stderr

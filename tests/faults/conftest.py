"""What the fault tests share, and the line that sums them up."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_COUNTS: dict[str, int] = {}


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _as_many_threads_as_the_children():
    """Results are the same to the bit for the same number of threads only."""
    from pcequi.training.threads import set_threads

    set_threads(1)
    yield
    set_threads()


@pytest.fixture(scope="session")
def tiny():
    return _load(_HERE.parent / "training" / "tiny.py")


@pytest.fixture(scope="session")
def damage():
    """The module ``damage.py``."""
    return _load(_HERE / "damage.py")


@pytest.fixture
def survived():
    """Call it with the kind of a fault once its outcome is checked."""

    def count(kind: str) -> None:
        _COUNTS[kind] = _COUNTS.get(kind, 0) + 1

    return count


@pytest.fixture(scope="session")
def nursery():
    """Runs a task of ``nursery.py`` in a child of a warm process."""
    one_thread = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, _HERE / "nursery.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one_thread,
    )

    def ask(task: str, folder: Path, **options) -> dict:
        print(json.dumps({"task": task, "folder": str(folder), **options}), file=process.stdin)
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "the nursery died"
        return json.loads(line)

    with process:
        yield ask
        process.stdin.close()


def pytest_terminal_summary(terminalreporter):
    if _COUNTS:
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(_COUNTS.items()))
        total = sum(_COUNTS.values())
        terminalreporter.write_line(f"Faults tried and survived: {total} ({parts})")

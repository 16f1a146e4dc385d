"""Run the core of the tests with the oldest packages that pyproject.toml allows.

Makes .venv-oldest with every dependency at its lower bound. torch stays at the locked
version: the registry has no CPU build of torch 2.6, only one with CUDA's libraries of
several gigabytes. Packages that others bring along are the newest that fit, as a user
would get them today. Warnings of old packages are ignored; wrong results are not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

from audit import ROOT, read_locked
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

VENV = ROOT / ".venv-oldest"
PYTHON = VENV / "bin" / "python"
#: What a network, the readers and the commands need; no pictures and no processes.
TESTS = (
    "ops", "nn", "models", "datasets", "training", "test_cli.py", "test_rotations.py",
    "test_poses.py", "test_pose_graph.py", "test_sampling.py", "test_graph_store.py",
    "test_graph_chunks.py", "test_degenerate.py",
)  # fmt: skip
EXTRAS = ("hdf5", "hub", "test")


def oldest(project: dict, locked: dict[str, str]) -> list[str]:
    """Exact requirements: the lower bounds of the project, and torch as it is locked."""
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    versions = {"torch": locked["torch"]}
    for requirement in map(Requirement, wanted):
        (bound,) = requirement.specifier
        versions.setdefault(canonicalize_name(requirement.name), bound.version)
    # huggingface_hub brings it, and it writes over typer's files.
    versions["typer-slim"] = versions["typer"]
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def main() -> int:
    """Install, test, and return what pytest returns."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = oldest(project, read_locked(ROOT / "constraints.txt"))
    print(f"oldest packages: {' '.join(wanted)}", flush=True)
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    subprocess.run([*pip, "setuptools", "packaging", *wanted], check=True)
    # Of two packages with the same files, the second one's stay.
    typer = next(one for one in wanted if one.startswith("typer=="))
    subprocess.run([*pip, "--no-deps", "--force-reinstall", typer], check=True)
    command = [PYTHON, "-m", "pytest", "-q", "-o", "filterwarnings=ignore"]
    command += ["-p", "no:cacheprovider", *(f"tests/{name}" for name in TESTS), *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Run the tests with the newest packages, as who installs pcequi today gets them.

    python3.13 tools/newest.py [arguments of pytest]

Makes .venv-newest with the Python that runs this: any from 3.11 on, also one that the locked
versions were not made for. On Linux torch brings several gigabytes of CUDA's libraries.
torch-cluster is left out, as most who install pcequi do not build it. Warnings are errors, as in
`make test`: what will not work any more with the next releases is seen here first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-newest"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"


def main() -> int:
    """Install, test, and return what pytest returns."""
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    newest = ["--upgrade-strategy", "eager"]
    subprocess.run([*pip, *newest, "-e", f"{ROOT}[test,docs]"], check=True)
    if subprocess.run([*pip, *newest, "open3d"]).returncode:
        print("Open3D has no release for this Python; tests that need it are skipped", flush=True)
    found = [PYTHON, "-m", "pip", "list", "--disable-pip-version-check"]
    subprocess.run(found, check=True)
    command = [PYTHON, "-m", "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    command += ["-p", "no:cacheprovider", *sys.argv[1:]]
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(command, cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())

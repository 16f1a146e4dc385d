"""Make the virtual environment that pcequi is developed, tested and shown in.

Run by `make setup` with the system's Python; uses the standard library only.
Every step may be run again: what is there already is kept. Optional parts
(Open3D, torch-cluster) may fail; the rest is installed all the same.

``PCEQUI_SETUP_WITHOUT="open3d torch-cluster"`` leaves parts out.
"""

import fcntl
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor

from console import (
    ROOT,
    VENV,
    VENV_PYTHON,
    CommandError,
    pip,
    python,
    run,
    say,
    step,
    warn,
)
from system_packages import install_system_packages
from torch_cluster_wheel import install_torch_cluster

CONSTRAINTS = ("-c", ROOT / "constraints.txt")


def main() -> int:
    without = os.environ.get("PCEQUI_SETUP_WITHOUT", "").split()
    want_open3d = "open3d" not in without
    want_torch_cluster = "torch-cluster" not in without
    try:
        install_system_packages(compiler=want_torch_cluster, open3d=want_open3d)
        make_venv()
        with open(VENV / "setup.lock", "w") as lock:
            # Two set-ups at once (say, two terminals) would break each other's packages.
            fcntl.flock(lock, fcntl.LOCK_EX)
            step("torch", install_torch)
            step("pcequi and what it needs", install_pcequi)
            with ThreadPoolExecutor(1) as beside:  # takes one core a minute
                kernels = beside.submit(compile_kernels)
                if want_open3d:
                    step("Open3D", install_open3d)
                step("kernels for this processor", lambda: finish_kernels(kernels))
            if want_torch_cluster:  # whose compilers take all memory
                install_torch_cluster()
    except CommandError as error:
        say(f"the set-up failed: {error}")
        return 1
    say("the set-up is complete (details: .venv/setup.log)")
    say("`. .venv/bin/activate` makes `pcequi` and `python` those of .venv")
    return 0


def make_venv() -> None:
    """Keep a virtual environment that runs; make a new one in place of a broken one."""
    try:
        pip("--version")
        say("virtual environment: keeping .venv")
    except CommandError:
        step("virtual environment", lambda: run(sys.executable, "-m", "venv", "--clear", VENV))


def install_torch() -> None:
    """Install torch and what builds extensions for it."""
    # First, and by the exact version in the constraints: an open range lets pip prefer
    # a build with several GB of CUDA libraries to a CPU build that lies ready.
    pip("install", "torch", "setuptools", "wheel", *CONSTRAINTS)


def install_pcequi() -> None:
    """Install the locked versions, and pcequi itself as a link to this checkout."""
    # setuptools is there for torch's sake; fetching it anew for an isolated build is waste.
    pip("install", "--no-build-isolation", "-e", f"{ROOT}[test,dev]", *CONSTRAINTS)


def install_open3d() -> None:
    """Install Open3D, which only pictures need."""
    try:
        pip("install", "open3d", *CONSTRAINTS)
        python("import open3d")
    except CommandError as error:
        warn("Open3D does not work; only pcequi.viz needs it", error, "Try `make -B setup`.")


def compile_kernels() -> None:
    """Compile the kernels that tests and demonstration would wait for."""
    run(VENV_PYTHON, ROOT / "tools" / "compile_kernels.py")


def finish_kernels(compiling: Future) -> None:
    """Wait for ``compile_kernels``; what it could not do, the first use does."""
    try:
        compiling.result()
    except CommandError as error:
        warn("kernels are compiled when they are first used", error, "That takes a minute.")


if __name__ == "__main__":
    sys.exit(main())

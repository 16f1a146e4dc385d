"""Build torch-cluster against the installed torch, once for each machine.

It comes as source only, and a plain build takes minutes: 17 files, each of
which reads all of torch's C++ headers. Most of that is for training loops
written in C++, of which torch-cluster uses nothing. Hence two stand-ins for
these headers, which name only what it needs. They change what the compiler
reads, not what it produces. Should they not suit some version of torch, the
build is done again with the headers as they are.
"""

import os
import platform
import shutil
import tempfile
from pathlib import Path

from console import VENV, VENV_PYTHON, CommandError, pip, python, run, say, warn

REQUIREMENT = "torch-cluster==1.6.3"

SMALL_HEADERS = {
    "torch/torch.h": "#pragma once\n#include <torch/types.h>\n",
    "torch/script.h": (
        "#pragma once\n"
        "#include <torch/types.h>\n"
        "#include <ATen/core/op_registration/op_registration.h>\n"
    ),
}

# One compiler process needs up to 1.5 GB.
BYTES_PER_JOB = 2 << 30

# A wheel may install and still not load, or load and crash: use it once.
TRIAL = (
    "import torch, torch_cluster as c; x = torch.rand(64, 3);"
    "assert c.fps(x, ratio=0.1).numel() == 7;"
    "assert c.knn(x, x, 4).shape == (2, 256);"
    "c.radius(x, x, 0.1)"
)


def install_torch_cluster() -> None:
    """Install from the cache, or build into it and install; never fails."""
    if works():
        say("torch-cluster: already there")
        return
    with_cuda = python(
        "import torch; from torch.utils.cpp_extension import CUDA_HOME;"
        "print(int(torch.cuda.is_available() and CUDA_HOME is not None))"
    )
    folder = wheel_folder("cuda" if with_cuda == "1" else "cpu")
    try:
        wheels = sorted(folder.glob("torch_cluster-*.whl"))
        if wheels and install_wheel(wheels[-1]):
            say("torch-cluster: taken from the wheel of an earlier set-up")
            return
        wheel = build(folder, with_cuda == "1")
        if not install_wheel(wheel):
            raise CommandError("the wheel was built, but does not run")
        say("torch-cluster: built, tried and kept for the next set-up")
    except CommandError as error:
        warn(
            "torch-cluster could not be built; pcequi works without it, but slower",
            error,
            "Try again with `make -B setup`.",
        )


def works() -> bool:
    """Whether torch-cluster can be imported and used."""
    try:
        python(TRIAL)
    except CommandError:
        return False
    return True


def wheel_folder(suffix: str) -> Path:
    """The user's cache for this torch, this Python and this kind of machine."""
    version = python("import torch; print(torch.__version__)")
    tag = python("import sys; print(sys.implementation.cache_tag)")
    key = f"torch-{version}-{tag}-{platform.machine()}-{suffix}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "pcequi" / "wheels" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = VENV / "wheels" / key
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def install_wheel(wheel: Path) -> bool:
    """Install one wheel and try it; a wheel that does not run is taken out again."""
    pip("install", "--no-deps", "--force-reinstall", wheel)
    if works():
        return True
    pip("uninstall", "--yes", "torch-cluster")
    wheel.unlink()
    return False


def build(folder: Path, with_cuda: bool) -> Path:
    """Build the wheel and keep it in ``folder``."""
    if shutil.which("c++") is None:
        raise CommandError("there is no C++ compiler (Debian: apt-get install g++)")
    jobs = number_of_jobs()
    say(f"torch-cluster: building once for this torch, {jobs} files at a time (minutes) ...")
    with tempfile.TemporaryDirectory(prefix="pcequi-build-") as name:
        scratch = Path(name)
        settings = scratch / "build.cfg"
        settings.write_text(f"[build_ext]\nparallel={jobs}\n")
        env = {"DIST_EXTRA_CONFIG": str(settings)}
        if with_cuda:
            build_wheel(scratch, {**env, **flags()})
        else:
            env["FORCE_ONLY_CPU"] = "1"
            headers = write_small_headers(scratch / "headers")
            try:
                build_wheel(scratch, {**env, **flags(f"-I{headers}")})
            except CommandError:
                say("torch-cluster: again, with all of torch's headers ...")
                build_wheel(scratch, {**env, **flags()})
        (wheel,) = scratch.glob("torch_cluster-*.whl")
        # Renaming is atomic: a set-up that is interrupted leaves no half wheel.
        partial = folder / (wheel.name + ".part")
        shutil.copyfile(wheel, partial)
        return partial.replace(folder / wheel.name)


def flags(*more: str) -> dict[str, str]:
    """Compiler flags; which variable counts for C++ depends on the setuptools release."""
    # Debug information, on by default, costs much time, and is stripped at the end anyway.
    text = " ".join(("-g0", "-O2", *more))
    return {"CFLAGS": text, "CXXFLAGS": text}


def build_wheel(output: Path, env: dict[str, str]) -> None:
    """Let pip build the wheel with the virtual environment's own torch."""
    # pip's cache does not know which torch a wheel was built against.
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir"]
    run(VENV_PYTHON, "-m", "pip", "wheel", *options, "-w", output, REQUIREMENT, env=env)


def write_small_headers(folder: Path) -> Path:
    """Write the stand-ins; found first because these flags come before torch's own folders."""
    for name, text in SMALL_HEADERS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def number_of_jobs() -> int:
    """As many compilers as the machine has cores, and memory, for."""
    try:
        cores = len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not Linux
        return 1
    return max(1, min(cores, memory // BYTES_PER_JOB))

"""Debian packages that pip cannot bring: Open3D's libraries and a C++ compiler."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from console import CommandError, run, say, warn

OPEN3D_LIBRARIES = (
    "libegl1",
    "libgl1",
    "libgl1-mesa-dri",  # software rendering, for pictures without a screen
    "libgomp1",
    "libidn2-0",
    "libudev1",
    "libusb-1.0-0",
    "libx11-6",
)


def missing_packages(compiler: bool, open3d: bool) -> list[str]:
    """Names of the packages that are wanted and not there."""
    missing = []
    if open3d:
        missing += [name for name in OPEN3D_LIBRARIES if not is_installed(name)]
    if compiler:
        if shutil.which("c++") is None:
            missing.append("g++")
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            missing.append(f"python{sys.version_info.major}.{sys.version_info.minor}-dev")
    return missing


def is_installed(package: str) -> bool:
    """Whether dpkg lists the package as installed."""
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}", package]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.strip() == "installed"


def install_system_packages(compiler: bool, open3d: bool) -> None:
    """Install what is missing, or say what to install; never fails."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        wanted = (*(OPEN3D_LIBRARIES if open3d else ()), *(("g++",) if compiler else ()))
        if wanted:
            say("not a Debian system: install the equivalents of " + " ".join(wanted))
        return
    missing = missing_packages(compiler, open3d)
    if not missing:
        say("system packages: all there")
        return
    say("system packages: installing " + " ".join(missing) + " ...")
    try:
        apt_get_install(missing)
    except CommandError as error:
        names = " ".join(missing)
        warn("system packages are missing", error, f"Install by hand: apt-get install {names}")


def apt_get_install(packages: list[str]) -> None:
    """Install with the package lists at hand; only if that fails, fetch new lists."""
    # `sudo -n` fails at once where it would ask for a password.
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = ["-o", "DPkg::Lock::Timeout=300", "-y", "-q"]
    apt_get = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options]
    install = [*apt_get, "install", "--no-install-recommends", *packages]
    try:
        run(*install)
    except CommandError:
        run(*apt_get, "update")
        run(*install)

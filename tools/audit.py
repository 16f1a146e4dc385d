"""Check the installed packages: known-bad versions, lower bounds, the locked set.

Fails, with the package, its version and the remedy, where something in this
environment is known to be bad, older than pyproject.toml allows, or not the
version that constraints.txt locks. Where pip-audit is installed and the network
answers, it also asks for published vulnerabilities of the locked set.

    python tools/audit.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bad:
    """Versions of a package that must not be used.

    Attributes:
        package: its name.
        versions: which are bad, as pip writes it.
        reason: what goes wrong.
        remedy: the versions to install instead.
    """

    package: str
    versions: str
    reason: str
    remedy: str


#: Traps that have cost somebody a day. pip-audit knows published vulnerabilities; this
#: table adds what it cannot know, and what must be caught without a network.
KNOWN_BAD = (
    Bad("lightning", ">=2.6.2,<2.6.4", "malicious releases (GHSA-w37p-236h-pfx3)", ">=2.6.4"),
    Bad("roma", "<1.8", "random draws ignore `generator`", ">=1.8"),
    Bad("trimesh", "<4.6.4", "reads faces that point outside the vertices", ">=4.6.4"),
    Bad("torch-geometric", "<2.8", "neighbour functions that call torch-cluster", ">=2.8"),
    Bad("h5py", "<3.11", "built for numpy 1: importing it fails with numpy 2", ">=3.11"),
    Bad("torch", "<2.6", "torch.load runs code even with weights_only (CVE-2025-32434)", ">=2.6"),
    Bad("open3d", "<0.19", "built for numpy 1: importing it fails with numpy 2", ">=0.19"),
    Bad("setuptools", "<78.1.1", "writes outside its folder (CVE-2025-47273)", ">=78.1.1"),
)


def known_bad(installed: Mapping[str, str]) -> list[str]:
    """Problems of installed versions (by canonical name) that are in ``KNOWN_BAD``."""
    problems = []
    for bad in KNOWN_BAD:
        version = installed.get(canonicalize_name(bad.package))
        if version and SpecifierSet(bad.versions).contains(_plain(version), prereleases=True):
            problems.append(
                f"{bad.package} {version} is known to be bad ({bad.reason}): "
                f"pip install '{bad.package}{bad.remedy}'"
            )
    return problems


def below_bounds(installed: Mapping[str, str], project: Mapping) -> list[str]:
    """Problems of installed versions that ``project`` (of pyproject.toml) does not allow."""
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    problems, needed = [], set(map(_name_of, project["dependencies"]))
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        version = installed.get(name)
        if version is None and name in needed:
            problems.append(f"{requirement.name} is missing: pip install '{requirement}'")
        if version and not requirement.specifier.contains(_plain(version), prereleases=True):
            problems.append(
                f"{requirement.name} {version} is not {requirement.specifier}, which "
                f"pyproject.toml asks for: pip install '{requirement}'"
            )
    return list(dict.fromkeys(problems))


def read_locked(path: Path) -> dict[str, str]:
    """Version by canonical name, of a file of constraints."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): version for name, version in pairs}


def off_lock(installed: Mapping[str, str], locked: Mapping[str, str]) -> list[str]:
    """Problems of installed versions that are not the locked ones."""
    return [
        f"{name} {installed[name]} is installed and constraints.txt locks {version}: "
        f"pip install '{name}=={version}', or lock the new one"
        for name, version in locked.items()
        if name in installed and _plain(installed[name]) != Version(version)
    ]


def unlocked(installed: Mapping[str, str], locked: Mapping[str, str]) -> list[str]:
    """Packages that are installed and locked by nobody."""
    own = {"pcequi", "pip", "torch-cluster"}  # the last is built here, by tools/
    return sorted(name for name in installed if name not in locked and name not in own)


def vulnerabilities(path: Path, seconds: float = 300) -> tuple[list[str], str]:
    """Published vulnerabilities of the locked set, and in words what could be asked.

    pip-audit ends well, and says that nothing was found, also where the service knew
    none of the packages (a mirror of the registry, say): its answer is counted here.
    """
    tool = ROOT / ".venv-audit" / "bin" / "pip-audit"
    if not tool.exists():
        return [], "pip-audit was NOT run: it is not installed (`make audit` tries to)"
    command = [tool, "--no-deps", "--disable-pip", "-r", path, "-f", "json"]
    command += ["--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"pip-audit was NOT run to its end ({type(error).__name__})"
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        return [], f"pip-audit was NOT run to its end: {last[:300]}"
    return judge(answers)


def judge(answers: list[dict]) -> tuple[list[str], str]:
    """Problems in what pip-audit answered, and in words how much it could answer."""
    asked = [one for one in answers if "skip_reason" not in one]
    problems = [
        f"{one['name']} {one['version']} has a published vulnerability ({hole['id']}): "
        f"pip install '{one['name']}>={(hole.get('fix_versions') or ['a later one'])[-1]}'"
        for one in asked
        for hole in one.get("vulns", [])
    ]
    if not asked:
        return [], (
            f"pip-audit could NOT check anything: the service knew none of {len(answers)} packages"
        )
    note = f"pip-audit: {len(problems)} known vulnerabilities in {len(asked)} packages"
    missing = len(answers) - len(asked)
    return problems, note + (f"; {missing} could NOT be checked" if missing else "")


def _plain(version: str) -> Version:
    # A local part says how it was built: 2.13.0+cpu is 2.13.0.
    return Version(Version(version).public)


def _name_of(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def main(installed: Mapping[str, str] | None = None) -> int:
    """Print what was checked and every problem; 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="do not run pip-audit")
    options = parser.parse_args()
    if installed is None:
        found = importlib.metadata.distributions()
        installed = {canonicalize_name(one.metadata["Name"]): one.version for one in found}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = read_locked(ROOT / "constraints.txt")
    problems = known_bad(installed) + below_bounds(installed, project)
    problems += off_lock(installed, locked)
    note = "pip-audit was NOT run (--offline)"
    if not options.offline:
        more, note = vulnerabilities(ROOT / "constraints.txt")
        problems += more
    for problem in problems:
        print(f"FAILED {problem}")
    others = unlocked(installed, locked)
    if others:
        print(f"not locked: {', '.join(others)}")
    print(note)
    print(
        f"{len(installed)} packages against {len(KNOWN_BAD)} known-bad ranges, pyproject.toml and "
        f"{len(locked)} locked versions: {len(problems)} problems"
    )
    return min(1, len(problems))


if __name__ == "__main__":
    sys.exit(main())

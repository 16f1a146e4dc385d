"""`make audit`: bad versions are named with their remedy, good ones pass."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKED = {"torch": "2.13.0", "rich": "15.0.0"}
PROJECT = {
    "dependencies": ["torch>=2.6", "numpy>=2"],
    "optional-dependencies": {"hdf5": ["h5py>=3.11"]},
}


@pytest.fixture(scope="module")
def audit():
    """The module ``tools/audit.py``."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / "tools" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["audit"]


@pytest.mark.parametrize(
    ("package", "version", "remedy"),
    [
        ("lightning", "2.6.3", "malicious.*pip install 'lightning>=2.6.4'"),
        ("roma", "1.7.1", "generator.*pip install 'roma>=1.8'"),
        ("torch-geometric", "2.7.0", "torch-cluster.*pip install 'torch-geometric>=2.8'"),
        ("torch", "2.5.1+cpu", "torch.load runs code.*pip install 'torch>=2.6'"),
        ("trimesh", "4.6.0", "outside the vertices.*pip install 'trimesh>=4.6.4'"),
        ("h5py", "3.10.0", "numpy 1.*pip install 'h5py>=3.11'"),
    ],
)
def test_a_known_bad_version_is_named_with_its_remedy(audit, package, version, remedy):
    (problem,) = audit.known_bad({package: version})
    assert f"{package} {version}" in problem
    assert re.search(remedy, problem)


@pytest.mark.parametrize(
    ("package", "version"),
    [("lightning", "2.6.1"), ("lightning", "2.6.4"), ("torch", "2.6.0+cu124"), ("other", "0.1")],
)
def test_versions_beside_a_bad_range_pass(audit, package, version):
    assert audit.known_bad({package: version}) == []


def test_what_is_missing_or_too_old_for_the_project_is_named(audit):
    problems = audit.below_bounds({"torch": "2.5.0", "h5py": "3.10.0"}, PROJECT)
    assert len(problems) == 3
    assert "torch 2.5.0 is not >=2.6" in problems[0] and "pip install 'torch>=2.6'" in problems[0]
    assert "numpy is missing: pip install 'numpy>=2'" in problems[1]
    assert "h5py 3.10.0" in problems[2]
    assert audit.below_bounds({"torch": "2.6.0+cpu", "numpy": "2.0.0"}, PROJECT) == []


def test_other_versions_than_the_locked_ones_are_named(audit):
    (problem,) = audit.off_lock({"torch": "2.13.0+cpu", "rich": "14.0.0"}, LOCKED)
    assert "rich 14.0.0" in problem and "pip install 'rich==15.0.0'" in problem
    assert audit.unlocked({"torch": "2.13.0", "left-pad": "1.0", "pip": "26"}, LOCKED) == [
        "left-pad"
    ]


def test_the_command_fails_for_a_bad_environment(audit, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit.py", "--offline"])
    bounds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    good = audit.read_locked(ROOT / "constraints.txt")
    assert {canonicalize_name(Requirement(bound).name) for bound in bounds} <= set(good)
    assert audit.main(good) == 0
    assert audit.main(good | {"lightning": "2.6.2"}) == 1
    out = capsys.readouterr().out
    assert "FAILED lightning 2.6.2 is known to be bad (malicious releases" in out
    assert "pip-audit was NOT run (--offline)" in out


def test_an_answer_about_nothing_is_no_clean_answer(audit):
    skipped = {"name": "rich", "skip_reason": "not found"}
    problems, note = audit.judge([skipped] * 3)
    assert problems == [] and "could NOT check anything" in note and "3 packages" in note
    hole = {"id": "GHSA-1", "fix_versions": ["15.1"]}
    one = {"name": "rich", "version": "15.0.0", "vulns": [hole]}
    problems, note = audit.judge([skipped, one, {"name": "a", "version": "1", "vulns": []}])
    assert len(problems) == 1 and "1 could NOT be checked" in note
    assert "rich 15.0.0" in problems[0] and "GHSA-1" in problems[0] and "rich>=15.1" in problems[0]
    assert audit.judge([one | {"vulns": []}]) == (
        [], "pip-audit: 0 known vulnerabilities in 1 packages"
    )  # fmt: skip


def test_the_bounds_of_the_project_leave_no_known_bad_version(audit):
    """The first version that pyproject.toml allows is outside every known-bad range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    for requirement in map(Requirement, wanted):
        (bound,) = requirement.specifier
        assert bound.operator in (">=", "=="), requirement
        assert audit.known_bad({canonicalize_name(requirement.name): bound.version}) == []


def test_the_oldest_set_is_that_of_the_bounds(audit, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import oldest

    extras = {"hdf5": ["h5py>=3.11"], "hub": [], "test": ["pytest>=8"]}
    project = {"dependencies": ["torch>=2.6", "typer>=0.16"], "optional-dependencies": extras}
    assert oldest.oldest(project, {"torch": "2.13.0"}) == [
        "h5py==3.11", "pytest==8", "torch==2.13.0", "typer==0.16", "typer-slim==0.16"
    ]  # fmt: skip

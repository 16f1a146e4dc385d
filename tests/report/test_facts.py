"""Commit and memory of the process."""

import subprocess
import sys

import pytest
import torch

from pcequi.report import code_commit, peak_memory


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_and_whether_files_differ(tmp_path):
    assert code_commit(tmp_path) is None
    git(tmp_path, "init")
    assert code_commit(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    commit = code_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert code_commit(tmp_path) == f"{commit} with changes"


def test_peak_memory_grows():
    before = peak_memory().get("process")
    if before is None:
        pytest.skip("this system does not tell how much memory a process took")
    held = torch.ones(int(before * 1e6 / 4) + 25_000_000)
    assert peak_memory()["process"] >= before + 90
    assert len(held)


def test_a_worker_counts_if_it_held_more_than_any_child_before():
    code_commit()
    before = peak_memory()
    if "largest_worker" not in before:
        pytest.skip("this system does not tell how much memory a child took")
    assert "largest_worker" not in peak_memory(before=before)
    size = int(before["largest_worker"] + 200) * 1_000_000
    subprocess.run([sys.executable, "-c", f"b'1' * {size}"], check=True)
    assert peak_memory(before=before)["largest_worker"] > before["largest_worker"] + 100

"""Facts about a run that only the running process knows: its code and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

__all__ = ["code_commit", "peak_memory"]


def code_commit(folder: str | Path | None = None) -> str | None:
    """The git commit of the code, with a mark where files differ from it.

    Args:
        folder: a checkout; by default the one that pcequi is imported from.

    Returns:
        The commit's 40 digits, perhaps followed by ``"with changes"``; None for
        code that is in no checkout of its own, or where there is no git.

    **Equivariance:** does not apply.
    """
    folder = Path(__file__).resolve().parents[2] if folder is None else Path(folder)
    # An installed package may lie within somebody else's repository.
    if not (folder / ".git").exists():
        return None
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words], cwd=folder, env=environment, capture_output=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit and git("status", "--porcelain", "--untracked-files=no"):
        return f"{commit} with changes"
    return commit or None


def peak_memory(
    device: torch.device | str = "cpu", before: dict[str, float] | None = None
) -> dict[str, float]:
    """The most memory held so far, in MB (10^6 bytes).

    Args:
        device: where the network runs.
        before: what this function returned before the work. A short-lived child
            such as git counts with the memory that it is started from, so a
            worker is told only if it held more than any child before.

    Returns:
        ``process``, resident, since the process began; ``largest_worker``, of
        the child processes that have ended, where there were any; ``cuda``,
        allocated by torch, on a CUDA device. Empty where the system does not
        tell.

    **Equivariance:** does not apply.
    """
    peaks: dict[str, float] = {}
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        whose = {"process": resource.RUSAGE_SELF, "largest_worker": resource.RUSAGE_CHILDREN}
        peaks = {name: resource.getrusage(who).ru_maxrss * unit for name, who in whose.items()}
    if torch.device(device).type == "cuda":
        peaks["cuda"] = torch.cuda.max_memory_allocated(device)
    peaks = {name: round(size / 1e6, 1) for name, size in peaks.items() if size}
    if before is not None and peaks.get("largest_worker") == before.get("largest_worker"):
        peaks.pop("largest_worker", None)
    return peaks

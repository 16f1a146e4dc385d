"""What every benchmark writes beside its figures: machine, versions, commit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import torch

import pcequi
from pcequi.networks import FOR_SCANS, TOGETHER

#: Networks asked together: what ``pcequi predict`` does by default and for scans, and cheaper
#: forms.
TEAMS = (
    TOGETHER,
    FOR_SCANS,
    ("modelnet40-large", "modelnet40-pairs"),
    ("modelnet40", "modelnet40-pairs"),
)
RESULTS = Path(__file__).parent / "results"


def circumstances() -> dict:
    """Processor, cores, versions, commit and date, as plain values."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pcequi": pcequi.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of the code, with a "+" where files of it were changed since; results and pages,
    which benchmarks write themselves, do not count."""
    changed = "status --porcelain --untracked-files=no -- :/ :!/benchmarks/results :!/docs"
    head = _git(folder, "rev-parse --short HEAD")
    return head + ("+" if _git(folder, changed) else "") if head else None


def _git(folder: Path, command: str) -> str:
    try:
        done = subprocess.run(
            ["git", *command.split()], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:  # a copy of the code on a machine without git
        return ""
    return done.stdout.strip()


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Options of what a benchmark may use of the machine."""
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument(
        "--workers", type=int, help="processes that precompute; by default all cores"
    )
    parser.add_argument("--cache", help="of precomputed graphs")


def decisive(settings: dict) -> dict:
    """Of the settings of a run what decides its figures: not where things lie, nor under which
    other protocols it was evaluated."""
    own = {key: value for key, value in settings.items() if key not in ("source", "root", "also")}
    return own | {"start": own["start"] and Path(own["start"]).name}


def write(name: str, figures: dict) -> Path:
    """Write ``results/<name>.json`` with the circumstances and return its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"circumstances": circumstances(), **figures}, indent=1) + "\n")
    return path


def put_table(page: Path, mark: str, table: list[str]) -> None:
    """Replace the table behind ``mark``, the block with its command, on a page that has it."""
    before, found, after = page.read_text().partition(mark)
    if found:
        rest = re.sub(r"\A\s*(\|.*\n)*\s*", "", after)
        page.write_text(before + found + "\n" + "\n".join(table) + "\n\n" + rest)

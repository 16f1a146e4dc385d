"""Coverage-guided fuzzing of pcequi's readers with atheris (libFuzzer), for a bounded time.

Inputs that reach a new branch of pcequi's readers or of trimesh's are kept and changed
further. The rules are those of ``fuzz_readers.py``, and so are the first inputs. atheris
(Apache 2.0) is optional; it is put beside the locked packages, not among them:

    python tools/fuzz_guided.py --install
    python tools/fuzz_guided.py --seconds 10
    python tools/fuzz_guided.py --only .ply --seconds 600
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-fuzz"
PACKAGE = "atheris==3.0.0"
#: What is measured. Not all of pcequi: what numba compiles must stay as it is.
MEASURED = [
    "pcequi.datasets", "pcequi.graph_chunks", "pcequi.graph_store", "pcequi.models.weights",
    "pcequi.report", "pcequi.tensor_files", "pcequi.training.checkpoints",
    "pcequi.training.files", "pcequi.training.run_settings", "trimesh.exchange",
]  # fmt: skip


def one_kind(kind: str, seconds: float, folder: Path) -> None:
    """Fuzz one kind of file; ends the process, with 0 where nothing was found."""
    sys.path.append(str(PLACE))
    import atheris
    import torch

    with atheris.instrument_imports(
        include=MEASURED, exclude=["pcequi.ops"], enable_loader_override=False
    ):
        import fuzz_examples  # noqa: F401
        import trimesh.exchange.load  # noqa: F401
    from fuzz_examples import NAMES, make_targets
    from fuzz_readers import attempt, limit_memory

    torch.set_num_threads(1)
    examples, read = make_targets(folder / "made" / "work")[kind]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(examples):
        (corpus / str(number)).write_bytes(content)
    limit_memory()
    options = [f"-max_total_time={seconds:.0f}", "-timeout=30", "-rss_limit_mb=6000"]
    options += ["-max_len=8192", "-print_final_stats=1", "-verbosity=0", "-seed=1"]
    options += [f"-artifact_prefix={folder}/"]

    def try_it(content: bytes) -> None:
        attempt(read, content, NAMES.get(kind, ("input", kind)))

    atheris.Setup([sys.argv[0], *options, str(corpus)], try_it)
    atheris.Fuzz()


def try_kind(kind: str, seconds: float, keep: Path) -> tuple[int, int, list[str]]:
    """Inputs that were tried, those that reached something new, and what failed."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, "--only", kind, "--seconds", str(seconds)]
        command += ["--inside", scratch]
        try:
            done = subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds + 300,
            )
        except subprocess.TimeoutExpired:
            return 0, 0, [f"{kind}: it did not end"]
        found = re.search(r"number_of_executed_units: *(\d+)", done.stdout + done.stderr)
        corpus = len(list(Path(scratch, "corpus").iterdir()))
        failures = []
        if done.returncode or not found:
            lines = [line for line in done.stdout.splitlines() if "Error" in line or "Hang" in line]
            lines += (done.stderr.strip().splitlines() or ["it said nothing"])[-1:]
            failures.append(f"{kind}: {lines[0][:300]}")
            for path in Path(scratch).glob("*-*"):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{path.name}{kind if kind[0] == '.' else '.' + kind}").write_bytes(
                    path.read_bytes()
                )
        return int(found[1]) if found else 0, corpus, failures


def install() -> None:
    """Put atheris beside the locked packages, where that is possible."""
    if (PLACE / "atheris").is_dir():
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*command, "--no-deps", "--target", PLACE, PACKAGE]).returncode:
        print(f"{PACKAGE} cannot be installed (it is optional)")


def main() -> int:
    """Fuzz all kinds of file, print a line for each, and return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="install atheris, and end")
    parser.add_argument("--seconds", type=float, default=10, help="for each kind of file")
    parser.add_argument("--only", help="one kind of file")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "fuzz", help="for inputs")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.install:
        install()
        return 0
    if options.inside:
        one_kind(options.only, options.seconds, options.inside)
    if not (PLACE / "atheris").is_dir():
        print("coverage-guided fuzzing was NOT run: atheris is missing (--install)")
        return 0
    from fuzz_examples import KINDS

    total, failures = 0, []
    for kind in [options.only] if options.only else KINDS:
        tried, kept, found = try_kind(kind, options.seconds, options.keep)
        print(f"{kind:26}{tried:8} inputs, {kept:5} kept for what they reach", flush=True)
        total, failures = total + tried, failures + found
    for failure in failures:
        print(f"FAILED {failure}; the input is in {options.keep}")
    print(f"{total} guided inputs, {options.seconds:.0f} s a kind: {len(failures)} failures")
    return len(failures)


if __name__ == "__main__":
    sys.exit(min(1, main()))

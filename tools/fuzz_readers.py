"""Feed broken files to everything in pcequi that reads one.

Each input is a valid file that was changed (or bytes of no kind at all); the
reader must return, or raise a PcequiError that names the file, in little time
and memory. Each kind of file is read in a process of its own, so that a library
that crashes is a failure like any other. The same --seed gives the same inputs:

    python tools/fuzz_readers.py --total 200000
    python tools/fuzz_readers.py --only .ply --first 812 --count 1 --keep broken

``fuzz_guided.py`` looks further where these inputs end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from fuzz_examples import KINDS, NAMES, make_targets

from pcequi.errors import PcequiError

#: Seconds after which an input counts as a hang, and memory that it may take.
SECONDS, MEMORY = 20, 4 << 30


class Hang(BaseException):
    """Raised by the clock; no reader may catch it."""


_WORDS = (
    b"0 -1 1 2 3 255 65535 2147483648 4294967295 99999999999999999999 1e308 1e-320 nan inf null"
)
_WORDS = _WORDS.split() + [b"true", b'"x"', b"[]", b"{}", b"[[[", b"\n", b" ", b"", b"\x00", b"../"]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to six changes of kinds that break parsers."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        size = len(data)
        at, other = (rng.randrange(size + 1) for _ in range(2))
        # Headers are at the beginning (and of archives at the end), and short.
        if rng.random() < 0.5:
            at = min(size, rng.choice([at % 120, max(0, size - 1 - at % 120)]))
        kind = rng.randrange(10)
        if kind == 0 and at < size:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < size:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2D, 0x39])
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.choice([1, 4, 40])]
        elif kind == 4:
            data[at:at] = data[other : other + rng.choice([1, 8, 100])]
        elif kind == 5:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
        elif kind == 6:
            form, most = rng.choice([("<I", 1 << 32), ("<Q", 1 << 64), (">I", 1 << 32)])
            number = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1])
            data[at : at + struct.calcsize(form)] = struct.pack(form, number % most)
        else:
            # A word, or a number, replaced: what a text or a header announces.
            start = at
            while start < len(data) and not chr(data[start]).isalnum():
                start += 1
            end = start
            while end < len(data) and chr(data[end]).isalnum():
                end += 1
            data[start:end] = rng.choice(_WORDS)
    return bytes(data)


def make_input(examples: list[bytes], number: int, seed: int) -> bytes:
    """The input of a number: the example itself first, then changed ones and noise."""
    if number < len(examples):
        return examples[number]
    rng = random.Random(f"{seed} {number}")
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    return mutate(rng.choice(examples), rng)


@contextlib.contextmanager
def limits(seconds: int = SECONDS):
    """A clock that no reader can catch; of processor time, so that a busy machine is no hang."""

    def stop(*_):
        raise Hang(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(read: Callable[[bytes], object], content: bytes, names: tuple[str, ...] = ()) -> str:
    """``read`` or ``refused``; anything else is raised.

    Raises:
        AssertionError: The error does not name the file.
        Exception, Hang: What the reader should not have let out.
    """
    with limits(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            read(content)
            return "read"
        except PcequiError as error:
            if names:
                assert any(name in str(error) for name in names), f"no file is named: {error}"
            assert len(str(error)) < 2000, "an endless message"
            return "refused"


class Tally:
    """Counts that a child shares with its parent; they outlive its death."""

    NAMES = ("number", "read", "refused", "failed")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES))

    def __getitem__(self, name: str) -> int:
        return struct.unpack_from("<q", self._memory, 8 * self.NAMES.index(name))[0]

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * self.NAMES.index(name), value)


def describe(kind: str, error: BaseException) -> tuple[str, str]:
    """Where a failure is, which is the same for those of one cause, and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/pcequi/" in frame.filename] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return f"{kind}: {type(error).__name__} at {place}", str(error)[:120]


def work(kind: str, folder: Path, first: int, stop: int, options, tally: Tally) -> list[str]:
    """Try inputs of one kind; a line for each place that fails, with its first input."""
    examples, read = make_targets(folder)[kind]
    failures: dict[str, str] = {}
    begun = time.monotonic()
    for number in range(first, stop):
        if time.monotonic() - begun > options.seconds:
            break
        tally["number"] = number
        content = make_input(examples, number, options.seed)
        try:
            outcome = attempt(read, content, NAMES.get(kind, ("input", kind)))
        except (Exception, Hang) as error:
            outcome = "failed"
            place, message = describe(kind, error)
            failures.setdefault(place, f"{place}: {message!r} (input {number})")
        if outcome == "failed" and options.keep:
            keep(options.keep, kind, number, content)
        tally[outcome] += 1
    return list(failures.values())


def keep(folder: Path, kind: str, number: int, content: bytes) -> None:
    """Write an input that failed into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    name = kind if kind.startswith(".") else f".{kind}"
    (folder / f"{number}{name}").write_bytes(content)


def try_kind(kind: str, scratch: Path, options) -> tuple[Tally, list[str]]:
    """Try all inputs of one kind in child processes: a new one where one has died."""
    tally, failures, log = Tally(), [], scratch / "log"
    first, stop = options.first, options.first + options.count
    while first < stop:
        log.write_text("")
        tally["number"] = -1  # nothing begun
        # What has started threads must not be forked, so the targets are made in the child.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                torch.set_num_threads(1)
                folder = scratch / f"{kind}-{first}" / "work"
                limit_memory()
                log.write_text("\n".join(work(kind, folder, first, stop, options, tally)))
                code = 0
            finally:
                os._exit(code)
        status = wait(child, tally)
        failures += log.read_text().splitlines()
        if status == 0:
            break
        # The library that reads took the whole process with it, or never came back.
        number = max(first, tally["number"])
        how = signal.Signals(-status).name if status < 0 else f"exit {status}"
        failures.append(f"{kind}: the process ended with {how} (input {number})")
        tally["failed"] += 1
        first = number + 1
    return tally, failures


def limit_memory() -> None:
    """Let this process have ``MEMORY`` more, and leave no core file."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def wait(child: int, tally: Tally) -> int:
    """How a child ended; it is killed where one input takes far too long."""
    number, since = -1, time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if tally["number"] != number:
            number, since = tally["number"], time.monotonic()
        # The clock in the child comes first, unless a library does not let it, or sleeps.
        if time.monotonic() - since > 15 * SECONDS and tally["number"] >= 0:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def main() -> int:
    """Run, print a summary, and return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="inputs of each kind of file")
    parser.add_argument("--total", type=int, help="inputs of all kinds, instead of --count")
    parser.add_argument("--seconds", type=float, default=1e9, help="most for each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", help="one kind of file")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    options = parser.parse_args()
    start, failures = time.monotonic(), []
    counts = dict.fromkeys(Tally.NAMES[1:], 0)
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [options.only] if options.only else list(KINDS)
        if options.total:
            options.count = math.ceil(options.total / len(chosen))
        print(f"{'kind of file':26}{'inputs':>8}{'read':>8}{'refused':>9}{'failed':>8}{'s':>7}")
        for kind in chosen:
            begun = time.monotonic()
            tally, found = try_kind(kind, Path(scratch), options)
            failures += found
            for name in counts:
                counts[name] += tally[name]
            parts = [tally[name] for name in counts]
            print(
                f"{kind:26}{sum(parts):8}{parts[0]:8}{parts[1]:9}{parts[2]:8}"
                f"{time.monotonic() - begun:7.0f}",
                flush=True,
            )
    for title in failures:
        print(f"FAILED {title}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{sum(counts.values())} inputs of {len(chosen)} kinds of file, seed {options.seed}: "
        f"{counts['read']} read, {counts['refused']} refused, {counts['failed']} failed; "
        f"{time.monotonic() - start:.0f} s, at most {peak:.0f} MB"
    )
    return len(failures)


if __name__ == "__main__":
    sys.exit(min(1, main()))

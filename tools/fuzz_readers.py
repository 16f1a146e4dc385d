"""Feed broken files to everything in pcequi that reads one.

Each input is a valid file that was changed (or bytes of no kind at all); the
reader must return, or raise a PcequiError that names the file, in little time
and memory. The same --seed gives the same inputs. Needs only pcequi itself:

    python tools/fuzz_readers.py --count 20000
    python tools/fuzz_readers.py --only .ply --first 812 --count 1 --keep broken
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from fuzz_examples import NAMES, make_targets

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
    """A clock that no reader can catch."""

    def stop(*_):
        raise Hang(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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


def main() -> int:
    """Run, print a summary, and return the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="inputs of each kind of file")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", help="one kind of file")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    failures: dict[str, tuple[str, int]] = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        targets = make_targets(Path(scratch) / "work")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        chosen = [options.only] if options.only else list(targets)
        # In turns, so that a limit of time stops all kinds at about the same number.
        for number in range(options.first, options.first + options.count):
            for kind in chosen:
                if time.monotonic() - start > options.seconds:
                    break
                examples, read = targets[kind]
                content = make_input(examples, number, options.seed)
                try:
                    outcome = attempt(read, content, NAMES.get(kind, ("input", kind)))
                except (Exception, Hang) as error:
                    outcome = "failed"
                    frame = traceback.extract_tb(error.__traceback__)[-1]
                    place = f"{Path(frame.filename).name}:{frame.lineno}"
                    title = f"{kind}: {type(error).__name__} at {place}: {str(error)[:120]}"
                    failures.setdefault(title, (kind, number))
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        name = kind if kind.startswith(".") else f".{kind}"
                        (options.keep / f"{number}{name}").write_bytes(content)
                counts[outcome] += 1
    for title, (_, number) in failures.items():
        print(f"FAILED {title} (input {number})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{sum(counts.values())} inputs of {len(chosen)} kinds of file, seed {options.seed}: "
        f"{counts['read']} read, {counts['refused']} refused, {counts['failed']} failed; "
        f"{time.monotonic() - start:.0f} s, at most {peak:.0f} MB"
    )
    return len(failures)


if __name__ == "__main__":
    sys.exit(min(1, main()))

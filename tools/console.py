"""Run the commands of the set-up: one line on the screen for each, the rest in a log."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"

# Long enough for a large download over a slow line, short enough to notice a hang.
TIME_LIMIT = 30 * 60
LINES_SHOWN_ON_FAILURE = 15

START = time.monotonic()


class CommandError(Exception):
    """A command failed; the message holds the end of what it printed."""


def say(text: str) -> None:
    """Print one line, led by the seconds since the set-up began."""
    print(f"[{time.monotonic() - START:5.0f} s] {text}", flush=True)


def step(text: str, action: Callable[[], object]) -> None:
    """Announce ``action``, do it, and say how long it took."""
    say(f"{text} ...")
    began = time.monotonic()
    action()
    say(f"{text}: done in {time.monotonic() - began:.0f} s")


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run ``command`` without a terminal, log what it prints, and return that."""
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{arguments[0]} did not end within {TIME_LIMIT} s") from error
    except OSError as error:
        raise CommandError(f"{arguments[0]} cannot be run: {error.strerror}") from error
    write_log(f"$ {' '.join(arguments)}\n{done.stdout}\n")
    if done.returncode != 0:
        end = "\n".join(done.stdout.strip().splitlines()[-LINES_SHOWN_ON_FAILURE:])
        raise CommandError(f"{' '.join(arguments[:6])} failed ({done.returncode}):\n{end}")
    return done.stdout


def write_log(text: str) -> None:
    """Append to the log; before the virtual environment exists there is none."""
    if VENV.is_dir():
        with LOG.open("a", encoding="utf-8") as log:
            log.write(text)


def python(code: str) -> str:
    """Run a line of Python inside the virtual environment and return what it prints."""
    return run(VENV_PYTHON, "-c", code).strip()


def pip(*arguments: str | Path, env: dict[str, str] | None = None) -> None:
    """Run the virtual environment's pip."""
    run(VENV_PYTHON, "-m", "pip", *arguments, "--disable-pip-version-check", env=env)


def warn(title: str, error: Exception, remedy: str) -> None:
    """Report a failure that the set-up survives."""
    say(f"WARNING: {title}")
    for line in (*str(error).splitlines(), remedy):
        print(f"          {line}", file=sys.stderr, flush=True)

"""The ``pcequi`` command; one file a subcommand."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

import typer

from pcequi import __version__
from pcequi.cli.bench import bench
from pcequi.cli.cache import cache
from pcequi.cli.check import check
from pcequi.cli.common import print_json
from pcequi.cli.demo import demo
from pcequi.cli.evaluate import evaluate
from pcequi.cli.precompute import precompute
from pcequi.cli.predict import predict
from pcequi.cli.report import report
from pcequi.cli.train import train
from pcequi.cli.view import view
from pcequi.errors import ArgumentError, FileError, PcequiError
from pcequi.files import FULL
from pcequi.notices import OF_PYG, compiling_is_said

__all__ = ["app", "main"]

app = typer.Typer(
    help="Classify 3D point clouds in any orientation, with poses sampled in feature space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# What is kept of work that somebody stops, by command.
_AFTER = {
    "train": "the same command with --resume goes on after the last whole epoch",
    "precompute": "the same command goes on where it stopped",
}


class Interrupted(PcequiError):
    """Somebody pressed Ctrl-C."""


def _guarded(command: Callable) -> Callable:
    """A command whose words are sentences, also where it warns, is stopped or fills the disk."""

    @functools.wraps(command)
    def run(*args, **options):
        try:
            _check_folder()
            with warnings.catch_warnings(), compiling_is_said():
                warnings.showwarning = _warn
                for notice in OF_PYG:
                    warnings.filterwarnings("ignore", re.escape(notice))
                return command(*args, **options)
        except KeyboardInterrupt:
            after = _AFTER.get(command.__name__)
            if after and options.get("overwrite"):
                after = after.replace("--resume", "--resume instead of --overwrite")
            raise Interrupted(f"interrupted; {after}" if after else "interrupted") from None
        except OSError as error:
            if error.errno in FULL:
                raise FileError(
                    f"{error.filename or 'the output'} cannot be written whole ({error.strerror}); "
                    "free space, or write to another place"
                ) from error
            if isinstance(error, (PcequiError, BrokenPipeError)) or error.filename is None:
                raise
            raise FileError(
                f"{error.filename} cannot be used ({error.strerror}); check the path and its "
                "permissions"
            ) from error

    return run


def _check_folder() -> None:
    """Whether the working directory is there, without which torch ends the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise FileError("the working directory is gone; change to one that is there") from error


def _check_arguments(arguments: Sequence[str]) -> None:
    """An empty argument, as of a variable that is not set: no option takes one, and as a path it
    would be the working directory."""
    named = True
    for before, argument in zip(["pcequi", *arguments], arguments):
        if argument == "--":  # options end here
            named = False
        if argument == "" or (named and re.fullmatch("--[^=]+=", argument)):
            name = argument[:-1] or before
            raise ArgumentError(
                f"what follows `{name}` is empty (''); give a path or a value, or leave it out"
            )


def _warn(message: Warning | str, *where: object, **options: object) -> None:
    """Say a warning without the line of code that gave it."""
    with suppress(OSError, ValueError):  # as Python's own: it must not end the command
        typer.echo(f"Warning: {message}", err=True)


for command in (demo, train, evaluate, predict, report, precompute, cache, view, check, bench):
    app.command()(_guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pcequi {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, with 1 after an error, with 2 where the command line
    cannot be read, with 130 after Ctrl-C.

    Args:
        arguments: by default those of the process.

    **Equivariance:** does not apply.
    """
    given = None if arguments is None else list(arguments)
    arguments = sys.argv[1:] if given is None else given
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        _check_arguments(arguments)
        app(args=given, prog_name="pcequi")  # on Windows, * is expanded for None alone
    except PcequiError as error:
        # Of several launched processes, each says what it met, and the first one in JSON.
        rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"
        if "--json" in arguments and rank == "0":
            with suppress(OSError):  # the output may be what is full
                print_json({"error": {"type": type(error).__name__, "message": str(error)}})
        typer.echo(f"Error: {error}" if rank == "0" else f"Process {rank}: {error}", err=True)
        _drop_output()
        raise SystemExit(130 if isinstance(error, Interrupted) else 1) from None


def _drop_output() -> None:
    """What cannot be written is not tried again at the end, where Python would complain."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""The ``pcequi`` command; one file a subcommand."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from pcequi import __version__
from pcequi.cli.bench import bench
from pcequi.cli.check import check
from pcequi.cli.common import print_json
from pcequi.cli.demo import demo
from pcequi.cli.evaluate import evaluate
from pcequi.cli.precompute import precompute
from pcequi.cli.predict import predict
from pcequi.cli.report import report
from pcequi.cli.train import train
from pcequi.cli.view import view
from pcequi.errors import PcequiError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Classify 3D point clouds in any orientation, with poses sampled in feature space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, train, evaluate, predict, report, precompute, view, check, bench):
    app.command()(command)


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
    """Run the command; exits with 0, with 1 after an error, with 2 after a wrong option.

    Args:
        arguments: by default those of the process.

    **Equivariance:** does not apply.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=arguments, prog_name="pcequi")
    except PcequiError as error:
        # Of several launched processes, each says what it met, and the first one in JSON.
        rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"
        if "--json" in arguments and rank == "0":
            print_json({"error": {"type": type(error).__name__, "message": str(error)}})
        typer.echo(f"Error: {error}" if rank == "0" else f"Process {rank}: {error}", err=True)
        raise SystemExit(1) from None

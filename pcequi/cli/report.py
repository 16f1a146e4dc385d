"""``pcequi report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import Json, print_json, show


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    json: Json = False,
) -> None:
    """Write the page of a run, report.html, again.

    `pcequi train` writes it at its end. It is one file that opens anywhere,
    without a network: settings, curves, accuracy by protocol and class,
    confusion, the worst mistakes as shapes to turn, and what it cost.
    """
    from pcequi.report import write_report

    path = write_report(run)
    if json:
        print_json({"run": str(run), "report": str(path)})
    else:
        show(f"Report: {path}")

"""Data and template to one HTML file."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from pcequi.errors import FileError
from pcequi.files import expanded
from pcequi.report import tables
from pcequi.report.data import report_data
from pcequi.shares import counted, percent
from pcequi.training.files import write_text

__all__ = ["REPORT", "report_page", "write_report"]

#: Name of the file in the folder of a run.
REPORT = "report.html"


def report_page(data: dict) -> str:
    """The page of a run.

    Styles, script and data are part of it, so that it opens from anywhere,
    without a network, and asks nobody for anything.

    Args:
        data: what ``report_data`` returns.

    Returns:
        HTML.

    **Equivariance:** does not apply.
    """
    first, accuracy = next(iter(data["accuracy"].items()))
    tested = data["shapes"]["test"]
    share = percent(accuracy, tested)
    if tested < 1000:  # of few the number says more
        share += f" ({counted(accuracy, tested)})"
    mistakes = sum(not item["right"] for item in data["hardest"])
    clouds = [item["points"] for item in data["hardest"]]
    return Template(_part("template.html")).substitute(
        title=escape(f"{data['data']}: {share} under {first}"),
        run=escape(data["run"]),
        summary=escape(
            f"{data['shapes']['train']} training shapes, {data['shapes']['test']} test shapes, "
            f"{len(data['classes'])} classes. All figures are of the last epoch; none was picked."
        ),
        style=_part("style.css"),
        script=_part("clouds.js"),
        # A class called "</script>" must not end the data.
        clouds=json.dumps(clouds).replace("<", "\\u003c"),
        accuracy=tables.accuracy_table(data) + tables.agreement_lines(data),
        curves=tables.curves(data),
        classes=tables.class_table(data),
        confusion=tables.confusion_tables(data),
        hardest_title=escape(
            f"Worst mistakes under {data['hardest_protocol']}"
            if mistakes
            else f"No mistakes under {data['hardest_protocol']}: the least sure answers"
        ),
        hardest=tables.hardest_grid(data) + tables.predictions_line(data),
        cost=tables.cost_table(data),
        settings=tables.settings_table(data),
    )


def write_report(run: str | Path) -> Path:
    """Write ``report.html`` into the folder of a finished run, from its other files.

    Args:
        run: the folder.

    Returns:
        The path of the page.

    Raises:
        FileError: the folder is none of a finished run, or a file is damaged.

    **Equivariance:** does not apply.
    """
    folder = expanded(run)
    data = report_data(folder)
    try:
        page = report_page(data)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FileError(
            f"report.json, metrics.jsonl or hardest.json in {folder} is damaged "
            f"({type(error).__name__}: {str(error)[:200]}); end the run again with "
            "`pcequi train --resume`"
        ) from error
    write_text(folder / REPORT, page)
    return folder / REPORT


def _part(name: str) -> str:
    return (files("pcequi.report") / name).read_text(encoding="utf-8")

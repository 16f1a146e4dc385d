"""What the commands share: options, output, errors."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pcequi.errors import ArgumentError
from pcequi.files import check_reach, expanded

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr.")
]
Seed = Annotated[int, typer.Option(min=0, help="Decides all random draws.")]
RunSeed = Annotated[
    int,
    typer.Option(
        min=0, help="Of weights, batches, rotations and versions; the clouds have --data-seed."
    ),
]
DataSeed = Annotated[
    int,
    typer.Option(
        min=0, help="Of the split and the samples of --data folder, and of the shapes of shapes."
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of torch and numba.", show_default="one a core")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that precompute graphs.", show_default="one a core"),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Timeout = Annotated[
    float,
    typer.Option(
        help="Of several launched processes: minutes after which one that waits for the others "
        "gives up."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of precomputed graphs.", show_default="$PCEQUI_CACHE or ~/.cache/pcequi/graphs"
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="shapes (needs no download), modelnet10, modelnet40, scanobjectnn (and "
        "scanobjectnn-obj-bg and so on), shapenetpart, or folder: your own files in --root, a "
        "sub-folder a class."
    ),
]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the data set.", show_default="datasets/")
]
Source = Annotated[
    Path | None,
    typer.Option(
        help="Data set from here: packed file or OFF files of ModelNet, unpacked folder of others."
    ),
]
TestShare = Annotated[
    float,
    typer.Option(
        help="Of --data folder: share of each class to test on, where no folders train and test "
        "say it."
    ),
]
TestList = Annotated[
    Path | None,
    typer.Option(
        help="Of --data folder: text file of the files to test on, as CLASS/FILE, a line each."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Clouds of each class at most, to try out.", show_default="all"),
]
NumPoints = Annotated[int, typer.Option(min=1, help="Points of a cloud.")]
Preset = Annotated[
    str,
    typer.Option(
        help="Network: default; large (the most accurate, several times the time); small "
        "(quick); or pairs (without frames: makes other mistakes)."
    ),
]
Resamplings = Annotated[
    int, typer.Option(min=0, help="Stretched, thinned, noisy versions of the training clouds.")
]
ResampleAs = Annotated[
    str,
    typer.Option(
        help="What these versions are like: shape (thinned and stretched), or scan (a side hidden, "
        "uneven, noisy as well); with --resamplings."
    ),
]


@contextmanager
def terminable():
    """Inside, being terminated is what Ctrl-C is: `timeout` and batch systems end commands so."""
    mine = threading.current_thread() is threading.main_thread()  # others may not ask
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if mine else None
    try:
        yield
    finally:
        if mine:  # None: set by other than Python
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def check_split(test_share: float, test_list: Path | None) -> None:
    """Whether what the user typed says one split, not two."""
    if test_list is not None and test_share != 0.2:
        raise ArgumentError(
            f"`test_share` (={test_share}) does not apply where `test_list` (={str(test_list)!r}) "
            "names the files to test on; drop one of them"
        )


def check_place(option: str, file: Path | None) -> None:
    """Whether a file can be written where the user wants it, before hours are spent on it."""
    if file is None:
        return
    place = expanded(file).absolute()
    check_reach(place, f"--{option}")
    # A device or a pipe would be replaced by a file.
    special = os.path.exists(place) and not os.path.isfile(place)
    if not os.path.isdir(place.parent) or special or str(file) == "-":
        raise ArgumentError(
            f"`--{option}` (={str(file)!r}) must be a file in a folder that is there; make the "
            "folder first, or give another file"
        )


def text(path: Path | None) -> str | None:
    """A path as settings keep it: whole, as later commands may be given elsewhere."""
    return None if path is None else str(expanded(path).absolute())


def print_json(value: Any) -> None:
    """The one JSON object of ``--json``."""
    typer.echo(json.dumps(value))


def table(title: str, *columns: str):
    """A rich table whose columns after the first are numbers."""
    from rich.table import Table
    from rich.text import Text

    result = Table(title=Text(title), title_justify="left")  # a name may look like markup
    for number, column in enumerate(columns):
        result.add_column(column, justify="right" if number else "left", overflow="fold")
    return result


def show(*parts: Any) -> None:
    """Print for people, on stdout; where it is no terminal, nothing is cut off or folded."""
    from rich.console import Console

    console = Console(emoji=False)
    if not (sys.stdout and sys.stdout.isatty()):  # rows are whole, to be searched
        console = Console(width=100_000, emoji=False)
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)

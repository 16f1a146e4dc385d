"""``pcequi predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import (
    Device,
    Json,
    Seed,
    Threads,
    check_place,
    print_json,
    show,
    table,
    terminable,
)
from pcequi.cli.journal import Journal, digest
from pcequi.errors import ArgumentError, FileError, PcequiError
from pcequi.files import expanded, may_read, out_of_reach

# Endings of the files of a run that stand for it.
_KEPT = (".safetensors", ".json")

# Bytes of a list of files.
_LONGEST = 2**28

# Files that are worth starting processes for, and the most of these, each of half a gigabyte.
MANY, MOST = 400, 16


def predict(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Meshes or point clouds, and folders of such, whose own folders are searched "
            "too. First of them may be the folder of a run, or its model.safetensors, whose "
            "network is then used; another folder may stand first where it stands alone, or with "
            "--network or --scans.",
            metavar="[RUN] FILES...",
            readable=False,  # one that may not be read must not stop the others
        ),
    ] = None,
    files_from: Annotated[
        Path | None,
        typer.Option(
            help="Text file that names more files, a line each; - for standard input. For more "
            "than a command line holds."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained network of pcequi, used where no run is given (repeatable: the mean of "
            "their probabilities).",
            show_default="modelnet40-large, modelnet40-large-scan and modelnet40-pairs",
        ),
    ] = None,
    scans: Annotated[
        bool,
        typer.Option(
            "--scans",
            help="Ask only the two networks that learned from noisy, uneven, partly hidden "
            "clouds: a little better on such, a little worse on whole ones, and faster.",
        ),
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes to name.")] = 3,
    num_points: Annotated[
        int | None,
        typer.Option(min=1, help="Points of a cloud.", show_default="as in training"),
    ] = None,
    drop_outliers: Annotated[
        bool,
        typer.Option(
            "--drop-outliers", help="Leave out points that lie alone, as stray points of a scan do."
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write a table for spreadsheets into this file, a row a file: its name, class and "
            "probability, those of the next classes (--top), warning, error; - prints it. "
            "Answers are kept beside it until it is whole: should the command be ended, the same "
            "one goes on.",
            show_default="not written",
        ),
    ] = None,
    seed: Seed = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that share the files, on a CPU.",
            show_default=f"one a core from {MANY} files on, at most {MOST}; else 1",
        ),
    ] = None,
    threads: Threads = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify files in any orientation.

    Without a run, three networks that come with pcequi name one of the 40 classes of
    ModelNet40 together.

    A file that cannot be used is reported, on standard error and with --json as
    its `error`, the others are still classified, and the command exits with 1 at
    the end; with 0 if all were classified. A cloud of too few points gets a
    `warning` beside its answer. Stopped by Ctrl-C or terminated, it prints what it has;
    with --csv FILE, the same command goes on.
    """
    from pcequi.networks import FOR_SCANS, TOGETHER, load_network, network_names
    from pcequi.progress import progress_bar
    from pcequi.training.predict import predict_each
    from pcequi.training.predictions import csv_text, prediction_table, write_csv
    from pcequi.training.threads import choose_device, set_threads

    threads = set_threads(threads)
    printed = str(csv) == "-"
    check_place("csv", None if printed else csv)
    if printed and json:
        raise ArgumentError("`--csv` (='-') and `--json` both print; give one, or --csv FILE")
    files = files or []
    alone = len(files) == 1 and files_from is None
    run = str(files.pop(0)) if files and _is_run(files[0], network, scans or alone) else None
    if run is not None:
        _check_run(run)
    _check_order(files, run)
    place = None if csv is None or printed else os.path.abspath(expanded(csv))
    found = [(file, given) for given in files for file in _within(given)]
    # The table may lie in a folder that is given, and may be of the time before.
    files = [file for file, given in found if file is given or os.path.abspath(file) != place]
    files += _named(files_from) if files_from else []
    if not files and files_from is not None:
        raise ArgumentError(
            f"`files_from` (={str(files_from)!r}) names no file: the list is empty; check what "
            "was to fill it"
        )
    if not files and run is None:
        raise typer.BadParameter("name at least one, or give --files-from LIST", param_hint="FILES")
    if not files:
        raise ArgumentError(
            f"`files` (=[]) must be at least one beside the run {run!r}; give files, or a folder "
            "of files"
        )
    if scans and (run is not None or network):
        raise ArgumentError(
            f"`scans` (=True) names networks, and so does {run or f'--network {network[0]}'}; give "
            "one of them"
        )
    if run is not None and network:
        raise ArgumentError(
            f"`network` (={network}) is asked where no run is given, and {run!r} is one; give "
            "either, or join them in Python (`predict_files` takes several networks)"
        )
    names = network or list(FOR_SCANS if scans else TOGETHER)
    for name in names:
        if name not in network_names():
            raise ArgumentError(
                f"`network` (={name!r}) must be one of {', '.join(network_names())}"
            )
    checkpoint = [load_network(name) for name in names] if run is None else [_network_of(run)]
    options = {"top": top, "num_points": num_points, "seed": seed, "drop_outliers": drop_outliers}
    journal = None
    if csv is not None and not printed:
        journal = Journal(expanded(csv), {"networks": digest(checkpoint)} | options)
    options["device"] = choose_device(device)
    known = [journal and journal.answer_to(file) for file in files]
    rest = [file for file, answer in zip(files, known, strict=True) if answer is None]
    if len(rest) < len(files):
        typer.echo(
            f"{len(files) - len(rest)} of {len(files)} files were classified before the same "
            f"command was ended ({journal.path}); the rest follows",
            err=True,
        )
    if workers is None:
        several = len(rest) >= MANY and options["device"].type == "cpu"
        workers = min(threads, MOST) if several else 1
    options["workers"] = workers
    results, interrupted, fault = [], False, None
    try:
        with terminable(), progress_bar(f"classifying {len(files)} files") as bar:
            for result in _in_order(
                files, known, predict_each(checkpoint, rest, **options), journal
            ):
                results.append(result)
                bar(len(results), len(files))
    except KeyboardInterrupt:
        interrupted = len(results) < len(files)
    except PcequiError as error:  # of no file: what is finished is printed
        if not results:
            raise
        fault = error
    failed = sum("error" in result for result in results)
    classified = len(results) - failed
    if csv is not None and not printed:
        try:
            write_csv(expanded(csv), *prediction_table(results, top))
        except FileError as error:  # what follows is printed all the same
            fault = fault or error
        if not interrupted and fault is None:
            journal.remove()
    if json:
        one = names[0] if len(names) == 1 else names
        source = {"network": one} if run is None else {"run": run}
        counts = {"classified": classified, "failed": failed, "interrupted": interrupted}
        told = {"error": {"type": type(fault).__name__, "message": str(fault)}} if fault else {}
        print_json(source | {"files": results} | counts | told)
    elif printed:
        _print_csv(csv_text(*prediction_table(results, top)))
    else:
        show_predictions(results)
        if len(results) > 1:
            show(f"{classified} files classified, {failed} cannot be used")
    for result in results:
        for kind in ("error", "warning"):
            if kind in result:
                typer.echo(f"{kind.title()}: {result['file']}: {result[kind]}", err=True)
    on = "; the same command goes on there" if journal and journal.goes_on else ""
    if fault:
        typer.echo(f"Error: after {len(results)} of {len(files)} files: {fault}{on}", err=True)
    if interrupted:
        typer.echo(f"Error: interrupted after {len(results)} of {len(files)} files{on}", err=True)
        raise typer.Exit(130)
    if failed or fault:
        raise typer.Exit(1)


def _in_order(
    files: list[Path], known: list[dict | None], answers: Iterator[dict], journal: Journal | None
) -> Iterator[dict]:
    """Answers that are known, and the next one where none is."""
    for file, answer in zip(files, known, strict=True):
        if answer is None:
            answer = next(answers, None)
            if answer is None:
                return
            if journal:
                journal.add(file, answer)
        yield answer


def _named(place: Path) -> list[Path]:
    """The files that the lines of a text name."""
    try:
        text = _standard_input() if str(place) == "-" else _text_of(expanded(place))
        if b"\0" in text or len(text) > _LONGEST:
            raise OSError("it is no text" if b"\0" in text else "it has more than 256 MiB")
    except OSError as error:
        raise FileError(
            f"`files_from` (={str(place)!r}) cannot be read ({error}); give a text file with a "
            "path a line, or - for standard input"
        ) from error
    # As the system gives names, which may be in any encoding.
    lines = text.decode("utf-8-sig", "surrogateescape").splitlines()
    return [Path(line.strip()) for line in lines if line.strip()]


def _text_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST + 1)


def _standard_input() -> bytes:
    stream = sys.stdin
    if stream is None:
        raise OSError("standard input is closed")
    if hasattr(stream, "buffer"):
        return stream.buffer.read(_LONGEST + 1)
    return stream.read(_LONGEST + 1).encode()


def _print_csv(text: str) -> None:
    """Print a table with the names of files as they are: `typer.echo` would change some."""
    out = sys.stdout
    if out is None:
        return
    try:
        out.write(text)
    except UnicodeEncodeError:  # a list in UTF-8 may name what the locale cannot print
        out.write(text.encode(out.encoding, "backslashreplace").decode(out.encoding))
    out.flush()


def _is_run(path: Path, network: list[str] | None, of_files: bool) -> bool:
    """Checkpoints, their folders, names of nothing that have no ending, as no format has, and,
    where no network is named, names of nothing that end as no format does and any folder, but
    one of files that ``of_files`` allows: no other network may answer in the place of a run whose
    name has a slip or a dot."""
    from pcequi.datasets.folder_files import usable_files
    from pcequi.datasets.readers import ENDINGS
    from pcequi.training.files import holds_run

    path = expanded(path)
    if os.path.isdir(path):
        return holds_run(path) or not (network or of_files and usable_files(path))
    if os.path.exists(path):
        return path.suffix in _KEPT
    return path.suffix in ("", *_KEPT) or not (network or path.suffix.lower() in ENDINGS)


def _check_run(run: str) -> None:
    from pcequi.networks import network_names

    if os.path.exists(expanded(run)) or out_of_reach(expanded(run)):  # told when it is read
        return
    if run in network_names():
        raise ArgumentError(f"`files` (={run!r} first) is a trained network: --network {run}")
    raise FileError(
        f"`files` (={run!r} first) ends as no file that can be read does, and there is no such "
        "run; check the path of the run, or of the file"
    )


def _check_order(files: list[Path], run: str | None) -> None:
    """A run behind files is not asked, and another would answer."""
    from pcequi.training.files import holds_run

    for file in files:
        path = expanded(file)
        if path.suffix == ".safetensors" or os.path.isdir(path) and holds_run(path):
            remedy = "give it first" if run is None else f"and {run!r} is given; leave one out"
            raise ArgumentError(f"`files` (={str(file)!r} among them) is a run: {remedy}")


def _within(given: Path) -> list[Path]:
    """Of a folder all files that can be read; a file as it is, and a folder without such, whose
    error does not stop the others."""
    from pcequi.datasets.folder_files import usable_files
    from pcequi.datasets.passed_over import passed_over_within

    folder = expanded(given)
    if not (os.path.isdir(folder) and may_read(folder)):
        return [given]
    found = usable_files(folder)
    if not found:
        return [given]
    places = {place for file in found for place in file.relative_to(folder).parents}
    runs = [str(folder / p) for p in places if os.path.exists(folder / p / "model.safetensors")]
    if runs:
        raise ArgumentError(
            f"`files` (={str(given)!r} among them) is a folder with a run in it, {min(runs)!r}, "
            "whose tables are no clouds; give the folder of the run first, or other folders"
        )
    if line := passed_over_within(folder, found):
        typer.echo(f"{given}: {line}", err=True)
    return found


def _network_of(run: str):
    """The network of a run; of a folder without one, what else could be meant."""
    from pcequi.training.checkpoints import load_checkpoint

    try:
        return load_checkpoint(run)
    except FileError as error:
        if not os.path.isdir(expanded(run)):
            raise
        raise FileError(
            f"{error}; to classify the files of a folder and others, give a run first, or name the "
            "network (--network)"
        ) from error


def show_predictions(results: list[dict]) -> None:
    """A row for each file, for people."""
    rows = table("Predictions", "file", "classes and their probabilities")
    rows.columns[1].justify = "left"
    for result in results:
        named = [f"{p['class']} {p['probability']:.0%}" for p in result.get("predictions", [])]
        rows.add_row(result["file"], ", ".join(named) or "cannot be used")
    show(rows)

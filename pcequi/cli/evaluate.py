"""``pcequi evaluate``."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import (
    Cache,
    Device,
    Json,
    Threads,
    Workers,
    check_place,
    print_json,
    show,
    table,
    text,
)
from pcequi.errors import ArgumentError, FileError
from pcequi.files import expanded
from pcequi.shares import counted, percent


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run made by `pcequi train`, or the network within it; with --files "
            "also a network that comes with pcequi, by its name."
        ),
    ],
    files: Annotated[
        Path | None,
        typer.Option(
            help="Test on all files of this folder, each in a sub-folder named after its class; "
            "some of the classes of the network, or all.",
            show_default="test clouds of the run",
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="z/z, z/SO3 or SO3/SO3 (repeatable); the second half turns the test clouds.",
            show_default="that of the run",
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare ways of running: dense, online, precomputed (repeatable), or all.",
            show_default="precomputed, from the cache",
        ),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(
            help="Representatives of each level but the last (repeatable).",
            show_default="those of the network",
        ),
    ] = None,
    together: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="Another run on the same classes, or a network that comes with pcequi by its name "
            "(repeatable): the mean of the probabilities of all, and what each has alone.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Clouds of each class at most, to try out.", show_default="that of the run"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the rotations.", show_default="that of the run")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set.", show_default="that of the run"),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Data set from here: packed file or OFF files of ModelNet, unpacked folder of "
            "others.",
            show_default="that of the run",
        ),
    ] = None,
    test_list: Annotated[
        Path | None,
        typer.Option(
            help="Of --data folder: text file of the files to test on.",
            show_default="that of the run",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write what each test cloud was called into this file, for spreadsheets: file, "
            "true class, predicted class, probability, protocol.",
            show_default="not written; of a run it is predictions.csv in its folder",
        ),
    ] = None,
    cache: Cache = None,
    workers: Workers = None,
    threads: Threads = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure a trained network, or compare the ways of running it.

    Without --mode and --budget: accuracy on the test clouds, or on new files in --files,
    under each protocol, of several networks together where --with names more. With --mode
    or --budget: a table of accuracy, the largest difference of a logit from
    dense (where dense is among the modes), and the time a cloud takes from points to
    logits; nothing is cached, so --cache and --workers do not go with these, nor --csv.
    Dense is slow: use --limit.
    """
    from pcequi.networks import find_network
    from pcequi.training.evaluate import MODES, check_modes, compare_modes, evaluate_together
    from pcequi.training.labelled import load_labelled
    from pcequi.training.predictions import write_predictions
    from pcequi.training.protocols import parse_protocol
    from pcequi.training.run_data import trained_on
    from pcequi.training.run_settings import load_run_settings
    from pcequi.training.threads import choose_device, set_threads

    set_threads(threads)
    # All that can be wrong is looked at before anything is computed.
    budgets, modes = budget or [], mode or ["precomputed"]
    if "all" in modes:
        modes = [*MODES, *(name for name in modes if name != "all")]
    check_modes(modes, budgets)
    for name in protocol or ():
        parse_protocol(name)
    options: dict = {"device": choose_device(device)}
    comparing = bool(mode or budget)
    where = {"with": together, "csv": csv, "cache": cache, "workers": workers}
    given = [f"`--{name}`" for name, value in where.items() if value and comparing]
    if given:
        raise ArgumentError(f"{given[0]} cannot be joined with --mode or --budget; leave one out")
    where = {"root": text(root), "source": text(source), "test_list": text(test_list)}
    check_place("csv", csv)
    checkpoint = _checkpoint(run) if files is None else find_network(run)
    if files is None:
        settings = load_run_settings(run)
        given = {key: value for key, value in (where | {"limit": limit}).items() if value}
        settings = replace(settings, **given)
    else:
        settings = _settings_for_files(run, checkpoint, where)
    seed = settings.fit.seed if seed is None else seed
    others = [find_network(path) for path in together or ()]
    for path, other in zip(together or (), others):
        if list(other.classes) != list(checkpoint.classes):
            raise ArgumentError(
                f"`--with` (={str(path)!r}) must be a run on the classes of {run}, in their order"
            )
    if files is None:
        test, paths, what = _test_clouds(settings, checkpoint.classes, run), None, "test clouds"
    else:
        options_of = {"num_points": settings.num_points, "seed": settings.data_seed}
        test = load_labelled(files, checkpoint.classes, **options_of, limit=limit)
        paths, what = [expanded(files) / name for name in test.names], f"files of {files}"
    asked = (run, *(together or ()))
    seen = {str(path): trained_on(path, test.clouds, paths) for path in asked}
    _warn_of_seen(seen, len(test), files)
    options["seed"] = seed
    result: dict = {"run": str(run), "data": settings.data, "seed": seed, "shapes": len(test)}
    if files is not None:
        result["files"] = str(files)
        result["classes"] = [test.classes[row] for row in test.labels.unique().tolist()]
        what += f", {len(result['classes'])} of {len(test.classes)} classes"
    result["trained_on"] = seen
    protocols, fault = protocol or [settings.protocol], None
    if comparing:
        result["table"] = [
            {"protocol": name} | row
            for name in protocols
            for row in compare_modes(checkpoint.model, test, name, modes, budgets, **options)
        ]
    else:
        models = [checkpoint.model, *(other.model for other in others)]
        options |= {"cache": cache, "workers": workers}
        found = {name: evaluate_together(models, test, name, **options) for name in protocols}
        result["protocols"] = {name: report for name, (report, _) in found.items()}
        if others:
            result["with"] = [str(path) for path in together]
        else:
            for report in result["protocols"].values():
                del report["alone"]
        if csv is not None:
            logits = {name: values for name, (_, values) in found.items()}
            try:
                write_predictions(expanded(csv), logits, test)
            except FileError as error:  # what was measured is printed all the same
                fault = error
                result["error"] = {"type": type(error).__name__, "message": str(error)}
    if json:
        print_json(result)
    elif "table" in result:
        _show_comparison(result, what)
    else:
        title, num = f"{run}, {len(test)} {what}", len(test)
        rows = table(title, "protocol", "accuracy", "named rightly", "mean of classes")
        for name, report in result["protocols"].items():
            share, mean = report["accuracy"], report["mean_class_accuracy"]
            rows.add_row(name, percent(share, num), counted(share, num), percent(mean, num))
        show(rows)
        for name, report in result["protocols"].items() if others else ():
            alone = ", ".join(percent(share, num) for share in report["alone"])
            show(f"{name}, each alone: {alone}")
    if fault:
        typer.echo(f"Error: {fault}", err=True)
        raise typer.Exit(1)


def _checkpoint(run: Path):
    """The network of a run."""
    from pcequi.networks import network_names
    from pcequi.training.checkpoints import load_checkpoint

    if str(run) in network_names() and not os.path.exists(run):
        raise ArgumentError(
            f"`run` (={str(run)!r}) is a network that comes with pcequi, without data to evaluate "
            "it on; `--files` names a folder of yours, its card has figures, and `--with` joins "
            "it to a run of yours"
        )
    return load_checkpoint(run)


def _settings_for_files(run: Path, checkpoint, where: dict):
    """How new files are read and turned: as those of the run, or of a network without one."""
    from pcequi.training.files import run_folder
    from pcequi.training.run_settings import RunSettings, load_run_settings

    for name, value in where.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise ArgumentError(
                f"`{option}` (={value!r}) names the data set of a run, and `--files` is tested on "
                "in its place; leave one out"
            )
    if os.path.exists(run_folder(run) / "settings.json"):
        settings = load_run_settings(run)
        return RunSettings(
            data="folder",
            num_points=settings.num_points,
            data_seed=settings.data_seed,
            protocol=settings.protocol,
            fit=settings.fit,
        )
    return RunSettings(data="folder", num_points=checkpoint.extra.get("num_points") or 1024)


def _test_clouds(settings, classes, run: Path):
    """The test clouds of a run, whose classes must be those of its network."""
    from pcequi.datasets.folder_files import find_files
    from pcequi.training.run_settings import load_run_split

    given = next((name for name in ("root", "source") if getattr(settings, name)), None)
    try:
        if settings.data == "folder" and settings.root:
            # Before files are split and read.
            files = find_files(expanded(settings.root), least=1)
            _check_classes(sorted({name for _, name, _ in files}), classes, settings, run)
        test = load_run_split(settings, train=False)
    except FileError as error:
        lost = [name for name in ("test_list", given) if name and getattr(settings, name)]
        lost = next((name for name in lost if not os.path.exists(getattr(settings, name))), given)
        if lost is None:
            raise
        raise FileError(
            f"{error} (where the data of {run} lie is in its settings: "
            f"`--{lost.replace('_', '-')}` names another place)"
        ) from error
    _check_classes(list(test.classes), classes, settings, run)
    return test


def _check_classes(found: list[str], classes: list[str], settings, run: Path) -> None:
    if found == list(classes):
        return
    given, remedy = settings.root or settings.source, "`--root` or `--source`"
    if settings.data == "folder":
        remedy = "`--root`"
        if set(found) < set(classes):
            remedy += f", or `--files {settings.root}`, which tests on all files of some of them"
    raise ArgumentError(
        f"`run` (={str(run)!r}) knows the classes {', '.join(classes)}, and the data"
        f"{f' in {given!r}' if given else ''} have {', '.join(found)}: give data of its classes by "
        f"{remedy}"
    )


def _warn_of_seen(seen: dict[str, int | None], tested: int, files: Path | None) -> None:
    """Say it where networks were trained on what they are tested on."""
    for path, count in seen.items():
        if count:
            what = "test clouds" if files is None else f"files of {files}"
            remedy = "bring back the split that it was trained with"
            remedy = remedy if files is None else "leave them out"
            warnings.warn(
                f"{count} of {tested} {what} were trained on by {path}, so its accuracy "
                f"says less about new shapes: {remedy}",
                stacklevel=3,
            )


def _show_comparison(result: dict, what: str) -> None:
    rows = table(
        f"{result['run']}, {result['shapes']} {what}",
        "mode",
        "protocol",
        "budget",
        "accuracy",
        "logits",
        "relative",
        "class",
        "ms",
    )
    rows.caption = (
        "logits: the largest difference from dense, and relative to the largest; "
        "class: as dense; ms: a cloud, from points to logits"
    )
    rows.caption_justify = "left"
    for row in result["table"]:
        gap, share = row.get("logit_difference"), row.get("logit_difference_relative")
        rows.add_row(
            row["mode"],
            row["protocol"],
            str(row["budget"] or "as trained"),
            percent(row["accuracy"], result["shapes"]),
            "-" if gap is None else f"{gap:.2g}",
            "-" if share is None else f"{share:.2g}",
            percent(row.get("agreement"), result["shapes"]),
            f"{1000 * row['seconds_per_shape']:.0f}",
        )
    show(rows)

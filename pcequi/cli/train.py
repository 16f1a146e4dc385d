"""``pcequi train``."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import (
    Cache,
    Data,
    DataSeed,
    Device,
    Json,
    Limit,
    NumPoints,
    Preset,
    ResampleAs,
    Resamplings,
    Root,
    RunSeed,
    Source,
    TestList,
    TestShare,
    Threads,
    Timeout,
    Workers,
    check_split,
    print_json,
    show,
    table,
    text,
)
from pcequi.files import expanded
from pcequi.shares import counted, percent


def train(
    context: typer.Context,
    data: Data = "shapes",
    source: Source = None,
    root: Root = None,
    test_share: TestShare = 0.2,
    test_list: TestList = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Rotations of training / test, z (about the vertical axis) or SO3 (any): z/z, "
            "z/SO3 or SO3/SO3."
        ),
    ] = "z/SO3",
    also: Annotated[
        list[str] | None, typer.Option(help="Evaluate under this protocol too (repeatable).")
    ] = None,
    preset: Preset = "default",
    start: Annotated[
        str | None,
        typer.Option(
            help="Begin with the weights of a trained network (a name, a run or a file) of the "
            "same layers; budgets and classes may differ."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training clouds.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Clouds of a step.")] = 32,
    lr: Annotated[float, typer.Option(help="Largest learning rate.")] = 3e-3,
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.05,
    mixup: Annotated[
        float, typer.Option(help="Mix clouds in pairs by shares of Beta(a, a); 0: not at all.")
    ] = 0.0,
    resamplings: Resamplings = 0,
    resample_as: ResampleAs = "shape",
    val_share: Annotated[
        float, typer.Option(help="Share of the training clouds held out and measured.")
    ] = 0.0,
    num_points: NumPoints = 1024,
    limit: Limit = None,
    seed: RunSeed = 0,
    data_seed: DataSeed = 0,
    run: Annotated[
        Path | None,
        # The short form for torchrun, whose own parser trips over `--run`.
        typer.Option("--run", "-r", help="Folder of the run.", show_default="runs/<settings>"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an interrupted run; what is not given is as it was."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again in a folder that holds a run.")
    ] = False,
    bfloat16: Annotated[
        bool | None,
        typer.Option(
            "--bfloat16/--float32",
            help="Train with automatic casts to bfloat16, or without.",
            show_default="whichever the device multiplies faster",
        ),
    ] = None,
    cache: Cache = None,
    workers: Workers = None,
    threads: Threads = None,
    device: Device = "auto",
    timeout: Timeout = 30.0,
    json: Json = False,
) -> None:
    """Train a classifier and measure it, upright and turned.

    Clouds are turned by the protocol, their pose graphs are precomputed and kept in
    the cache, and the network is trained on the graphs. Resampled versions of the
    clouds are precomputed when their epoch comes, and kept where several epochs read
    them. What is reported is the last epoch, which reads the clouds themselves; no epoch
    is picked. The folder of the run gets metrics, the
    network, and report.html, a page that opens without a network and shows it all.
    Processes started together by torchrun or fabric run share the work.
    """
    from pcequi.training.launch import launched
    from pcequi.training.precision import faster_precision, multiplies_bfloat16
    from pcequi.training.run_settings import RunSettings, resumed_settings
    from pcequi.training.runs import train_run
    from pcequi.training.settings import FitSettings
    from pcequi.training.threads import set_threads

    set_threads(threads)
    check_split(test_share, test_list)
    settings = RunSettings(
        data=data,
        root=text(root),
        source=text(source),
        num_points=num_points,
        limit=limit,
        data_seed=data_seed,
        protocol=protocol,
        also=tuple(also or ()),
        preset=preset,
        start=_start(start),
        test_share=test_share,
        test_list=text(test_list),
        val_share=val_share,
        resamplings=resamplings,
        resample_as=resample_as,
        fit=FitSettings(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            mixup=mixup,
            seed=seed,
            precision="bfloat16" if bfloat16 else "float32",
        ),
    )
    if run is None:
        run = Path("runs") / f"{data}-{protocol.replace('/', '-')}-{preset}-seed{seed}"
    with launched(device, 60 * timeout) as (ranks, place):
        if bfloat16 is None:
            faster = faster_precision(place, ranks)
            settings = replace(settings, fit=replace(settings.fit, precision=faster))
        if resume:
            settings = resumed_settings(run, settings, _given(context))
        if ranks.first and settings.fit.precision == "bfloat16" and not multiplies_bfloat16(place):
            warnings.warn(
                "training as with `--bfloat16` takes several times as long as with `--float32` on "
                "this device, which is not known to have instructions for it",
                stacklevel=2,
            )
        report = train_run(
            settings,
            run,
            cache=cache,
            workers=workers,
            device=place,
            resume=resume,
            overwrite=overwrite,
            ranks=ranks,
        )
    if not ranks.first:
        return
    if json:
        print_json(report)
    else:
        show_report(report)


def _given(context: typer.Context) -> set[str]:
    """Settings that were asked for on the command line."""
    names = {n for n in context.params if context.get_parameter_source(n).name != "DEFAULT"}
    return names | ({"precision"} if "bfloat16" in names else set())


def show_report(report: dict) -> None:
    """The report of a run, for people."""
    shapes, seconds = report["shapes"], report["seconds"]
    result = table(
        f"{report['data']}, preset {report['preset']}, epoch {report['epochs']}",
        "protocol",
        "accuracy",
        "test clouds named rightly",
        "mean of classes",
    )
    tested, held = shapes["test"], shapes["held_out"]
    for name, accuracy in report["accuracy"].items():
        result.add_row(
            name,
            percent(accuracy, tested),
            counted(accuracy, tested),
            percent(report["mean_class_accuracy"][name], tested),
        )
    show(result)
    for pair, share in report["agreement"].items():
        same = f"{percent(share, tested)} of the clouds"
        show(f"Same prediction under {pair.replace(', ', ' and ')}: {same}")
    if "val_accuracy" in report["last_epoch"]:
        share = report["last_epoch"]["val_accuracy"]
        show(f"Held out of training: {percent(share, held)}, {counted(share, held)}")
    show(
        f"{shapes['train']} training clouds, {report['parameters']:,} parameters; "
        f"{seconds['precompute_train']:.0f} s to precompute them, "
        f"{seconds['train']:.0f} s to train",
        f"Results: {report['run']}/ (open report.html; report.json, model.safetensors and more)",
    )


def _start(place: str | None) -> str | None:
    """The name of a network that comes with pcequi as it is, a run or a file as a whole path."""
    return text(Path(place)) if place and os.path.exists(expanded(place)) else place

"""``pcequi view``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pcequi.cli.common import Json, Seed, print_json
from pcequi.cli.view_text import explain, likeness, show_figures, titles_of
from pcequi.errors import ArgumentError, FileError
from pcequi.files import expanded, out_of_reach


def view(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Meshes or point clouds, drawn side by side; colours of the further ones are "
            "those of the nearest representatives of the first, grey where none is near.",
            readable=False,  # what may not be read is told by the reader
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="default|large|small|pairs",
            help="Network whose levels are shown.",
            show_default="default",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Or the network of a run made by `pcequi train`.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="name",
            help="Or a trained network of pcequi: modelnet40, modelnet40-large, "
            "modelnet40-large-scan, modelnet40-pairs, modelnet40-scan or modelnet40-small.",
        ),
    ] = None,
    level: Annotated[int, typer.Option(min=1, help="Level of the network, 1 is the first.")] = 1,
    color: Annotated[
        str,
        typer.Option(
            metavar="representative|distance|feature|evidence|removal",
            help="representative (points of one colour have the same nearest one), distance (of "
            "the embedding to the representative's), feature (principal components), evidence "
            "(for a class, gradient x feature in the network given by --run or --network, else in "
            "modelnet40) or removal (what the logit loses without the points around).",
        ),
    ] = "representative",
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Of --color evidence or removal.",
            show_default="the likeliest of the first file",
        ),
    ] = None,
    rotation: Annotated[
        int,
        typer.Option(
            min=0,
            help="A point has many poses: show that of this rotation. Evidence is of all.",
        ),
    ] = 0,
    rotated: Annotated[
        bool,
        typer.Option(
            "--rotated",
            help="Beside the first a copy, turned by about a third of a turn and sampled by "
            "itself: colours match where the network is equivariant.",
        ),
    ] = False,
    highlight: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Instead: only the points that this representative of the first file stands for, "
            "and in further files those of the nearest one in feature space.",
        ),
    ] = None,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            help="Draw axes (x red, y green, z blue), 24 at most: of the poses shown on the points "
            "of the first representatives, or of the highlighted one and those it stands for.",
        ),
    ] = False,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Representatives of the level, rounded up to whole orbits: most presets sample "
            "the poses of a point, here four, as one.",
            show_default="those of the network",
        ),
    ] = None,
    drop_outliers: Annotated[
        bool,
        typer.Option(
            "--drop-outliers", help="Leave out points that lie alone, as stray points of a scan do."
        ),
    ] = False,
    num_points: Annotated[
        int | None,
        typer.Option(
            min=1, help="Points of a cloud.", show_default="as the network was trained, or 1024"
        ),
    ] = None,
    up: Annotated[
        str | None,
        typer.Option(
            metavar="x|y|z",
            help="Axis of the files that is up in the picture.",
            show_default="z, but y for .glb, as the format has it",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write a .png, or a .gif that turns, instead of opening a window."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Of --save: pixels a cloud.", show_default="640, 360 for a .gif"),
    ] = None,
    renderer: Annotated[
        str,
        typer.Option(
            metavar="auto|egl|software|window",
            help="Of --save: egl (graphics driver), software (on the CPU), window (hidden, on the "
            "display), or auto: the first that works.",
        ),
    ] = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """See which parts of a shape a network treats as the same.

    Opens a window where there is a display; --save needs none. Needs Open3D.
    Small pale points carry no poses at the level shown. Sampling uses geometry
    alone, so no trained network is needed, except for evidence and removal.
    """
    import time

    import torch

    from pcequi.datasets.meshes import normalize_cloud
    from pcequi.datasets.readers import read_points
    from pcequi.outliers import kept_points
    from pcequi.progress import progress_bar
    from pcequi.rotations import random_rotations
    from pcequi.training.predict import sparse_warning
    from pcequi.viz import level_scene, levels, matching, render
    from pcequi.viz.scene import check_up

    _check_files(files)
    level_scene.check_coloring(color, "color")
    if up is not None:
        check_up(up)
    trained = color in level_scene.OF_TRAINED
    if highlight is not None and trained:
        raise ArgumentError(
            f"`highlight` (={highlight}) paints over `color` (={color!r}); give one of them"
        )
    if save is not None:
        render.check_renderer(renderer)
        gif = render.check_picture_path(save).suffix.lower() == ".gif"
        size = size or (360 if gif else 640)
        render.check_picture_size(size, len(files) + rotated, render.FRAMES if gif else 1)
    else:
        render.check_display()
    render.check_open3d()
    network_levels, checkpoint, name = _network(preset, run, network, color)
    target = _target(color, class_name, checkpoint)
    if budget is not None and level <= len(network_levels):
        network_levels[level - 1] = network_levels[level - 1].with_budget(num=budget)
    if num_points is None:
        num_points = (checkpoint.extra.get("num_points") if checkpoint else None) or 1024
    clouds = [read_points(file, num_points, seed).pos.double() for file in files]
    if drop_outliers:
        clouds = [cloud[kept_points(cloud)].numpy() for cloud in clouds]
        clouds = [torch.from_numpy(normalize_cloud(cloud)) for cloud in clouds]
    # An untrained network has no answer to be trusted.
    warnings = [checkpoint and sparse_warning(checkpoint, cloud) for cloud in clouds]

    start = time.perf_counter()
    views = []
    with progress_bar(f"sampling {len(clouds)} clouds", quiet=len(clouds) == 1) as bar:
        for cloud in clouds:
            views.append(levels.sample_level(cloud, network_levels, level, rotation))
            bar(len(views), len(clouds))
    views[1:] = [matching.match_shape(views[0], view) for view in views[1:]]
    titles, comparison = titles_of(files), None
    if color == "representative" and highlight is None:
        titles[1:] = [likeness(title, view, views[0]) for title, view in zip(titles[1:], views[1:])]
    if rotated:
        generator = torch.Generator().manual_seed(seed)
        turns = random_rotations(8, generator=generator, dtype=torch.float64)
        # Of these the nearest to a third of a turn: a small one would show little.
        turn = turns[turns.diagonal(dim1=1, dim2=2).sum(1).abs().argmin()]
        copy = levels.sample_level(clouds[0] @ turn.T, network_levels, level, rotation)
        copy, comparison = matching.match_copy(views[0], copy, turn)
        comparison["rotation"] = turn.tolist()
        views.insert(1, copy)
        titles.insert(
            1, f"turned copy: {comparison['same_representative']:.1%} same representative"
        )
    evidence = None
    if trained:
        if rotated:
            titles[1] = "turned copy"
        ask = checkpoint, network_levels, level, target, color
        views, evidence = _with_evidence(views, titles, *ask)
        class_name = evidence[0]["class"]
        titles = [f"{t}: {class_name} {e['probability']:.0%}" for t, e in zip(titles, evidence)]
    scene = level_scene.level_scene(
        views,
        titles,
        coloring=color,
        highlight=highlight,
        frames=frames,
        class_name=class_name or "",
    )
    # The format of .glb says y; others say nothing, and their shapes mostly stand on z.
    ups = [up or ("y" if file.suffix.lower() == ".glb" else "z") for file in files]
    ups[1:1] = ups[:1] * rotated
    scene.parts = [part.standing(axis) for part, axis in zip(scene.parts, ups, strict=True)]
    sampling = time.perf_counter() - start

    start = time.perf_counter()
    if save is not None:
        with progress_bar("drawing") as bar:
            render.save_picture(scene, save, size=size, renderer=renderer, progress=bar)
    described = [levels.describe(view, highlight) for view in views]
    others = described[2:] if rotated else described[1:]
    result = described[0] | {
        "file": str(files[0]),
        "warning": warnings[0],
        "others": [
            {"file": str(file), "warning": warning} | found
            for file, warning, found in zip(files[1:], warnings[1:], others)
        ],
        "network": name,
        "level": level,
        "rotation": rotation,
        "seed": seed,
        "copy": comparison,
        "evidence": evidence,
        "saved": str(save) if save else None,
        "seconds": {"sampling": sampling, "drawing": time.perf_counter() - start},
    }
    if json:
        print_json(result)
    else:
        show_figures(result)
    for file, warning in zip(files, warnings):
        if warning:
            typer.echo(f"Warning: {file}: {warning}", err=True)
    if save is None:
        if not json:
            explain(scene)
        render.show_window(scene, f"pcequi: {files[0].name}, level {level}")


def _check_files(files: list[Path]) -> None:
    """Whether a folder stands where files are expected, as a run does after `pcequi predict`."""
    from pcequi.training.files import holds_run

    for file in files:
        if holds_run(expanded(file)):
            raise FileError(
                f"`files` (={str(file)!r}) is the folder of a run: show its network with "
                f"`pcequi view FILE --run {file}`"
            )


def _network(
    preset: str | None, run: Path | None, network: str | None, color: str
) -> tuple[list, Any, str]:
    """Levels to sample, the checkpoint of a trained network or None, and the network's name."""
    from pcequi.models.presets import check_preset
    from pcequi.models.presets import preset as preset_settings
    from pcequi.networks import load_network, network_names
    from pcequi.training.checkpoints import load_checkpoint
    from pcequi.viz.level_scene import OF_TRAINED

    options = {"preset": preset, "run": run and str(run), "network": network}
    given = [f"`{name}` (={value!r})" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)}: give one of them")
    if not given and color in OF_TRAINED:
        network = "modelnet40"
    shipped = ", ".join(network_names())
    if run is not None:
        if not (os.path.exists(expanded(run)) or out_of_reach(expanded(run))):
            raise FileError(
                f"`run` (={str(run)!r}) does not exist: give the folder of a run made by "
                f"`pcequi train`, or as `--network` one of {shipped}"
            )
        checkpoint, name = load_checkpoint(run), str(run)
    elif network is not None:
        if network not in network_names():
            raise ArgumentError(f"`network` (={network!r}) must be one of {shipped}")
        checkpoint, name = load_network(network), network
    else:
        name = preset or "default"
        check_preset(name)
        return list(preset_settings(name)["levels"]), None, name
    return list(checkpoint.model.levels), checkpoint, name


def _target(color: str, class_name: str | None, checkpoint) -> int | None:
    """Number of the class asked for; None for the likeliest."""
    from pcequi.viz.level_scene import OF_TRAINED

    if color not in OF_TRAINED:
        if class_name is not None:
            raise ArgumentError(
                f"`class` (={class_name!r}) goes with `--color evidence` or `--color removal`: add "
                "one of them"
            )
        return None
    if checkpoint is None:
        raise ArgumentError(
            f"`color` (={color!r}) needs a trained network: leave out `--preset`, or pass `--run`, "
            "the folder of a run made by `pcequi train`, or `--network`, one that comes with pcequi"
        )
    if class_name is None:
        return None
    if class_name not in checkpoint.classes:
        raise ArgumentError(
            f"`class` (={class_name!r}) must be one of {', '.join(checkpoint.classes)}"
        )
    return checkpoint.classes.index(class_name)


def _with_evidence(
    views: list, titles: list, checkpoint, network_levels: list, level: int, target, color: str
):
    """All views with the evidence for one class, and its figures under their titles."""
    from pcequi.progress import progress_bar
    from pcequi.viz.evidence import with_evidence, with_removal

    result, figures = [], []
    for view, title in zip(views, titles):
        if color == "removal":
            with progress_bar(f"leaving out points of {title}") as bar:
                view, found = with_removal(
                    view, checkpoint.model, network_levels, target, progress=bar
                )
        else:
            view, found = with_evidence(view, checkpoint.model, network_levels, level, target)
        target = found.pop("target")
        result.append(view)
        figures.append({"cloud": title, "class": checkpoint.classes[target]} | found)
    return result, figures

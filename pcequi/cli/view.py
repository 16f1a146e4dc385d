"""``pcequi view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import Json, NumPoints, Seed, print_json, show, table


def view(
    file: Annotated[Path, typer.Argument(help="Mesh or point cloud.")],
    preset: Annotated[
        str | None, typer.Option(help="Network: default or small.", show_default="default")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Or the network of a run made by `pcequi train`.")
    ] = None,
    level: Annotated[int, typer.Option(min=1, help="Level of the network, 1 is the first.")] = 1,
    color: Annotated[
        str,
        typer.Option(
            help="representative (points of one colour share one output), distance (of the "
            "embedding to the representative's) or feature (principal components)."
        ),
    ] = "representative",
    rotation: Annotated[
        int, typer.Option(min=0, help="A point has many poses: show that of this rotation.")
    ] = 0,
    rotated: Annotated[
        bool,
        typer.Option(
            "--rotated",
            help="Beside it a copy, turned at random and sampled by itself: colours match "
            "where the network is equivariant.",
        ),
    ] = False,
    highlight: Annotated[
        int | None,
        typer.Option(min=0, help="Instead: only the points that this representative stands for."),
    ] = None,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            help="Draw axes: frames of the first 24 representatives, or of the highlighted one "
            "and the poses that it stands for.",
        ),
    ] = False,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Representatives of the level.", show_default="those of the network"
        ),
    ] = None,
    num_points: NumPoints = 1024,
    save: Annotated[
        Path | None,
        typer.Option(help="Write a .png, or a .gif that turns, instead of opening a window."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Pixels a cloud.", show_default="640, 360 for a .gif"),
    ] = None,
    renderer: Annotated[
        str,
        typer.Option(
            help="Of --save: egl (graphics driver), software (on the CPU), window (hidden, on the "
            "display), or auto: the first that works."
        ),
    ] = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """See which parts of a shape a network treats as the same.

    Opens a window where there is a display; --save needs none. Needs Open3D.
    Small pale points carry no poses at the level shown. Sampling uses geometry
    alone, so no trained network is needed.
    """
    import time

    import torch

    from pcequi.datasets.readers import read_points
    from pcequi.rotations import random_rotations
    from pcequi.viz import levels as level_views
    from pcequi.viz import render

    if save is not None:
        render.check_picture_path(save)
    elif not render.has_display():
        raise render.RenderError(render.NO_DISPLAY)
    render.check_open3d()
    network = _levels(preset, run)
    if budget is not None and level <= len(network):
        network[level - 1] = network[level - 1].with_budget(num=budget)
    pos = read_points(file, num_points, seed).pos.double()

    start = time.perf_counter()
    views = [level_views.sample_level(pos, network, level, rotation)]
    titles, comparison = [file.name], None
    if rotated:
        generator = torch.Generator().manual_seed(seed)
        turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
        copy = level_views.sample_level(pos @ turn.T, network, level, rotation)
        copy, comparison = level_views.match_copy(views[0], copy, turn)
        comparison["rotation"] = turn.tolist()
        views.append(copy)
        titles.append(f"turned copy: {comparison['same_representative']:.1%} same representative")
    scene = level_views.level_scene(
        views, titles, coloring=color, highlight=highlight, frames=frames
    )
    sampling = time.perf_counter() - start

    start = time.perf_counter()
    if save is not None:
        size = size or (360 if save.suffix.lower() == ".gif" else 640)
        render.save_picture(scene, save, size=size, renderer=renderer)
    result = level_views.describe(views[0], highlight) | {
        "file": str(file),
        "network": str(run) if run else preset or "default",
        "level": level,
        "rotation": rotation,
        "seed": seed,
        "copy": comparison,
        "saved": str(save) if save else None,
        "seconds": {"sampling": sampling, "drawing": time.perf_counter() - start},
    }
    if json:
        print_json(result)
    else:
        _show(result)
    if save is None:
        render.show_window(scene, f"pcequi: {file.name}, level {level}")


def _levels(preset: str | None, run: Path | None) -> list:
    from pcequi.errors import ArgumentError
    from pcequi.models import preset as preset_settings

    if run is None:
        return list(preset_settings(preset or "default")["levels"])
    if preset is not None:
        raise ArgumentError(f"`preset` (={preset!r}) and `run` (={str(run)!r}): give one of them")
    from pcequi.training.checkpoints import load_checkpoint

    return list(load_checkpoint(run).model.levels)


def _show(result: dict) -> None:
    rows = table(f"{result['file']}, level {result['level']} of {result['network']}", "", "")
    rows.show_header = False
    rows.add_row("points", f"{result['points']}, {result['points_with_poses']} with poses")
    rows.add_row("poses", f"{result['poses']} ({result['rotations']} on a point)")
    rows.add_row(
        "representatives", f"{result['representatives']}, {result['representatives_shown']} shown"
    )
    rows.add_row(
        "embedding distance",
        f"mean {result['mean_distance']:.3g}, covering radius {result['covering_radius']:.3g}",
    )
    if result["highlight"]:
        found = result["highlight"]
        rows.add_row(
            f"representative {found['representative']}",
            f"stands for {found['poses']} poses on {found['points']} points",
        )
    if result["copy"]:
        found = result["copy"]
        rows.add_row("turned copy, same representative", f"{found['same_representative']:.2%}")
        rows.add_row("largest relative change", f"{found['embedding_difference']:.1e}")
    if result["saved"]:
        rows.add_row("saved", result["saved"])
    show(rows)

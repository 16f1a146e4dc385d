"""``pcequi bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from pcequi.cli.common import Json, Preset, Threads, print_json, show, table


def bench(
    preset: Preset = "default",
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rounds: under a minute on two cores.")
    ] = False,
    threads: Threads = None,
    device: Annotated[
        str, typer.Option(help="cpu, or cuda: training, inference and precomputation on a GPU.")
    ] = "cpu",
    json: Json = False,
) -> None:
    """Measure how fast this machine is.

    Beside the network, what would be used instead: the same on all its poses, DGCNN, PointNet++.
    Ratios come from steps that take turns in one run, so that a busy machine disturbs both sides
    alike; seconds are those of this machine now. MiB are what a step takes at its peak beyond
    what was there before; of a ratio ours / the other's. Floors are the FLOPs, or the bytes, of
    the work over what this machine multiplies and copies.
    """
    import torch

    from pcequi.bench import (
        EXPLANATIONS,
        GPU_EXPLANATIONS,
        bench_figures,
        gpu_figures,
        memory_mib,
    )
    from pcequi.models.presets import check_preset
    from pcequi.progress import progress_bar
    from pcequi.training.threads import choose_device, set_threads

    check_preset(preset)
    used, chosen = set_threads(threads), choose_device(device)
    on_gpu = chosen.type == "cuda"
    if on_gpu and chosen.index is not None:
        torch.cuda.set_device(chosen)  # all of it is measured where "cuda" is
    meanings = GPU_EXPLANATIONS if on_gpu else EXPLANATIONS
    with progress_bar("measuring", 7 if on_gpu else 8) as bar:  # parts that they tell of
        if on_gpu:
            figures = gpu_figures(preset, rounds=5 if quick else 20, progress=bar.begin)
        else:
            figures = bench_figures(preset, quick, workers=used, progress=bar.begin)
    if json:
        print_json({**figures, "threads": used})
        return
    columns = ["figure", "value"] if on_gpu else ["figure", "value", "MiB"]
    rows = table(f"Preset {preset}, {used} threads", *columns, "what it is")
    rows.columns[-1].justify = "left"
    for name, meaning in meanings.items():
        value = figures[name]
        cells = ["-" if value is None else f"{value:.3g}"]
        if not on_gpu:
            cells.append(" / ".join(f"{peak:.0f}" for peak in memory_mib(figures, name) or ()))
        rows.add_row(name, *cells, meaning)
    show(rows)

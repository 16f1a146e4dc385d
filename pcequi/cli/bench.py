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

    Beside the network, what would be used instead. Ratios come from steps that take
    turns in one run, so that a busy machine disturbs both sides alike; seconds are those
    of this machine now.
    """
    import torch

    from pcequi.bench import EXPLANATIONS, GPU_EXPLANATIONS, bench_figures, gpu_figures
    from pcequi.models.presets import check_preset
    from pcequi.progress import progress_bar
    from pcequi.training.threads import choose_device, set_threads

    check_preset(preset)
    used, chosen = set_threads(threads), choose_device(device)
    on_gpu = chosen.type == "cuda"
    if on_gpu and chosen.index is not None:
        torch.cuda.set_device(chosen)  # all of it is measured where "cuda" is
    meanings = GPU_EXPLANATIONS if on_gpu else EXPLANATIONS
    with progress_bar("measuring", 7) as bar:  # parts that both benchmarks tell of
        if on_gpu:
            figures = gpu_figures(preset, rounds=5 if quick else 20, progress=bar.begin)
        else:
            figures = bench_figures(preset, quick, workers=used, progress=bar.begin)
    if json:
        print_json({**figures, "threads": used})
        return
    rows = table(f"Preset {preset}, {used} threads", "figure", "value", "what it is")
    rows.columns[2].justify = "left"
    for name, meaning in meanings.items():
        value = figures[name]
        rows.add_row(name, "-" if value is None else f"{value:.3g}", meaning)
    show(rows)

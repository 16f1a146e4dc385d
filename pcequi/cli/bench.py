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
    json: Json = False,
) -> None:
    """Measure how fast this machine is, beside what would be used instead.

    Ratios come from steps that take turns in one run, so that a busy machine
    disturbs both sides alike; seconds are those of this machine now.
    """
    from pcequi.bench import EXPLANATIONS, bench_figures
    from pcequi.training.progress import progress_bar
    from pcequi.training.threads import set_threads

    used = set_threads(threads)
    parts: list[str] = []
    with progress_bar("measuring", 8) as bar:

        def tell(part: str) -> None:
            bar(len(parts), 8, part)
            parts.append(part)

        figures = bench_figures(preset, quick, workers=used, progress=tell)
        bar(8, 8, "done")
    if json:
        print_json({**figures, "threads": used})
        return
    rows = table(f"Preset {preset}, {used} threads", "figure", "value", "what it is")
    rows.columns[2].justify = "left"
    for name, meaning in EXPLANATIONS.items():
        value = figures[name]
        rows.add_row(name, "-" if value is None else f"{value:.3g}", meaning)
    show(rows)

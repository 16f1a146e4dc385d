"""``pcequi check``."""

from __future__ import annotations

from typing import Annotated

import typer

from pcequi.cli.common import Json, Preset, Seed, Threads, print_json, show, table


def check(
    preset: Preset = "default",
    seed: Seed = 0,
    clouds: Annotated[int, typer.Option(min=1, help="Generic clouds to try.")] = 32,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure how exact the equivariance of a network is.

    With random weights: clouds are moved, their graphs built again, and the logits compared. Exits
    with 1 if a figure that has a limit is above it, or a finer grid of frames is no better.
    """
    from pcequi.check import EXPLANATIONS, LIMITS, TIE_RULE, equivariance_figures
    from pcequi.models.presets import check_preset
    from pcequi.progress import progress_bar
    from pcequi.training.threads import set_threads

    set_threads(threads)
    check_preset(preset)
    with progress_bar("checking", 9) as bar:
        figures = equivariance_figures(preset, seed, num_clouds=clouds, progress=bar.begin)
    if json:
        print_json(figures)
    else:
        rows = table(
            f"Relative change of the logits, preset {figures['preset']}, random weights",
            "figure",
            "value",
            "limit",
            "what it is",
        )
        rows.columns[3].justify = "left"
        for name, meaning in EXPLANATIONS.items():
            limit = LIMITS.get(name)
            value = figures[name]
            value = value if isinstance(value, dict) else {"": value}
            for part, number in value.items():
                label = f"{name}, {part} rotations" if part else name
                shown = "falls" if name == "grid_error" else f"{limit:.0e}" if limit else "-"
                rows.add_row(label, f"{number:.1e}", shown, meaning)
        each = ", ".join(
            f"{name} {value:.1e}" for name, value in figures["invariance_symmetric_each"].items()
        )
        show(
            rows,
            f"invariance_symmetric of each shape: {each}",
            "A change is the norm of the difference over the norm of the logits less their mean.",
            TIE_RULE,
            f"{'All limits hold' if figures['passed'] else 'A LIMIT IS BROKEN'}; "
            f"{figures['seconds']:.0f} s",
        )
    if not figures["passed"]:
        raise typer.Exit(1)

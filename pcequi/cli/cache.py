"""``pcequi cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import Json, print_json, show, table
from pcequi.errors import ArgumentError
from pcequi.files import expanded


def cache(
    place: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Folder of precomputed graphs.",
            show_default="$PCEQUI_CACHE or ~/.cache/pcequi/graphs",
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete the graphs; what needs them makes them again.")
    ] = False,
    older: Annotated[
        float | None,
        typer.Option(
            min=0, help="With --clear: only what nothing was written to for so many days."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what the cache of precomputed graphs takes, and clear it.

    Every data set, rotation and setting of the levels has graphs of its own, which stay.
    Do not clear what a training reads just now.
    """
    from pcequi.training.cached import cached_graphs, remove_graphs
    from pcequi.training.splits import default_cache

    if older is not None and not clear:
        raise ArgumentError(f"`older` (={older}) says what --clear deletes; give both, or none")
    place = default_cache() if place is None else expanded(place)
    found = cached_graphs(place)
    gone = remove_graphs(found, older or 0.0) if clear else []
    if json:
        folders = [
            {
                "folder": str(one.folder),
                "shapes": one.shapes,
                "representatives": one.representatives,
                "megabytes": round(one.size / 1e6, 3),
                "days": round(one.days, 3),
                "deleted": one in gone,
            }
            for one in found
        ]
        print_json({"cache": str(place), "graphs": folders})
        return
    rows = table(str(place), "graphs", "shapes", "representatives", "MB", "days old")
    for one in found:
        shapes = "begun" if one.shapes is None else f"{one.shapes:,}"
        nums = "-"
        if one.representatives is not None:
            nums = " / ".join("all" if num is None else f"{num:,}" for num in one.representatives)
        name = one.folder.name + (", deleted" if one in gone else "")
        rows.add_row(name, shapes, nums, f"{one.size / 1e6:,.1f}", f"{one.days:.1f}")
    show(rows)
    total = sum(one.size for one in found) / 1e6
    show(f"{len(found)} folders, {total:,.1f} MB" + (f"; {len(gone)} deleted" if clear else ""))

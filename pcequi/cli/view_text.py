"""What ``pcequi view`` writes: titles, figures, and what a window has no room for."""

from __future__ import annotations

from pathlib import Path

from pcequi.cli.common import show, table


def explain(scene) -> None:
    """What a picture says below the clouds, and how to use the window."""
    rows = ", row by row" * (scene.rows > 1)
    show(f"From left to right{rows}: {' | '.join(part.title for part in scene.parts)}")
    ends = f" ({' to '.join(scene.scale)})" if any(scene.scale) else ""
    show(f"{scene.legend[:1].upper()}{scene.legend[1:]}{ends}.")
    show("Drag to turn, Ctrl and drag to move, wheel to come closer, Q or Esc to close.")


def show_figures(result: dict) -> None:
    """The figures of a picture, as a table."""
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
    for other in result["others"]:
        found = other["highlight"]
        rows.add_row(
            other["file"],
            f"{other['representatives']} representatives, {other['matched']:.0%} of the poses like "
            f"the first (mean distance {other['mean_distance_to_first']:.3g})"
            if found is None
            else f"{found['poses']} poses on {found['points']} points, "
            f"embedding {found['distance']:.2g} away",
        )
    for found in result["evidence"] or []:
        kind = "removal" if "radius" in found else "evidence"
        rows.add_row(
            f"{found['cloud']}, {kind} for {found['class']}",
            f"probability {found['probability']:.1%}, logit {found['logit']:.3g}",
        )
    if result["copy"]:
        found = result["copy"]
        rows.add_row("turned copy, same representative", f"{found['same_representative']:.2%}")
        rows.add_row("largest relative change", f"{found['embedding_difference']:.1e}")
    if result["saved"]:
        rows.add_row("saved", result["saved"])
    show(rows)


def likeness(title: str, view, first) -> str:
    """Below another shape: how much of it is like the first."""
    found, own = view.matched.double().mean(), first.sampled.chosen.distance.mean()
    distance = f"mean distance {view.apart.mean():.2g}, first's own {own:.2g}"
    return f"{title}: {found:.0%} like the first ({distance})"


def titles_of(files: list[Path]) -> list[str]:
    """Names of files, with as many of the folders above as tell them apart."""
    for depth in range(1, max(len(file.parts) for file in files) + 1):
        names = ["/".join(file.parts[-depth:]) for file in files]
        if len(set(names)) == len(set(files)):
            break
    return names

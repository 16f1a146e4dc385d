"""Curves and confusion matrix of a run, as PNG, without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["plot_confusion", "plot_curves"]

# Classes whose names and counts can be read, and inches of the picture: memory and time grow with
# the square of both.
_LEGIBLE, _LARGEST = 80, 25.0


def plot_curves(history: Sequence[dict], path: str | Path) -> None:
    """Draw loss and accuracy over the epochs.

    Args:
        history: what ``fit`` returns.
        path: of the PNG.

    **Equivariance:** does not apply.
    """
    # Imported late: commands that draw nothing start sooner.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [metrics["epoch"] for metrics in history]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [metrics["loss"] for metrics in history], marker=".", label="training")
    left.set(xlabel="epoch", ylabel="loss")
    shares = [100 * metrics["accuracy"] for metrics in history]
    right.plot(epochs, shares, marker=".", label="training, with dropout")
    held = [(m["epoch"], 100 * m["val_accuracy"]) for m in history if "val_accuracy" in m]
    if held:
        right.plot(*zip(*held, strict=True), marker=".", label="held out")
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    right.legend()
    for axes in (left, right):
        # One tick will do: a run of one epoch has no second.
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_confusion(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draw a confusion matrix; colours are shares of each true class.

    Names and counts are left out where there are too many to be read.

    Args:
        confusion: counts [C, C], a row for each true class.
        classes: names.
        path: of the PNG.
        title: above the matrix.

    **Equivariance:** does not apply.
    """
    from matplotlib.figure import Figure  # as above

    size = min(_LARGEST, max(4.0, 0.28 * len(classes) + 2))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = [[100 * n / max(1, sum(row)) for n in row] for row in confusion]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    legible = len(classes) <= _LEGIBLE
    if legible:
        ticks, names = range(len(classes)), [_drawn(name) for name in classes]
        axes.set_xticks(ticks, names, rotation=90, fontsize=8)
        axes.set_yticks(ticks, names, fontsize=8)
    for row, counts in enumerate(confusion if legible else ()):
        for column, count in enumerate(counts):
            if count:
                shade = "white" if shares[row][column] > 55 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", fontsize=6, color=shade
                )
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the true class")
    figure.savefig(path, dpi=120)


def _drawn(name: str) -> str:
    """A name without marks of formulas, nor bytes that are no text, as those of folders may be."""
    return name.replace("$", r"\$").encode("utf-8", "backslashreplace").decode()

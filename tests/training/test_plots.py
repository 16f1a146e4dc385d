"""Pictures of a run: what stands on their axes."""

import struct

import pytest
from matplotlib.figure import Figure

from pcequi.training.plots import plot_confusion, plot_curves


@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_epochs_are_whole_numbers(tmp_path, monkeypatch, epochs):
    drawn = []
    save = Figure.savefig

    def keep(figure, path, **options):
        save(figure, path, **options)
        drawn.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    history = [{"epoch": n, "loss": 1 / n, "accuracy": 0.5} for n in range(1, epochs + 1)]
    plot_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)


def test_the_size_of_a_confusion_matrix_is_bounded(tmp_path):
    for num in (2, 300):
        path = tmp_path / f"{num}.png"
        plot_confusion([[1] * num] * num, [f"class{n}" for n in range(num)], path)
        size = struct.unpack(">II", path.read_bytes()[16:24])
        assert size[0] == size[1] <= 25 * 120


def test_names_are_no_formulas(tmp_path):
    plot_confusion([[1, 0], [0, 1]], ["a$x_$b", r"\frac{$"], tmp_path / "c.png", "100%: $")
    assert (tmp_path / "c.png").stat().st_size > 1000

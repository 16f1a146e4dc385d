"""The parts of a report as HTML; everything from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from pcequi.report.svg import line_chart
from pcequi.shares import counted, percent, wilson
from pcequi.training.predictions import PREDICTIONS

__all__ = [
    "accuracy_table",
    "agreement_lines",
    "class_table",
    "confusion_tables",
    "cost_table",
    "curves",
    "hardest_grid",
    "predictions_line",
    "settings_table",
]


# Classes of which all pairs are shown; of more, so many pairs that are confused most often.
_MOST = 100


def _rows(rows: Sequence[Sequence[Any]], kind: str, head: Sequence[str] = ()) -> str:
    # A box that scrolls, by keyboard too, so that a narrow window cuts nothing off.
    parts = [f'<div class="wide" tabindex="0"><table class="{kind}">']
    if head:
        names = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in head)
        parts.append(f"<thead><tr>{names}</tr></thead>")
    parts.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(value))}</td>" for value in rest)
        parts.append(f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>')
    return "".join(parts) + "</tbody></table></div>"


def settings_table(data: dict) -> str:
    """Everything that decided the run; values that are not set are left out.

    **Equivariance:** does not apply.
    """
    rows = []
    for name, value in data["settings"].items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if name == "parameters":
            value = f"{value:,}"
        rows.append((name.replace("_", " "), value))
    return _rows(rows, "settings")


def accuracy_table(data: dict) -> str:
    """A row a protocol, with the interval of ``shares.wilson``.

    **Equivariance:** does not apply.
    """
    rows, tested = [], data["shapes"]["test"]
    for name, value in data["accuracy"].items():
        low, high = wilson(round(value * tested), tested)
        mean = data["mean_class_accuracy"][name]
        interval = f"{percent(low, tested)} to {percent(high, tested)}"
        rows.append(
            (name, percent(value, tested), counted(value, tested), interval, percent(mean, tested))
        )
    head = ("protocol", "accuracy", "test shapes named rightly", "95 % interval", "mean of classes")
    note = (
        "<p>The interval is that of Wilson (1927) for the accuracy on many more shapes like those "
        "that were tested on.</p>"
    )
    return _rows(rows, "numbers", head) + note


def agreement_lines(data: dict) -> str:
    """How often predictions under two protocols are the same.

    **Equivariance:** does not apply.
    """
    return "".join(
        f"<p>Same prediction under {escape(pair.replace(', ', ' and '))}: "
        f"{percent(share, data['shapes']['test'])} of the shapes.</p>"
        for pair, share in data["agreement"].items()
    )


def curves(data: dict) -> str:
    """Loss and accuracy over the epochs.

    **Equivariance:** does not apply.
    """
    history = data["history"]
    loss = [(metrics["epoch"], metrics["loss"]) for metrics in history]
    train = [(metrics["epoch"], 100 * metrics["accuracy"]) for metrics in history]
    held = [(m["epoch"], 100 * m["val_accuracy"]) for m in history if "val_accuracy" in m]
    charts = [
        ("loss", [("training", loss)]),
        ("accuracy (%)", [("training", train)] + ([("held out", held)] if held else [])),
    ]
    figures = []
    for title, series in charts:
        key = " ".join(
            f'<span class="line{place}">{escape(name)}</span>'
            for place, (name, _) in enumerate(series)
        )
        chart = line_chart(title, series)
        figures.append(f"<figure><figcaption>{title}: {key}</figcaption>{chart}</figure>")
    return "".join(figures)


def class_table(data: dict) -> str:
    """Accuracy of each class by protocol, and what it is most often taken for.

    **Equivariance:** does not apply.
    """
    protocols = list(data["accuracy"])
    first, rows = protocols[0], []
    for place, name in enumerate(data["classes"]):
        counts = list(data["confusion"][first][place])
        total = sum(counts)
        shares = [data["per_class"][protocol][name] for protocol in protocols]
        counts[place] = 0
        most = max(counts)
        taken = f"{data['classes'][counts.index(most)]} ({most})" if most else "–"
        rows.append([name, *(percent(share, total, none="–") for share in shares), total, taken])
    head = ["class", *protocols, "test shapes", f"most often taken for ({first})"]
    return _rows(rows, "numbers", head)


def confusion_tables(data: dict) -> str:
    """A table of counts a protocol; the first is open.

    **Equivariance:** does not apply.
    """
    if len(data["classes"]) > _MOST:
        return (
            f"<p>{len(data['classes'])} classes are too many for a table of all pairs; those that "
            f"are taken for one another most often:</p>{_pairs(data)}"
        )
    parts = []
    for place, (protocol, matrix) in enumerate(data["confusion"].items()):
        columns = "".join(
            f'<th scope="col"><span>{escape(name)}</span></th>' for name in data["classes"]
        )
        lines = []
        for row, (name, counts) in enumerate(zip(data["classes"], matrix, strict=True)):
            cells, total = [], max(1, sum(counts))
            for column, count in enumerate(counts):
                share = count / total
                kind = "hit" if row == column else "miss"
                title = f"{name}, taken for {data['classes'][column]}: {count}"
                cells.append(
                    f'<td class="{kind}" style="--share:{share:.3f}" title="{escape(title)}">'
                    f"{count or ''}</td>"
                )
            lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
        parts.append(
            f"<details{'' if place else ' open'}><summary>{escape(protocol)}</summary>"
            '<div class="wide" tabindex="0"><table class="confusion">'
            f"<thead><tr><td></td>{columns}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table></div></details>"
        )
    return "".join(parts)


def _pairs(data: dict) -> str:
    """The largest confusions of each protocol."""
    parts = []
    for protocol, matrix in data["confusion"].items():
        found = [
            (count, row, column)
            for row, counts in enumerate(matrix)
            for column, count in enumerate(counts)
            if count and row != column
        ]
        found.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
        names = data["classes"]
        rows = [[names[row], names[column], count] for count, row, column in found[:_MOST]]
        head = ["class", "taken for", f"test shapes ({protocol})"]
        parts.append(_rows(rows, "numbers", head))
    return "".join(parts)


def hardest_grid(data: dict) -> str:
    """A canvas a shape; ``clouds.js`` draws into them.

    **Equivariance:** does not apply.
    """
    figures = []
    for place, item in enumerate(data["hardest"]):
        name = item["name"] or f"test shape {item['shape']}"
        words = f"{item['true']}, taken for {item['guess']}"
        if item["right"]:
            words = f"{item['true']}, rightly"
        label = f"{name}: {words}. Drag, or use the arrow keys, to turn it."
        sure = f"{item['probability_guess']:.0%} sure"
        if not item["right"]:
            sure += f"; {item['true']} {item['probability_true']:.0%}"
        figures.append(
            f'<figure class="{"right" if item["right"] else "wrong"}">'
            f'<canvas data-cloud="{place}" tabindex="0" role="img" aria-label="{escape(label)}">'
            f"</canvas><figcaption><b>{escape(words)}</b><br>{escape(sure)}"
            f"<br><small>{escape(name)}</small></figcaption></figure>"
        )
    return f'<div class="clouds">{"".join(figures)}</div>'


def predictions_line(data: dict) -> str:
    """Where the answers to all test shapes are; no link, as a page may be passed on alone.

    **Equivariance:** does not apply.
    """
    if not data["predictions"]:
        return ""
    return (
        f"<p>What each test shape was called is in <code>{PREDICTIONS}</code>, in the folder of "
        "the run.</p>"
    )


def cost_table(data: dict) -> str:
    """Seconds, milliseconds a shape, and memory.

    **Equivariance:** does not apply.
    """
    rows = []
    for name, (value, unit) in data["cost"].items():
        digits = 0 if unit == "MB" else 2
        rows.append((name, f"{value:,.{digits}f} {unit}"))
    return _rows(rows, "numbers")

"""What a network called each shape, as a table for spreadsheets: ``predictions.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from pcequi.files import write_bytes
from pcequi.training.splits import Split

__all__ = ["PREDICTIONS", "csv_text", "prediction_table", "write_csv", "write_predictions"]

#: Name of the file in the folder of a run.
PREDICTIONS = "predictions.csv"

_HEAD = ("file", "true class", "predicted class", "probability", "protocol")


def csv_text(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A table as text: values apart by commas, in quotes where they must be.

    **Equivariance:** does not apply.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table aside and move it into place; in UTF-8, but for names of files that are none.

    Raises:
        FileError: the disk is full, or the folder cannot be written.

    **Equivariance:** does not apply.
    """
    write_bytes(path, csv_text(head, rows).encode("utf-8", "surrogateescape"))


def write_predictions(path: Path, logits: Mapping[str, Tensor], split: Split) -> None:
    """Write what the test clouds were called under each protocol: ``file`` (within the folder of
    the data; where clouds have no names, their place in the split), ``true class``,
    ``predicted class``, its ``probability``, ``protocol``.

    Args:
        path: of the file.
        logits: of each protocol [len(split), C].
        split: the test clouds.

    Raises:
        FileError: as ``write_csv``.

    **Equivariance:** as the logits.
    """
    names = split.names or range(len(split))
    rows = []
    for protocol, values in logits.items():
        share, guess = values.double().softmax(1).max(1)
        columns = (names, split.labels.tolist(), guess.tolist(), share.tolist())
        for name, label, called, sure in zip(*columns, strict=True):
            true, found = split.classes[label], split.classes[called]
            rows.append((name, true, found, f"{sure:.6f}", protocol))
    write_csv(path, _HEAD, rows)


def prediction_table(results: Sequence[dict], top: int) -> tuple[list[str], list[list]]:
    """Head and rows of what ``predict_each`` hands out: ``file``, ``class``, ``probability``, of
    the next ones ``class 2``, ``probability 2`` and so on, ``warning`` and ``error``.

    Args:
        results: one a file.
        top: classes that were asked for.

    **Equivariance:** does not apply.
    """
    most = max([1, *(len(result.get("predictions", ())) for result in results)])
    head = ["file"]
    for place in range(1, min(top, most) + 1):
        head += [f"{name} {place}" if place > 1 else name for name in ("class", "probability")]
    rows = []
    for result in results:
        row = [result["file"]]
        for one in result.get("predictions", ()):
            row += [one["class"], f"{one['probability']:.6f}"]
        row += [""] * (len(head) - len(row))
        rows.append([*row, result.get("warning", ""), result.get("error", "")])
    return [*head, "warning", "error"], rows

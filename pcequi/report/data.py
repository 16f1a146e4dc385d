"""What a report says, as one dictionary of plain values."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pcequi.errors import FileError
from pcequi.files import expanded
from pcequi.report.hardest import HARDEST
from pcequi.training.files import read_json
from pcequi.training.predictions import PREDICTIONS

__all__ = ["report_data"]

_REMEDY = "give the folder of a finished run, or end it with `pcequi train --resume`"


def report_data(run: str | Path) -> dict:
    """Gather the files of a finished run.

    Args:
        run: the folder.

    Returns:
        ``run``; ``data``, name of the set; ``settings``, name to value of all that had
        an effect;
        ``history``, a dictionary an epoch; ``classes``; by protocol ``accuracy``,
        ``mean_class_accuracy``, ``per_class`` and ``confusion``; ``agreement``;
        ``shapes``; ``cost``, name to value and unit; ``predictions``, whether there is a table
        of them beside the page; ``hardest``, see
        ``hardest_shapes``, and ``hardest_protocol``.

    Raises:
        FileError: the folder is none of a finished run, or a file is damaged.

    **Equivariance:** does not apply.
    """
    folder = expanded(run)
    report = read_json(folder / "report.json", _REMEDY)
    history = _history(folder / "metrics.jsonl")
    kept = read_json(folder / HARDEST, _REMEDY)
    try:
        first = next(iter(report["accuracy"]))
        return {
            "run": folder.absolute().name,
            "data": _name(report),
            "settings": _settings(report),
            "history": history,
            "classes": list(report["per_class"][first]),
            "accuracy": report["accuracy"],
            "mean_class_accuracy": report["mean_class_accuracy"],
            "agreement": report["agreement"],
            "per_class": report["per_class"],
            "confusion": report["confusion"],
            "shapes": report["shapes"],
            "cost": _cost(report, first),
            "predictions": os.path.exists(folder / PREDICTIONS),
            "hardest": kept["shapes"],
            "hardest_protocol": kept["protocol"],
        }
    except (
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration,
    ) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error}"
        raise FileError(
            f"report.json or {HARDEST} in {folder} is damaged ({reason}); {_REMEDY}"
        ) from error


def _history(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        # Looked up here, so that a damaged line is named.
        return [
            row | {key: float(row[key]) for key in ("epoch", "loss", "accuracy")} for row in rows
        ]
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({error}); {_REMEDY}") from error


def _name(report: dict) -> str:
    root = report["settings"].get("root")
    # Of a folder of own files, its name says more than "folder".
    return Path(root).absolute().name if report["data"] == "folder" and root else report["data"]


def _settings(report: dict) -> dict:
    settings = dict(report["settings"])
    fit = settings.pop("fit")
    # Not what had no effect: data sets with a split of their own draw none, a list says all,
    # and without resamplings there is nothing that they could be like.
    if report["data"] != "folder" or settings.get("test_list"):
        settings.pop("test_share", None)
    if not settings.get("resamplings"):
        settings.pop("resample_as", None)
    for name in ("root", "source", "test_list", "start"):
        if settings.get(name):  # A page is there to be passed on: not where things lie here.
            settings[name] = Path(settings[name]).name
    return (
        settings
        | fit
        | {
            "parameters": report["parameters"],
            "device": report["device"],
            "threads": report["threads"],
            "torch": report["torch"],
            "pcequi": report["pcequi"],
            "git commit": report["commit"],
        }
    )


def _cost(report: dict, first: str) -> dict[str, tuple[float, str]]:
    shapes, seconds = report["shapes"], report["seconds"]
    trained = shapes["train"] + shapes["held_out"]
    # A version that no epoch reads is not made.
    versions = min(1 + report["settings"]["resamplings"], report["epochs"])
    memory = report["peak_memory_mb"]
    network = sum(seconds["evaluate"].values())
    cost = {
        "precomputing the training graphs": (seconds["precompute_train"], "s"),
        "training": (seconds["train"], "s"),
        "precomputing the test graphs": (sum(seconds["precompute_test"].values()), "s"),
        "the network on the test graphs": (network, "s"),
        "precomputing, a training graph": (
            1e3 * seconds["precompute_train"] / (trained * versions),
            "ms",
        ),
        "the network, a test shape": (
            1e3 * seconds["evaluate"][first] / max(1, shapes["test"]),
            "ms",
        ),
    }
    names = {
        "process": "peak memory of the process",
        "largest_worker": "peak memory of the largest worker",
        "cuda": "peak memory on the GPU",
    }
    return cost | {names[name]: (memory[name], "MB") for name in names if name in memory}

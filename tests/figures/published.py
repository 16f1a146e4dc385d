"""Results of the benchmarks, and how the pages write them."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURES, README = "docs/figures.md", "README.md"


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def power(value):
    """7.8e-14, 1.6e-6"""
    return f"{value:.1e}".replace("e-0", "e-")


def percent(value, digits=2):
    return f"{100 * value:.{digits}f} %"


def percents(values):
    """87.52, 86.75, 86.95"""
    return ", ".join(f"{100 * value:.2f}" for value in values)


def times(value):
    """2.0 below ten, 11 above"""
    return f"{value:.1f} times" if value < 9.95 else f"{value:.0f} times"

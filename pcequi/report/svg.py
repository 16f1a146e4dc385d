"""Line charts as inline SVG, which needs no script to be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["line_chart", "ticks"]

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 34


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``: steps of 1, 2 or 5 times a power of ten.

    **Equivariance:** does not apply.
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, int(high / step + 1e-9) + 1)]


def line_chart(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """A chart of lines over whole numbers, such as epochs.

    Args:
        title: what is up the vertical axis.
        series: names and points (x, y).

    Returns:
        An ``<svg>`` element; each point says its value when pointed at.

    **Equivariance:** does not apply.
    """
    # A figure that is not finite has no place on paper.
    series = [(name, [p for p in line if math.isfinite(p[1])]) for name, line in series]
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    y_high = y_high if y_high > y_low else y_low + 1.0
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def across(x: float) -> float:
        return round(_LEFT + width * ((x - x_low) / (x_high - x_low) if x_high > x_low else 0.5), 1)

    def up(y: float) -> float:
        return round(_TOP + height * (1 - (y - y_low) / (y_high - y_low)), 1)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in ticks(y_low, y_high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(y)}" y2="{up(y)}"/>'
            f'<text x="{_LEFT - 6}" y="{up(y) + 4}" text-anchor="end">{y:g}</text>'
        )
    for x in sorted({round(x) for x in ticks(x_low, x_high)}):
        if x_low <= x <= x_high:
            parts.append(
                f'<text x="{across(x)}" y="{_HEIGHT - 18}" text-anchor="middle">{x}</text>'
            )
    for place, (name, line) in enumerate(series):
        path = " ".join(f"{across(x)},{up(y)}" for x, y in line)
        dots = "".join(
            f'<circle cx="{across(x)}" cy="{up(y)}" r="2.5">'
            f"<title>{escape(name)}, epoch {x:g}: {y:.4g}</title></circle>"
            for x, y in line
        )
        parts.append(f'<g class="line{place}"><polyline points="{path}"/>{dots}</g>')
    parts.append(
        f'<text x="{_LEFT + width / 2}" y="{_HEIGHT - 3}" text-anchor="middle">epoch</text>'
    )
    return "".join(parts) + "</svg>"

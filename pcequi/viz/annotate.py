"""Words and a colour scale on drawn pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pcequi.viz.scene import Scene

_INK = (40, 42, 48)
_BAR = 160  # width of the colour scale, in pixels of a 640-pixel picture
# Points of a font: below the first a legend takes a further line instead, up to _LINES;
# below the second nothing is written.
_READABLE, _LEAST = 10, 7
_LINES = 3


def annotate(scene: Scene, files: Sequence[Path], size: int) -> list:
    """Drawn pictures made smaller, in rows, with titles below each and a legend below all.

    Args:
        scene: its texts.
        files: drawn pictures, larger than they are to be: of each frame those of
            all parts.
        size: pixels for each cloud.

    Returns:
        Pillow images, RGB, one a frame: ``size`` per column wide, a little higher
        than ``size`` per row.

    **Equivariance:** does not apply.
    """
    from PIL import Image, ImageDraw

    points = max(9, round(size / 36))
    line = max(round(size / 22), round(1.3 * points))
    high = size + line * any(part.title for part in scene.parts)
    width, below = size * scene.columns, high * scene.rows + line // 4
    bar = round(size * _BAR / 640) if any(scene.scale) else 0
    texts, font = _legend(scene, bar, 0.98 * width, points)
    sheet = Image.new("RGB", (width, below + line * len(texts) + line // 4), "white")
    draw = ImageDraw.Draw(sheet)
    corners = [
        (size * column, high * row)
        for row, column in (divmod(number, scene.columns) for number in range(len(scene.parts)))
    ]
    for part, (x, y) in zip(scene.parts, corners):
        title, smaller = _fitting(_plain(part.title), 0.96 * size, points)
        draw.text((x + size / 2, y + size + line / 2), title, _INK, smaller, anchor="mm")
    for number, text in enumerate(texts):
        y = below + line * (number + 0.5)
        last = number == len(texts) - 1 and bar > 0
        x = (width - font.getlength(text) - last * _scale_width(scene.scale, bar, font)) / 2
        draw.text((x, y), text, _INK, font, anchor="lm")
        if last:
            _draw_scale(sheet, scene, bar, font, x + font.getlength(text), y)
    pictures = []
    for start in range(0, len(files), len(scene.parts)):
        picture = sheet.copy()
        for file, corner in zip(files[start:], corners):
            with Image.open(file) as drawn:
                smaller = drawn.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
            picture.paste(smaller, corner)
        pictures.append(picture)
    return pictures


@functools.cache
def _font(points: float):
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more."""
    import matplotlib
    from PIL import ImageFont

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    try:
        return ImageFont.truetype(str(file), points)
    except OSError:
        return ImageFont.load_default(points)


def _plain(text: str) -> str:
    """Text in one line, without what no font can draw: file names may hold anything."""
    return " ".join(text.encode(errors="replace").decode().split())


def _fitting(text: str, room: float, points: float) -> tuple:
    """The text and the largest font, up to ``points``, in which it is no wider than ``room``.

    Widths do not follow the size of a font exactly, so it is measured. What does not
    fit in the least font loses its middle.
    """
    while points > _LEAST and _font(points).getlength(text) > room:
        points -= 0.5
    font, kept, whole = _font(points), len(text), text
    while font.getlength(text) > room and kept > 1:
        kept -= 1
        text = whole[: (kept + 1) // 2] + "…" + whole[len(whole) - kept // 2 :]
    return text, font


def _legend(scene: Scene, bar: int, room: float, points: float) -> tuple:
    """Lines of the legend and their font; the colour scale goes behind the last.

    The longest words need a picture of 80 pixels.
    """
    words = _plain(scene.legend).split()
    if not words and not bar:
        return [], _font(points)
    for most in range(1, _LINES + 2):
        least = min(points, _READABLE if most <= _LINES else _LEAST)
        for size in np.arange(points, least - 0.25, -0.5):
            font = _font(float(size))
            behind = _scale_width(scene.scale, bar, font) if bar else 0
            lines = _wrapped(words, behind, room, font)
            if len(lines) <= most and _widest(lines, behind, font) <= room:
                return _evened(words, behind, lines, font), font
    return lines, font


def _wrapped(words: list[str], behind: float, room: float, font) -> list[str]:
    """Words in lines as full as they can be, with ``behind`` pixels left on the last."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    if behind and lines[-1] and font.getlength(lines[-1]) + behind > room:
        lines.append("")
    return lines


def _evened(words: list[str], behind: float, lines: list[str], font) -> list[str]:
    """As many lines, of about one length."""
    while True:
        room = _widest(lines, behind, font) - 1
        shorter = _wrapped(words, behind, room, font)
        if len(shorter) > len(lines) or _widest(shorter, behind, font) > room:
            return lines
        lines = shorter


def _widest(lines: list[str], behind: float, font) -> float:
    *others, last = map(font.getlength, lines)
    return max([*others, last + behind])


def _scale_width(ends: tuple[str, str], bar: int, font) -> float:
    """Of the colour scale with its ends, and gaps: a wide one, and one on each side of it."""
    return 2 * font.size + bar + sum(map(font.getlength, ends))


def _draw_scale(sheet, scene: Scene, bar: int, font, x: float, y: float) -> None:
    """The colour scale behind a text that ends at ``x``."""
    from matplotlib import colormaps
    from PIL import Image, ImageDraw

    draw, gap = ImageDraw.Draw(sheet), font.size / 2
    draw.text((x + font.size, y), scene.scale[0], _INK, font, anchor="lm")
    x += font.size + font.getlength(scene.scale[0]) + gap
    row = (colormaps[scene.colormap](np.linspace(0, 1, bar))[:, :3] * 255).round()
    high = round(0.8 * font.size)
    colors = Image.fromarray(np.tile(row.astype(np.uint8), (high, 1, 1)))
    sheet.paste(colors, (round(x), round(y - high / 2)))
    draw.text((x + bar + gap, y), scene.scale[1], _INK, font, anchor="lm")

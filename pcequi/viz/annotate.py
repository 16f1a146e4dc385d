"""Words and a colour scale on drawn pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pcequi.viz.scene import Scene

_INK = (40, 42, 48)
_BAR = 160  # width of the colour scale, in pixels of a 640-pixel picture


def annotate(scene: Scene, files: Sequence[Path], size: int) -> list:
    """Drawn pictures made smaller, with titles, legend and colour scale below.

    Args:
        scene: its texts.
        files: drawn pictures, larger than they are to be.
        size: pixels for each cloud.

    Returns:
        Pillow images, RGB, ``size`` per part wide, a little higher than ``size``.

    **Equivariance:** does not apply.
    """
    from PIL import Image, ImageDraw, ImageFont

    points = max(9, round(size / 36))
    line = round(size / 22)
    titles = any(part.title for part in scene.parts)
    below = line * (bool(titles) + bool(scene.legend or any(scene.scale))) + line // 2
    width = size * len(scene.parts)
    strip = Image.new("RGB", (width, below), "white")
    draw = ImageDraw.Draw(strip)

    def fitting(text: str, room: float):
        """The font, smaller where the text would not fit."""
        wanted = draw.textlength(text, ImageFont.load_default(points))
        return ImageFont.load_default(max(4, min(points, points * room / max(wanted, 1))))

    for number, part in enumerate(scene.parts):
        where = (size * (number + 0.5), line / 2)
        draw.text(where, part.title, _INK, fitting(part.title, 0.96 * size), anchor="mm")
    if scene.legend or any(scene.scale):
        y = line * (titles + 0.5)
        gap, bar = line / 2, round(size * _BAR / 640) if any(scene.scale) else 0
        room = 0.98 * width - bool(bar) * (3 * gap + bar)
        font = fitting(scene.legend + "".join(scene.scale), room)
        text = draw.textlength(scene.legend, font)
        ends = [draw.textlength(end, font) for end in scene.scale]
        x = (width - text - bool(bar) * (3 * gap + bar + sum(ends))) / 2
        draw.text((x, y), scene.legend, _INK, font, anchor="lm")
        if bar:
            x += text + gap
            draw.text((x, y), scene.scale[0], _INK, font, anchor="lm")
            x += ends[0] + gap
            colors = _color_scale(scene.colormap, bar, round(line * 0.45))
            strip.paste(colors, (round(x), round(y - line * 0.22)))
            draw.text((x + bar + gap, y), scene.scale[1], _INK, font, anchor="lm")
    pictures = []
    for file in files:
        picture = Image.new("RGB", (width, size + below), "white")
        with Image.open(file) as drawn:
            smaller = drawn.convert("RGB").resize((width, size), Image.Resampling.LANCZOS)
        picture.paste(smaller, (0, 0))
        picture.paste(strip, (0, size))
        pictures.append(picture)
    return pictures


def _color_scale(colormap: str, width: int, height: int):
    from matplotlib import colormaps
    from PIL import Image

    row = colormaps[colormap](np.linspace(0, 1, width))[:, :3]
    return Image.fromarray(np.tile((row * 255).round().astype(np.uint8), (height, 1, 1)))

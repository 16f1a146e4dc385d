"""Furniture of the ``Shapes`` data set; lengths are about metres.

Each function draws one member of its class. Classes share supports and slabs on
purpose: what tells them apart is how parts are arranged, not the parts.

**Equivariance:** upright in z, front towards -y; nothing turns at random.
"""

from __future__ import annotations

import numpy as np

from pcequi.datasets.shapes_primitives import (
    Part,
    arc,
    box,
    cylinder,
    lathe,
    merge,
    move,
    sphere,
    stretch,
    tube,
    turn,
)

__all__ = ["bed", "bookshelf", "chair", "desk_lamp", "stool", "table"]


def _legs(rng: np.random.Generator, width: float, depth: float, height: float) -> Part:
    """Four legs, square or round, straight or splayed, from the ground up."""
    thick = rng.uniform(0.015, 0.035)
    splay, taper = rng.uniform(0.0, 0.12) * height, rng.uniform(0.5, 1.0)
    square, rails = rng.random() < 0.5, rng.random() < 0.35
    parts = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            top = np.array([sx * (width / 2 - thick), sy * (depth / 2 - thick), height])
            foot = top + np.array([sx * splay, sy * splay, -height])
            path = np.linspace(foot, top, 3)
            radius = thick * np.linspace(taper, 1.0, 3)
            parts.append(tube(path, radius * (1.3 if square else 1.0), 4 if square else 8))
    if rails:
        level, half = rng.uniform(0.25, 0.6) * height, thick * 0.6
        for s in (-1, 1):
            parts.append(box((2 * half, depth, 2 * half), (s * (width / 2 - thick), 0, level)))
            parts.append(box((width, 2 * half, 2 * half), (0, s * (depth / 2 - thick), level)))
    return merge(*parts)


def _pedestal(rng: np.random.Generator, spread: float, height: float) -> Part:
    """One column on a disc, or on a star of three to five feet."""
    column = cylinder(rng.uniform(0.02, 0.05), 0.0, height)
    if rng.random() < 0.5:
        return merge(column, cylinder(spread, 0.0, 0.025, spread * rng.uniform(0.6, 1.0)))
    feet, reach = 3 + int(rng.random() * 3), spread * rng.uniform(1.0, 1.2)
    foot = box((reach, 0.04, 0.03), (reach / 2, 0, 0.02))
    star = [turn(foot, "z", 2 * np.pi * i / feet) for i in range(feet)]
    return merge(column, *star)


def _slab(rng: np.random.Generator, width: float, depth: float, low: float, round_: bool) -> Part:
    """A seat or a top: a board, or a disc that may be oval."""
    thick = rng.uniform(0.02, 0.06)
    if round_:
        return stretch(cylinder(0.5, low, low + thick, segments=32), width, depth, 1.0)
    return box((width, depth, thick), (0, 0, low + thick / 2))


def _back(rng: np.random.Generator, width: float, y: float, low: float, high: float) -> Part:
    """A chair's back: a panel, slats, bars or a hoop, perhaps leaning."""
    kind, thick = int(rng.random() * 4), rng.uniform(0.02, 0.05)
    post = thick / 2
    middle, length = (low + high) / 2, high - low
    posts = [box((thick, thick, length), (s * (width / 2 - post), 0, middle)) for s in (-1, 1)]
    if kind == 0:
        start = low + rng.uniform(0.0, 0.4) * length
        panel = box((width, thick, high - start), (0, 0, (high + start) / 2))
        parts = [panel, *posts]
    elif kind == 1:
        count = 2 + int(rng.random() * 4)
        levels = np.linspace(low + 0.3 * length, high - 0.04, count)
        size = rng.uniform(0.03, 0.07)
        parts = [*posts, *(box((width, 0.6 * thick, size), (0, 0, z)) for z in levels)]
    elif kind == 2:
        count = 3 + int(rng.random() * 5)
        places = np.linspace(-0.4 * width, 0.4 * width, count)
        bars = [box((0.018, 0.018, length), (x, 0, middle)) for x in places]
        parts = [*posts, *bars, box((width, thick, 0.06), (0, 0, high - 0.03))]
    else:
        hoop = arc(0.5, 0.0, np.pi, 20) * np.array([width, 1.0, 2.0 * length])
        count = 2 + int(rng.random() * 4)
        places = np.linspace(-0.3 * width, 0.3 * width, count)
        heights = length * np.sqrt(1 - (2 * places / width) ** 2)
        bars = [box((0.016, 0.016, h), (x, 0, h / 2)) for x, h in zip(places, heights, strict=True)]
        parts = [move(merge(tube(hoop, 0.016, 8), *bars), z=low)]
    lean = turn(move(merge(*parts), z=-low), "x", -rng.uniform(0.0, 0.3))
    return move(lean, y=y, z=low)


def chair(rng: np.random.Generator) -> Part:
    """A seat with a back, with or without arms."""
    width, depth, seat = rng.uniform(0.38, 0.62), rng.uniform(0.38, 0.6), rng.uniform(0.35, 0.52)
    round_ = rng.random() < 0.25
    support = _pedestal(rng, 0.5 * width, seat) if rng.random() < 0.3 else None
    inset = 0.72 if round_ else 1.0
    if support is None:
        support = _legs(rng, inset * width, inset * depth, seat)
    parts = [support, _slab(rng, width, depth, seat, round_)]
    top = seat + rng.uniform(0.25, 0.65)
    parts.append(_back(rng, width * rng.uniform(0.75, 1.0), depth / 2 - 0.02, seat, top))
    if rng.random() < 0.35:
        level, thick = seat + rng.uniform(0.14, 0.24), rng.uniform(0.025, 0.05)
        for s in (-1, 1):
            x = s * (width / 2 - thick / 2)
            parts.append(box((thick, 0.9 * depth, thick), (x, 0, level)))
            parts.append(box((thick, thick, level - seat), (x, -0.35 * depth, (level + seat) / 2)))
    return merge(*parts)


def stool(rng: np.random.Generator) -> Part:
    """A small seat on tall legs, without a back, often with a foot ring."""
    width, height = rng.uniform(0.28, 0.45), rng.uniform(0.42, 0.8)
    round_ = rng.random() < 0.6
    depth = width * (1.0 if round_ else rng.uniform(0.75, 1.0))
    parts = [_slab(rng, width, depth, height, round_)]
    if rng.random() < 0.35:
        parts.append(_pedestal(rng, 0.55 * width, height))
    else:
        inset = 0.72 if round_ else 1.0
        parts.append(_legs(rng, inset * width, inset * depth, height))
    if rng.random() < 0.6:
        ring = arc(width * rng.uniform(0.36, 0.46), 0, 2 * np.pi * 23 / 24, 24)
        hoop = turn(tube(ring, 0.013, 8, closed=True), "x", np.pi / 2)
        parts.append(move(hoop, z=height * rng.uniform(0.25, 0.45)))
    return merge(*parts)


def table(rng: np.random.Generator) -> Part:
    """A wide top on legs, a pedestal or two side panels, perhaps with drawers."""
    width, height = rng.uniform(0.8, 1.8), rng.uniform(0.4, 0.78)
    round_ = rng.random() < 0.3
    depth = width * (rng.uniform(0.75, 1.0) if round_ else rng.uniform(0.45, 1.0))
    parts = [_slab(rng, width, depth, height, round_)]
    kind = rng.random()
    if round_ and kind < 0.6:
        parts.append(_pedestal(rng, 0.3 * width, height))
    elif round_ or kind < 0.75:
        inset = 0.68 if round_ else 0.97
        parts.append(_legs(rng, inset * width, inset * depth, height))
    else:
        for s in (-1, 1):
            parts.append(box((0.04, 0.9 * depth, height), (s * 0.44 * width, 0, height / 2)))
    if not round_ and rng.random() < 0.3:
        deep = rng.uniform(0.12, 0.5) * height
        parts.append(box((0.3 * width, 0.85 * depth, deep), (0.3 * width, 0, height - deep / 2)))
    return merge(*parts)


def bed(rng: np.random.Generator) -> Part:
    """A mattress with a headboard and pillows, perhaps a footboard or a canopy."""
    length, width = rng.uniform(1.85, 2.15), rng.uniform(0.85, 1.9)
    frame, mattress = rng.uniform(0.15, 0.4), rng.uniform(0.12, 0.28)
    top = frame + mattress
    parts = [
        box((width, length, rng.uniform(0.06, 0.16)), (0, 0, frame)),
        box((0.96 * width, 0.97 * length, mattress), (0, 0, frame + mattress / 2)),
    ]
    head = top + rng.uniform(0.2, 0.7)
    parts.append(box((width, 0.06, head), (0, length / 2, head / 2)))
    if rng.random() < 0.5:
        foot = top * rng.uniform(0.8, 1.5)
        parts.append(box((width, 0.06, foot), (0, -length / 2, foot / 2)))
    pillows = 2 if width > 1.25 else 1
    for i in range(pillows):
        wide = rng.uniform(0.36, 0.46) * width * (2 - 0.9 * (pillows - 1))
        x = (i - (pillows - 1) / 2) * 0.48 * width
        parts.append(sphere((wide / 2, 0.2, 0.07), (x, 0.36 * length, top + 0.05)))
    post = rng.uniform(0.03, 0.06)
    tall = rng.uniform(1.6, 2.0) if rng.random() < 0.2 else frame
    for sx in (-1, 1):
        for sy in (-1, 1):
            place = (sx * (width - post) / 2, sy * (length - post) / 2, tall / 2)
            parts.append(box((post, post, tall), place))
    if tall > frame:
        for s in (-1, 1):
            parts.append(box((post, length, post), (s * (width - post) / 2, 0, tall)))
            parts.append(box((width, post, post), (0, s * (length - post) / 2, tall)))
    return merge(*parts)


def bookshelf(rng: np.random.Generator) -> Part:
    """Boards between two sides, with or without a back, some with books."""
    width, depth, height = rng.uniform(0.5, 1.4), rng.uniform(0.22, 0.4), rng.uniform(0.9, 2.1)
    thick, boards = rng.uniform(0.02, 0.04), 4 + int(rng.random() * 4)
    levels = np.linspace(thick / 2, height - thick / 2, boards)
    parts = [box((width, depth, thick), (0, 0, z)) for z in levels]
    parts += [box((thick, depth, height), (s * width / 2, 0, height / 2)) for s in (-1, 1)]
    if rng.random() < 0.5:
        parts.append(box((width, 0.015, height), (0, depth / 2, height / 2)))
    if rng.random() < 0.4:
        x = rng.uniform(-0.2, 0.2) * width
        parts.append(box((thick, depth, height), (x, 0, height / 2)))
    if rng.random() < 0.7:
        gap = levels[1] - levels[0] - thick
        for low in levels[:-1]:
            filled = rng.uniform(0.0, 0.9) * width
            if filled > 0.1 * width:
                tall, deep = gap * rng.uniform(0.6, 0.9), 0.75 * depth
                place = ((filled - width) / 2, 0.05 * depth, low + (tall + thick) / 2)
                parts.append(box((filled, deep, tall), place))
    return merge(*parts)


def desk_lamp(rng: np.random.Generator) -> Part:
    """A foot, a bent or jointed arm, and a shade that looks down."""
    foot = rng.uniform(0.08, 0.15)
    parts = [cylinder(foot, 0, rng.uniform(0.015, 0.04), foot * rng.uniform(0.5, 1.0))]
    radius = rng.uniform(0.008, 0.014)
    if rng.random() < 0.5:
        first, second = rng.uniform(0.2, 0.35), rng.uniform(0.2, 0.35)
        low, high = rng.uniform(1.7, 2.5), rng.uniform(0.1, 1.1)
        elbow = first * np.array([np.cos(low), 0, np.sin(low)])
        tip = elbow + second * np.array([np.cos(high), 0, np.sin(high)])
        parts += [tube(np.linspace((0, 0, 0), elbow, 3), radius)]
        parts += [tube(np.linspace(elbow, tip, 3), radius), sphere(2.2 * radius, tuple(elbow))]
    else:
        tall, bend = rng.uniform(0.25, 0.4), rng.uniform(0.08, 0.16)
        over = arc(bend, np.pi, rng.uniform(0.0, 0.6), 12) + np.array([bend, 0, tall])
        path = np.concatenate([[[0, 0, 0], [0, 0, tall / 2]], over])
        parts.append(tube(path, radius))
        tip = path[-1]
    wide, deep = rng.uniform(0.06, 0.12), rng.uniform(0.08, 0.15)
    neck = wide * rng.uniform(0.25, 0.6)
    wall = 0.006
    inside = [(0, 0), (neck - wall, 0), (wide - wall, -deep)]
    shade = lathe([*inside, (wide, -deep), (neck, wall), (0, wall)])
    shade = turn(shade, "y", rng.uniform(-0.7, 0.3))
    parts += [move(shade, *tip), move(sphere(0.3 * wide, (0, 0, -0.4 * deep)), *tip)]
    return merge(*parts)

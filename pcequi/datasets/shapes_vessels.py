"""Vessels of the ``Shapes`` data set; lengths are about decimetres.

All are turned on a lathe with a wall that has an inside, so that openings show.
Their outlines overlap: a wide vase has the profile of a tall bowl, a slim one
that of a bottle. Rims, necks, handles and spouts tell them apart.

**Equivariance:** upright in z, handles towards +x; nothing turns at random.
"""

from __future__ import annotations

import numpy as np

from pcequi.datasets.shapes_primitives import Part, arc, cylinder, lathe, merge, move, sphere
from pcequi.datasets.shapes_primitives import tube as make_tube

__all__ = ["bottle", "bowl", "cup", "teapot", "vase"]


def _curve(points: list[tuple[float, float]], steps: int = 24) -> np.ndarray:
    """A smooth profile ``[steps, 2]`` (radius, height) through a few corners."""
    corners = np.asarray(points, dtype=float)
    given = np.linspace(0, 1, len(corners))
    wanted = np.linspace(0, 1, steps)
    # A cosine blend between neighbours never overshoots, unlike a spline, so
    # that a radius stays positive.
    place = np.clip(np.searchsorted(given, wanted, side="right") - 1, 0, len(corners) - 2)
    share = (wanted - given[place]) * (len(corners) - 1)
    blend = np.stack([(1 - np.cos(np.pi * share)) / 2, share], axis=1)
    return corners[place] * (1 - blend) + corners[place + 1] * blend


def _open(outside: np.ndarray, wall: float, floor: float) -> Part:
    """A vessel with an opening: up the outside, down the inside."""
    inside = outside[outside[:, 1] > outside[0, 1] + floor][::-1].copy()
    inside[:, 0] = np.maximum(inside[:, 0] - wall, 0.2 * inside[:, 0])
    start, end = (0.0, outside[0, 1]), (0.0, outside[0, 1] + floor)
    return lathe(np.concatenate([[start], outside, inside, [end]]), segments=32)


def _closed(outside: np.ndarray) -> Part:
    """A vessel that is shut: a solid of revolution."""
    return lathe(np.concatenate([[(0.0, outside[0, 1])], outside, [(0.0, outside[-1, 1])]]), 32)


def _handle(rng: np.random.Generator, outside: np.ndarray, low: float, high: float) -> Part:
    """An ear from one height of the wall to another, on the side of +x."""
    foot = np.interp(low, outside[:, 1], outside[:, 0])
    head = np.interp(high, outside[:, 1], outside[:, 0])
    reach = (high - low) * rng.uniform(0.45, 0.8)
    square = rng.uniform(0.5, 1.0)
    ring = arc(1.0, -np.pi / 2, np.pi / 2, 16)
    bulge = np.sign(ring[:, 0]) * np.abs(ring[:, 0]) ** square
    path = np.zeros((16, 3))
    path[:, 2] = (low + high) / 2 + (high - low) / 2 * ring[:, 2]
    path[:, 0] = foot + (head - foot) * (ring[:, 2] + 1) / 2 + reach * bulge - 0.03
    return make_tube(path, rng.uniform(0.04, 0.08) * (high - low) + 0.02, 8)


def cup(rng: np.random.Generator) -> Part:
    """A drinking vessel with one handle, straight, tapered or bulged."""
    height, radius = rng.uniform(0.55, 1.2), rng.uniform(0.35, 0.55)
    outside = _curve(
        [
            (radius * rng.uniform(0.5, 1.0), 0),
            (radius * rng.uniform(0.8, 1.1), 0.5 * height),
            (radius, height),
        ]
    )
    body = _open(outside, rng.uniform(0.03, 0.06), 0.06)
    low, high = rng.uniform(0.12, 0.3) * height, rng.uniform(0.7, 0.92) * height
    return merge(body, _handle(rng, outside, low, high))


def bowl(rng: np.random.Generator) -> Part:
    """A wide open vessel, round or conical, perhaps on a foot ring."""
    radius = rng.uniform(0.7, 1.1)
    height = radius * rng.uniform(0.35, 0.95)
    power, base = rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.5)
    share = np.linspace(0, 1, 24)
    outside = np.stack([radius * (base + (1 - base) * share**power), height * share], axis=1)
    parts = [_open(outside, rng.uniform(0.03, 0.08), 0.07)]
    if rng.random() < 0.5:
        tall = rng.uniform(0.05, 0.2) * height
        parts.append(cylinder(radius * base * rng.uniform(0.8, 1.0), -tall, 0.01))
    if rng.random() < 0.3:
        rim = arc(radius, 0, 2 * np.pi * 31 / 32, 32)[:, [0, 2, 1]]
        parts.append(move(make_tube(rim, rng.uniform(0.03, 0.06), 8, closed=True), z=height))
    return merge(*parts)


def bottle(rng: np.random.Generator) -> Part:
    """A body, shoulders and a narrow neck, with or without a cap."""
    radius, height = rng.uniform(0.25, 0.5), rng.uniform(1.2, 2.4)
    body, neck = height * rng.uniform(0.4, 0.7), radius * rng.uniform(0.25, 0.45)
    shoulder = body + (height - body) * rng.uniform(0.25, 0.65)
    outside = np.concatenate(
        [
            _curve(
                [(0.95 * radius, 0), (radius * rng.uniform(0.85, 1.0), body / 2), (radius, body)],
                10,
            ),
            _curve([(radius, body), (neck, shoulder)], 10)[1:],
            [(neck, height - 0.1), (1.15 * neck, height - 0.1), (1.15 * neck, height)],
        ]
    )
    parts = [_closed(outside)]
    kind = rng.random()
    if kind < 0.4:
        wide = neck * rng.uniform(1.2, 1.6)
        parts.append(cylinder(wide, height - 0.05, height + rng.uniform(0.08, 0.25)))
    elif kind < 0.55:
        parts.append(sphere(neck * rng.uniform(1.2, 1.7), (0, 0, height + neck)))
    return merge(*parts)


def vase(rng: np.random.Generator) -> Part:
    """A belly, a waist and a flared open rim, in any proportion."""
    height, belly = rng.uniform(1.2, 2.4), rng.uniform(0.35, 0.7)
    waist = belly * rng.uniform(0.35, 0.7)
    rim = waist * rng.uniform(1.25, 1.9)
    middle = rng.uniform(0.25, 0.5)
    high = rng.uniform(0.68, 0.85)
    outside = _curve(
        [
            (belly * rng.uniform(0.4, 0.75), 0),
            (belly, middle * height),
            (waist, high * height),
            (rim, height),
        ],
        32,
    )
    parts = [_open(outside, rng.uniform(0.03, 0.05), 0.08)]
    if rng.random() < 0.3:
        parts.append(cylinder(outside[0, 0] * rng.uniform(1.1, 1.5), -0.1, 0.02))
    if rng.random() < 0.25:
        for side in (1, -1):
            ear = _handle(rng, outside, middle * height, (high + 0.05) * height)
            parts.append((ear[0] * np.array([side, side, 1.0]), ear[1]))
    return merge(*parts)


def teapot(rng: np.random.Generator) -> Part:
    """A belly with a lid, a spout on one side and a handle on the other."""
    radius = rng.uniform(0.55, 0.8)
    height = radius * rng.uniform(0.95, 1.7)
    opening = radius * rng.uniform(0.35, 0.6)
    outside = _curve(
        [
            (radius * rng.uniform(0.5, 0.8), 0),
            (radius, rng.uniform(0.35, 0.55) * height),
            (opening, height),
        ]
    )
    lid = _curve(
        [(1.05 * opening, height), (0.6 * opening, height + 0.1), (0.1, height + 0.15)], 10
    )
    knob = rng.uniform(0.06, 0.11)
    parts = [_closed(outside), _closed(lid), sphere(knob, (0, 0, height + 0.15 + knob))]
    parts.append(_handle(rng, outside, 0.2 * height, rng.uniform(0.75, 0.95) * height))
    low, reach = rng.uniform(0.2, 0.45) * height, radius * rng.uniform(0.5, 0.8)
    start = np.interp(low, outside[:, 1], outside[:, 0])
    share = np.linspace(0, 1, 14)
    path = np.zeros((14, 3))
    path[:, 0] = -(start - 0.08 + reach * share)
    # An S: slow at both ends where the spout is curved, straight where it is not.
    bend = rng.uniform(0.0, 1.0)
    rise = (1 - bend) * share + bend * (1 - np.cos(np.pi * share)) / 2
    path[:, 2] = low + (rng.uniform(0.85, 1.1) * height - low) * rise
    thick = rng.uniform(0.12, 0.2) * radius
    parts.append(make_tube(path, np.linspace(1.6 * thick, 0.7 * thick, 14), 10))
    return merge(*parts)

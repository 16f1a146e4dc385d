"""Tools, an airplane and two coils of the ``Shapes`` data set.

Hammer, screwdriver, spoon and wrench are all one long shaft: their ends tell
them apart. The two coils are mirror images: a network that only sees distances
cannot separate them, one that is equivariant to rotations alone can.

**Equivariance:** shafts lie along x, the airplane flies along x with z up;
nothing turns at random.
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
    mirror,
    move,
    plate,
    sphere,
    stretch,
    tube,
    turn,
)

__all__ = ["airplane", "coil_left", "coil_right", "hammer", "screwdriver", "spoon", "wrench"]


def _grip(rng: np.random.Generator, start: float, end: float, radius: float) -> Part:
    """A handle along x: round, oval, faceted or bulged."""
    kind, length = int(rng.random() * 3), end - start
    if kind == 0:
        part = cylinder(radius, 0, length, radius * rng.uniform(0.8, 1.1))
    elif kind == 1:
        part = cylinder(1.1 * radius, 0, length, segments=6)
    else:
        share = np.linspace(0, 1, 14)
        bulge = radius * (0.85 + rng.uniform(0.1, 0.35) * np.sin(np.pi * share))
        profile = np.stack([bulge, length * share], axis=1)
        part = lathe(np.concatenate([[(0, 0)], profile, [(0, length)]]), 16)
    part = stretch(part, 1.0, rng.uniform(0.7, 1.0), 1.0)
    return move(turn(part, "y", np.pi / 2), x=start)


def hammer(rng: np.random.Generator) -> Part:
    """A shaft with a head across it: claw, ball, wedge or two faces."""
    length, radius = rng.uniform(0.9, 1.5), rng.uniform(0.03, 0.06)
    face, reach = rng.uniform(0.06, 0.12), rng.uniform(0.14, 0.3)
    parts = [_grip(rng, -length, 0.05, radius)]
    block = rng.uniform(0.05, 0.09)
    parts.append(box((2 * block, 2 * block, 2 * block), (0, 0, 0)))
    square = rng.random() < 0.3
    striker = cylinder(face * (1.3 if square else 1.0), 0.02, reach, segments=4 if square else 20)
    parts.append(striker)
    back = int(rng.random() * 4)
    if back == 0:
        tip = reach * rng.uniform(0.9, 1.3)
        path = np.zeros((8, 3))
        share = np.linspace(0, 1, 8)
        path[:, 2], path[:, 0] = -tip * share, -rng.uniform(0.2, 0.5) * tip * share**2
        thick = np.linspace(0.45, 0.12, 8) * block
        for side in (-1, 1):
            path[:, 1] = side * (0.35 + 0.35 * share) * block
            parts.append(tube(path, thick, 6))
    elif back == 1:
        parts.append(sphere(face * rng.uniform(0.7, 1.0), (0, 0, -0.8 * reach)))
        parts.append(cylinder(0.6 * block, -0.8 * reach, 0.0))
    elif back == 2:
        edge = 1.2 * reach
        sides = [(0, block), (edge, block)], [(0, -block), (edge, -block)]
        wedge = plate(*sides, np.array([2 * block, 0.02]))
        parts.append(turn(wedge, "y", np.pi / 2))
    else:
        parts.append(mirror(striker, "z"))
    return merge(*parts)


def screwdriver(rng: np.random.Generator) -> Part:
    """A thick grip, a thin shank, a flat or pointed tip."""
    grip, shank = rng.uniform(0.4, 0.7), rng.uniform(0.3, 1.1)
    radius, thin = rng.uniform(0.08, 0.14), rng.uniform(0.02, 0.035)
    parts = [_grip(rng, -grip, 0.0, radius)]
    parts.append(turn(cylinder(thin, -0.05, shank), "y", np.pi / 2))
    if rng.random() < 0.4:
        parts.append(sphere((0.5 * radius, radius, radius), (-grip, 0, 0)))
    if rng.random() < 0.4:
        collar = cylinder(radius * rng.uniform(0.6, 0.9), -0.02, rng.uniform(0.04, 0.12), 2 * thin)
        parts.append(turn(collar, "y", np.pi / 2))
    tip = rng.uniform(0.08, 0.14)
    if rng.random() < 0.5:
        wide = thin * rng.uniform(1.3, 2.2)
        blade = plate(
            [(0, thin), (0.5 * tip, wide), (tip, wide)],
            [(0, -thin), (0.5 * tip, -wide), (tip, -wide)],
            np.array([1.6 * thin, thin, 0.4 * thin]),
        )
        parts.append(move(blade, x=shank))
    else:
        parts.append(move(turn(cylinder(thin, 0, tip, 0.0), "y", np.pi / 2), x=shank))
    return merge(*parts)


def spoon(rng: np.random.Generator) -> Part:
    """A hollow oval at the end of a flat or round stem, as deep as a ladle's."""
    long, wide = rng.uniform(0.2, 0.34), rng.uniform(0.13, 0.24)
    deep, wall = rng.uniform(0.06, 0.2), 0.012
    angle = np.linspace(0, np.pi / 2, 10)
    outer = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    inner = outer[::-1] * np.array([0.94, 0.85])
    hollow = stretch(lathe(np.concatenate([outer, inner]), 28), long, wide, deep)
    stem, lift = rng.uniform(0.7, 1.3), rng.uniform(-0.05, 0.45)
    share = np.linspace(0, 1, 12)
    path = np.zeros((12, 3))
    path[:, 0] = -0.95 * long - stem * share
    path[:, 2] = lift * share ** rng.uniform(0.7, 2.0) - wall
    swell = 1 + rng.uniform(0.0, 1.2) * share**3
    if rng.random() < 0.5:
        handle = tube(path, rng.uniform(0.016, 0.03) * swell, 8)
    else:
        half = rng.uniform(0.025, 0.045) * swell
        outline = path[:, :2]
        side = np.stack([np.zeros(12), half], axis=1)
        # The way runs towards -x, so that its left is -y.
        handle = plate(outline - side, outline + side, 0.02)
        handle[0][:, 2] += np.repeat(path[:, 2], 4)
    return merge(hollow, handle)


def _jaw(rng: np.random.Generator, radius: float, thick: float) -> Part:
    """An open end: a crescent whose mouth looks along +x."""
    mouth = rng.uniform(0.45, 0.8)
    angle = np.linspace(mouth, 2 * np.pi - mouth, 20)
    outer = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner = radius * rng.uniform(0.45, 0.6) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return turn(plate(inner, outer, thick), "z", rng.uniform(-0.35, 0.35))


def _eye(rng: np.random.Generator, radius: float, thick: float) -> Part:
    """A ring end: a short pipe, round or hexagonal outside."""
    inner, half = radius * rng.uniform(0.5, 0.7), thick / 2
    profile = [(inner, -half), (radius, -half), (radius, half), (inner, half), (inner, -half)]
    return lathe(profile, 24 if rng.random() < 0.6 else 6)


def wrench(rng: np.random.Generator) -> Part:
    """A flat bar with an open jaw at one end, and a jaw, a ring or nothing at the other."""
    length, thick = rng.uniform(0.9, 1.5), rng.uniform(0.04, 0.09)
    width, radius = rng.uniform(0.04, 0.08), rng.uniform(0.13, 0.2)
    parts = [box((length, 2 * width, thick * rng.uniform(0.5, 1.0)), (0, 0, 0))]
    parts.append(move(_jaw(rng, radius, thick), x=length / 2 + 0.8 * radius))
    other, second = rng.random(), radius * rng.uniform(0.75, 1.1)
    if other < 0.4:
        jaw = turn(_jaw(rng, second, thick), "z", np.pi)
        parts.append(move(jaw, x=-length / 2 - 0.8 * second))
    elif other < 0.75:
        parts.append(move(_eye(rng, second, thick), x=-length / 2 - 0.8 * second))
    else:
        parts.append(move(cylinder(width, -thick / 2, thick / 2), x=-length / 2))
    return merge(*parts)


def _wing(rng: np.random.Generator, span: float, chord: float, sweep: float) -> Part:
    """One wing towards +y, tapered and swept back."""
    taper = rng.uniform(0.3, 0.8)
    front = [(chord / 2, 0), (chord / 2 - sweep, span)]
    rear = [(-chord / 2, 0), (chord / 2 - sweep - taper * chord, span)]
    return plate(rear, front, np.array([0.12, 0.05]) * chord)


def airplane(rng: np.random.Generator) -> Part:
    """A fuselage, two wings, a tail; engines under the wings or a propeller."""
    length, radius = rng.uniform(1.6, 2.4), rng.uniform(0.09, 0.17)
    share = np.linspace(0, 1, 20)
    nose, tail = rng.uniform(0.08, 0.2), rng.uniform(0.2, 0.4)
    body = np.minimum(1, np.sqrt(share / nose)) * np.minimum(1, ((1 - share) / tail) ** 0.8)
    path = np.zeros((20, 3))
    path[:, 0] = length * (0.5 - share)
    parts = [tube(path, radius * np.maximum(body, 0.02), 16)]
    span, chord = rng.uniform(0.6, 1.2), rng.uniform(0.25, 0.5)
    sweep, level = rng.uniform(0.0, 0.6) * span, rng.uniform(-0.7, 0.9) * radius
    rise = rng.uniform(-0.05, 0.15)
    wing = move(turn(_wing(rng, span, chord, sweep), "x", rise), x=0.1, z=level)
    parts += [wing, mirror(wing, "y")]
    high = rng.random() < 0.3
    small, back = rng.uniform(0.3, 0.45), -0.5 * length + 0.15
    fin_height = rng.uniform(0.25, 0.45)
    fin = turn(_wing(rng, fin_height, 0.6 * chord, 0.5 * fin_height), "x", np.pi / 2)
    parts.append(move(fin, x=back))
    flat = move(_wing(rng, small * span, 0.5 * chord, 0.3 * sweep), x=back)
    flat = move(flat, z=0.9 * fin_height if high else 0.0, x=-0.4 * fin_height if high else 0.0)
    parts += [flat, mirror(flat, "y")]
    if rng.random() < 0.7:
        engines = 1 + int(rng.random() * 2)
        for i in range(engines):
            y = span * (0.35 + 0.3 * i)
            size = rng.uniform(0.05, 0.08)
            x = 0.1 + chord / 2 - sweep * y / span
            pod = turn(cylinder(size, -0.18, 0.18, 0.9 * size, 12), "y", np.pi / 2)
            pod = move(pod, x=x, y=y, z=level - 1.1 * size + y * rise)
            parts += [pod, mirror(pod, "y")]
    else:
        blade = box((0.02, 0.04, rng.uniform(0.5, 0.8)), (length / 2, 0, 0))
        parts += [blade, turn(blade, "x", np.pi / 2)]
    return merge(*parts)


def coil_right(rng: np.random.Generator) -> Part:
    """A right-handed spring."""
    turns, pitch = rng.uniform(2.0, 5.0), rng.uniform(0.25, 0.6)
    steps = int(16 * turns)
    angle = np.linspace(0, 2 * np.pi * turns, steps)
    size = np.linspace(1.0, rng.uniform(0.5, 1.0), steps) * rng.uniform(0.4, 0.8)
    path = np.stack([size * np.cos(angle), size * np.sin(angle), pitch * angle / (2 * np.pi)], 1)
    parts = [tube(path, rng.uniform(0.04, 0.09), 8)]
    if rng.random() < 0.4:
        end = arc(0.2, 0, 2 * np.pi * 11 / 12, 12)
        parts.append(move(tube(end, 0.04, 6, closed=True), z=path[-1, 2] + 0.2))
    return merge(*parts)


def coil_left(rng: np.random.Generator) -> Part:
    """A left-handed spring: mirror images of the right-handed ones."""
    return mirror(coil_right(rng), "x")

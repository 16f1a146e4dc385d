"""Parts that the parametric shapes are built of.

A part is a pair ``(vertices, faces)`` of NumPy arrays, float64 ``[V, 3]`` and
int64 ``[F, 3]``. Triangles run counter-clockwise seen from outside, so that
normals point outwards. z is up. Parts may overlap, as they do in real CAD
collections: nothing is cut away.

**Equivariance:** parts are made in a fixed frame and turned with :func:`turn`.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Part", "arc", "box", "cylinder", "lathe", "merge", "mirror", "move", "plate", "sphere"]
__all__ += ["stretch", "tube", "turn"]

Part = tuple[np.ndarray, np.ndarray]

_BOX_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX_FACES = np.array(
    [
        *[[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5]],  # x = -, x = +
        *[[0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]],  # y = -, y = +
        *[[0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]],  # z = -, z = +
    ]
)


def box(size: tuple[float, float, float], center: tuple[float, float, float]) -> Part:
    """A box with edges along the axes.

    Args:
        size: Lengths along x, y, z.
        center: Its middle.

    Returns:
        A part.
    """
    return _BOX_CORNERS * np.asarray(size) + np.asarray(center), _BOX_FACES


def _rings(rings: np.ndarray, closed: bool) -> np.ndarray:
    """Faces that join each ring of ``[n, k, 3]`` points with the next one."""
    n, k = rings.shape[:2]
    i = np.arange(n if closed else n - 1)[:, None]
    j = np.arange(k)[None, :]
    low, high = (i * k) % (n * k), ((i + 1) * k) % (n * k)
    a, b, c, d = low + j, low + (j + 1) % k, high + (j + 1) % k, high + j
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)


def lathe(profile: list[tuple[float, float]] | np.ndarray, segments: int = 24) -> Part:
    """A profile turned about the z axis.

    Args:
        profile: Radius and height of each corner, ``[n, 2]``. Outside lies to
            the right of the way along it: go up on the outside, down inside.
            Points on the axis (radius 0) close the surface.
        segments: Steps around the axis.

    Returns:
        A part.
    """
    profile = np.asarray(profile, dtype=float)
    angle = 2 * np.pi * np.arange(segments) / segments
    rings = np.empty((len(profile), segments, 3))
    rings[..., 0] = profile[:, :1] * np.cos(angle)
    rings[..., 1] = profile[:, :1] * np.sin(angle)
    rings[..., 2] = profile[:, 1:]
    return rings.reshape(-1, 3), _rings(rings, closed=False)


def cylinder(
    radius: float, low: float, high: float, top: float | None = None, segments: int = 20
) -> Part:
    """A closed cylinder, or a frustum or cone, about the z axis.

    Args:
        radius: Radius at the lower end.
        low: Height of the lower end.
        high: Height of the upper end.
        top: Radius at the upper end, by default the same; 0 makes a cone.
        segments: Steps around; 4 or 6 make a prism.

    Returns:
        A part.
    """
    top = radius if top is None else top
    return lathe([(0, low), (radius, low), (top, high), (0, high)], segments)


def sphere(radius: float | tuple[float, float, float], center: tuple[float, float, float]) -> Part:
    """A sphere, or an ellipsoid.

    Args:
        radius: One radius, or one an axis.
        center: Its middle.

    Returns:
        A part.
    """
    angle = np.linspace(-np.pi / 2, np.pi / 2, 13)
    vertices, faces = lathe(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return vertices * np.broadcast_to(radius, 3) + np.asarray(center), faces


def tube(
    path: np.ndarray | list[tuple[float, float, float]],
    radius: float | np.ndarray,
    segments: int = 10,
    closed: bool = False,
) -> Part:
    """A round tube along a path.

    Args:
        path: Points of the middle line, ``[n, 3]``.
        radius: One radius, or one a point, ``[n]``.
        segments: Steps around the tube.
        closed: Whether the last point leads back to the first (a torus);
            otherwise both ends are capped.

    Returns:
        A part.
    """
    path = np.asarray(path, dtype=float)
    radius = np.broadcast_to(radius, len(path)).astype(float)
    if closed:
        tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    else:
        tangent = np.gradient(path, axis=0)
        # A cap is one more ring of radius zero at each end.
        path = np.concatenate([path[:1], path, path[-1:]])
        radius = np.concatenate([[0.0], radius, [0.0]])
        tangent = np.concatenate([tangent[:1], tangent, tangent[-1:]])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # The axis that the path uses least, which no tangent of the straight, planar and helical paths
    # used here is parallel to; the first of those that rounding tells apart.
    reference = np.eye(3)[np.square(tangent).sum(0).round(9).argmin()]
    side = np.cross(tangent, reference)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(tangent, side)
    angle = 2 * np.pi * (np.arange(segments) + 0.5) / segments  # a square stands on a side
    around = np.cos(angle)[:, None] * side[:, None] + np.sin(angle)[:, None] * up[:, None]
    rings = path[:, None] + radius[:, None, None] * around
    return rings.reshape(-1, 3), _rings(rings, closed)


def arc(radius: float, start: float, end: float, steps: int = 12) -> np.ndarray:
    """Points on a circle about the origin, in the xz plane.

    Args:
        radius: Its radius.
        start: First angle from x towards z, in radians.
        end: Last angle.
        steps: Number of points.

    Returns:
        Points, ``[steps, 3]``.
    """
    angle = np.linspace(start, end, steps)
    return radius * np.stack([np.cos(angle), np.zeros(steps), np.sin(angle)], axis=1)


def plate(left: np.ndarray, right: np.ndarray, thickness: float | np.ndarray) -> Part:
    """A flat plate in the xy plane between two polylines of as many points.

    Args:
        left: Outline on the left of the way along it, ``[n, 2]``.
        right: Outline on the right, ``[n, 2]``.
        thickness: Extent in z, one number or one a point ``[n]``.

    Returns:
        A part.
    """
    left, right = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    half = np.broadcast_to(thickness, len(left)).astype(float)[:, None] / 2
    # Around each cross-section: seen along the way, counter-clockwise from
    # behind means right, up, left, down.
    rings = np.stack(
        [
            np.concatenate([right, -half], 1),
            np.concatenate([left, -half], 1),
            np.concatenate([left, half], 1),
            np.concatenate([right, half], 1),
        ],
        axis=1,
    )
    sides = _rings(rings, closed=False)
    last = 4 * (len(left) - 1)
    caps = np.array([[0, 2, 1], [0, 3, 2], [last, last + 1, last + 2], [last, last + 2, last + 3]])
    return rings.reshape(-1, 3), np.concatenate([sides, caps])


def merge(*parts: Part) -> Part:
    """Put parts together.

    Args:
        *parts: At least one part.

    Returns:
        One part.
    """
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    faces = [faces + offset for (_, faces), offset in zip(parts, offsets, strict=False)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)


def move(part: Part, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
    """Shift a part by ``(x, y, z)``."""
    return part[0] + np.array([x, y, z]), part[1]


def turn(part: Part, axis: str, angle: float) -> Part:
    """Turn a part about an axis through the origin.

    Args:
        part: The part.
        axis: ``"x"``, ``"y"`` or ``"z"``.
        angle: In radians, counter-clockwise seen from the tip of the axis.

    Returns:
        A part.
    """
    i = "zxy".index(axis)
    j = (i + 1) % 3
    vertices = part[0].copy()
    vertices[:, i] = np.cos(angle) * part[0][:, i] - np.sin(angle) * part[0][:, j]
    vertices[:, j] = np.sin(angle) * part[0][:, i] + np.cos(angle) * part[0][:, j]
    return vertices, part[1]


def stretch(part: Part, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Part:
    """Scale a part by positive factors along the axes."""
    return part[0] * np.array([x, y, z]), part[1]


def mirror(part: Part, axis: str) -> Part:
    """Mirror a part in the plane through the origin across an axis."""
    sign = np.where(np.arange(3) == "xyz".index(axis), -1.0, 1.0)
    # A reflection turns triangles over; reversing them turns them back.
    return part[0] * sign, part[1][:, ::-1]

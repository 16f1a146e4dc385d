"""What a picture shows, as plain arrays, and as Open3D geometries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pcequi.errors import ArgumentError, ShapeError
from pcequi.viz.arrays import finite_array

AXIS_COLORS = ((0.85, 0.10, 0.10), (0.10, 0.60, 0.15), (0.10, 0.25, 0.85))
# Distance of the centres of neighbouring clouds, in their largest radii.
SPACING = 2.05
_STICK = 0.15  # length of a frame's axes, in radii of the cloud
_SPHERE = 8  # resolution of Open3D's sphere: 224 triangles
# Of a cloud; with more, spheres are coarser, down to octahedra. Each takes about 200 bytes.
_MOST_TRIANGLES = 5_000_000
# Rotations that bring a vertical axis to z, which is up in pictures.
_TO_Z = {
    "x": np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "z": np.eye(3),
}
_FARTHEST = 1e30  # Open3D draws in single precision
_ROUNDING = 1e-6  # of colours
_ROW = 4  # clouds that stand side by side before there is a second row


@dataclass
class CloudPart:
    """One cloud of a picture.

    Attributes:
        pos: [N, 3].
        color: [N, 3] in [0, 1]; [3] for all points.
        size: radius of each point's sphere [N], in the units of ``pos``; a
            number for all. None: chosen by the number of points.
        frame_pos: position of each drawn frame [F, 3].
        frame_rot: columns are its axes, drawn red, green, blue [F, 3, 3].
        title: written below the cloud.

    All of them may be NumPy arrays or tensors, which become arrays in float64.

    Raises:
        ArgumentError: a colour outside [0, 1], a negative size, or places too far out to be drawn.
        DataError: NaN or infinite numbers.
        ShapeError: an array has another shape.

    **Equivariance:** does not apply: it holds what it is given.
    """

    pos: np.ndarray
    color: np.ndarray
    size: np.ndarray | float | None = None
    frame_pos: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    frame_rot: np.ndarray = field(default_factory=lambda: np.zeros((0, 3, 3)))
    title: str = ""

    def __post_init__(self):
        for name in ("pos", "color", "frame_pos", "frame_rot"):
            setattr(self, name, finite_array(name, getattr(self, name)))
        if self.pos.ndim != 2 or self.pos.shape[1] != 3 or len(self.pos) == 0:
            raise ShapeError(f"`pos` (={list(self.pos.shape)}) must be [N, 3], at least one point")
        far = float(np.abs(self.pos).max())
        if far > _FARTHEST:
            raise ArgumentError(f"`pos` (up to {far:.2g}) must be within {_FARTHEST:.0e}: scale it")
        if self.color.shape == (3,):
            self.color = np.tile(self.color, (len(self.pos), 1))
        size = (
            self.size_for(len(self.pos)) if self.size is None else finite_array("size", self.size)
        )
        if np.shape(size) not in ((), (1,), (len(self.pos),)):
            raise ShapeError(
                f"`size` (={list(size.shape)}) must be a number, or one for each of the "
                f"{len(self.pos)} points"
            )
        if np.min(size) < 0:
            raise ArgumentError(f"`size` (={np.min(size):g}) must not be negative")
        self.size = np.broadcast_to(size, len(self.pos)).copy()
        frames = len(self.frame_pos)
        wanted = {"color": self.pos.shape, "frame_pos": (frames, 3), "frame_rot": (frames, 3, 3)}
        for name, shape in wanted.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ShapeError(f"`{name}` (={list(found)}) must be {list(shape)}")
        low, high = float(self.color.min()), float(self.color.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            remedy = "divide by 255" if 0 <= low and high <= 255 else "bring them into that range"
            raise ArgumentError(f"`color` ({low:g} to {high:g}) must be from 0 to 1: {remedy}")
        self.color = self.color.clip(0, 1)

    @property
    def center(self) -> np.ndarray:
        """Middle of the points [3], about which the cloud turns."""
        return self.pos.mean(0)

    @property
    def radius(self) -> float:
        """Of the sphere about ``center`` that holds all points; 1 for a single place."""
        radius = float(np.linalg.norm(self.pos - self.center, axis=1).max())
        # The mean of equal points is theirs to rounding alone.
        return radius if radius > 1e-12 * float(np.abs(self.pos).max()) else 1.0

    @property
    def reach(self) -> float:
        """Radius of the sphere about ``center`` that holds all that is drawn.

        No less than ``radius``: a single place is a small ball, not a full picture.
        """
        points = np.linalg.norm(self.pos - self.center, axis=1) + self.size
        frames = np.linalg.norm(self.frame_pos - self.center, axis=1) + _STICK * self.radius
        return float(max(self.radius, points.max(), frames.max(initial=0.0)))

    def standing(self, up: str) -> CloudPart:
        """The cloud turned so that its axis ``up`` ("x", "y" or "z") is up in pictures.

        Raises:
            ArgumentError: there is no such axis.
        """
        check_up(up)
        turn = _TO_Z[up]
        moved = {"pos": self.pos @ turn.T, "frame_pos": self.frame_pos @ turn.T}
        return replace(self, **moved, frame_rot=turn @ self.frame_rot)

    def size_for(self, num: int) -> float:
        """Radius of ``num`` spheres that about cover a surface of this size."""
        return self.radius * min(0.05, 0.65 / np.sqrt(num))


@dataclass
class Scene:
    """Clouds side by side, in rows where they are more than four.

    Attributes:
        parts: at least one.
        legend: written below them all.
        scale: ends of a colour scale, as text; ("", "") for none.
        colormap: the scale's, by matplotlib's name.

    Raises:
        ArgumentError: no part.

    **Equivariance:** does not apply.
    """

    parts: Sequence[CloudPart]
    legend: str = ""
    scale: tuple[str, str] = ("", "")
    colormap: str = "viridis"

    def __post_init__(self):
        if not self.parts:
            raise ArgumentError("`parts` (=[]) must hold at least one cloud")

    @property
    def radius(self) -> float:
        """Largest reach of a part."""
        return max(part.reach for part in self.parts)

    @property
    def columns(self) -> int:
        """Clouds in a row."""
        num = len(self.parts)
        rows = math.ceil(num / max(_ROW, math.ceil(math.sqrt(1.5 * num))))
        return math.ceil(num / rows)

    @property
    def rows(self) -> int:
        """Rows of clouds; the last may be shorter."""
        return math.ceil(len(self.parts) / self.columns)

    def save(self, path: str | Path) -> None:
        """Write the arrays that ``load`` needs to draw, as ``.npz``."""
        arrays = {
            f"{name}{number}": getattr(part, name)
            for number, part in enumerate(self.parts)
            for name in ("pos", "color", "size", "frame_pos", "frame_rot")
        }
        np.savez(path, num=len(self.parts), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Scene:
        """The parts that ``save`` wrote, without texts."""
        names = ("pos", "color", "size", "frame_pos", "frame_rot")
        with np.load(path, allow_pickle=False) as file:
            return cls(
                [
                    CloudPart(**{name: file[f"{name}{number}"] for name in names})
                    for number in range(int(file["num"]))
                ]
            )

    def offsets(self, right: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Where the parts' centres go in one space: rows along ``right`` [3], the first
        of them highest along ``up`` [3] -> [parts, 3]."""
        row, column = np.divmod(np.arange(len(self.parts)), self.columns)
        aside = (column - (self.columns - 1) / 2)[:, None] * np.asarray(right)
        above = ((self.rows - 1) / 2 - row)[:, None] * np.asarray(up)
        return SPACING * self.radius * (aside + above)


def check_up(up: str) -> None:
    """Whether there is such an axis.

    Raises:
        ArgumentError: there is none.

    **Equivariance:** does not apply.
    """
    if up not in _TO_Z:
        raise ArgumentError(f"`up` (={up!r}) must be one of {', '.join(_TO_Z)}")


def sphere_resolution(num: int) -> int:
    """How finely Open3D is to draw each of ``num`` spheres: 4 r (r - 1) triangles.

    **Equivariance:** does not apply.
    """
    fine = range(_SPHERE, 2, -1)
    return next((r for r in fine if 4 * r * (r - 1) * num <= _MOST_TRIANGLES), 2)


def part_geometry(part: CloudPart, offset: np.ndarray):
    """An Open3D ``TriangleMesh`` of a cloud: a sphere a point, three sticks a frame.

    Args:
        part: the cloud.
        offset: where its centre goes [3].

    **Equivariance:** turns with the cloud.
    """
    import open3d as o3d

    ball = o3d.geometry.TriangleMesh.create_sphere(1.0, sphere_resolution(len(part.pos)))
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.triangles)
    where = part.pos - part.center + offset
    count = len(where)
    shapes = [
        (
            where[:, None] + part.size[:, None, None] * vertices,
            np.tile(vertices, (count, 1, 1)),
            part.color,
            faces,
        )
    ]
    if len(part.frame_pos):
        shapes += _sticks(part, offset)
    points, normals, colors, triangles, first = [], [], [], [], 0
    for position, normal, color, face in shapes:
        copies, corners = position.shape[:2]
        points.append(position.reshape(-1, 3))
        normals.append(normal.reshape(-1, 3))
        colors.append(np.repeat(color, corners, axis=0))
        start = first + corners * np.arange(copies)[:, None, None]
        triangles.append((face + start).reshape(-1, 3))
        first += copies * corners
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.concatenate(points)),
        o3d.utility.Vector3iVector(np.concatenate(triangles).astype(np.int32)),
    )
    mesh.vertex_normals = o3d.utility.Vector3dVector(np.concatenate(normals))
    mesh.vertex_colors = o3d.utility.Vector3dVector(np.concatenate(colors))
    return mesh


def _sticks(part: CloudPart, offset: np.ndarray) -> list[tuple]:
    """Cylinders along the axes of the frames, as in ``part_geometry``."""
    import open3d as o3d

    length, width = _STICK * part.radius, 0.012 * part.radius
    stick = o3d.geometry.TriangleMesh.create_cylinder(width, length, 8, 1)
    stick.compute_vertex_normals()
    # Open3D's cylinder lies about the z axis: from 0 to ``length`` here.
    vertices = np.asarray(stick.vertices) + [0, 0, length / 2]
    normals, faces = np.asarray(stick.vertex_normals), np.asarray(stick.triangles)
    where = part.frame_pos - part.center + offset
    result = []
    for axis, color in enumerate(AXIS_COLORS):
        # Columns y, z, x for the x axis and so on: any frame whose third is the axis.
        turn = part.frame_rot[:, :, [(axis + 1) % 3, (axis + 2) % 3, axis]]
        result.append(
            (
                where[:, None] + vertices @ turn.swapaxes(1, 2),
                normals @ turn.swapaxes(1, 2),
                np.tile(color, (len(where), 1)),
                faces,
            )
        )
    return result

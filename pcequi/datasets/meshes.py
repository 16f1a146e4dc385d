"""Triangle meshes: reading OFF, sampling by area, normalising clouds.

NumPy arrays inside the data sets; tensors appear where a ``Data`` is made.
"""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from pcequi.errors import DataError, FileError

__all__ = [
    "check_finite",
    "cut_fan",
    "cut_strip",
    "normalize_cloud",
    "parse_off",
    "read_off",
    "sample_mesh",
]

# OFF, and its variants whose vertex lines carry more columns after x, y, z
# (COFF colours, NOFF normals, STOFF texture). 4OFF and nOFF are other spaces.
# Comments may stand above.
_HEADER = re.compile(
    rb"\s*(?:#[^\r\n]*[\r\n]\s*)*(?:ST)?C?N?OFF(?P<binary>\s+BINARY)?", re.IGNORECASE
)


def parse_off(content: bytes, name: str = "content") -> tuple[np.ndarray, np.ndarray]:
    """Read the text of an OFF file (Geomview's Object File Format).

    Both forms of ModelNet are understood: ``OFF`` on a line of its own, and run
    together with the counts (``OFF490 518 0``). Comments, blank lines, colours
    after a face, and extra columns of a vertex are skipped; polygons are cut
    into triangles as fans.

    Args:
        content: The bytes of the file.
        name: What to call it in errors.

    Returns:
        Vertices, float64 ``[V, 3]``, and triangles, int64 ``[F, 3]``.

    Raises:
        FileError: The content is not OFF, is cut short, or is inconsistent.

    **Equivariance:** does not apply.
    """

    def damaged(reason: str) -> FileError:
        return FileError(
            f"`{name}` is not a usable OFF file: {reason}. Download or export the file again"
        )

    content = content.removeprefix(codecs.BOM_UTF8)
    header = _HEADER.match(content)
    if header is None:
        raise damaged("it does not start with OFF")
    if header["binary"]:
        raise damaged("it is a binary OFF, and only text is read")
    body = content[header.end() :]
    if b"#" in body:
        body = re.sub(rb"#[^\n]*", b"", body)
    lines = [line for line in body.splitlines() if line and not line.isspace()]
    try:
        num_vertices, num_faces = (int(word) for word in lines[0].split()[:2])
    except (IndexError, ValueError):
        raise damaged("the numbers of vertices and faces are missing") from None
    if num_vertices < 1 or num_faces < 0:
        raise damaged(f"it announces {num_vertices} vertices and {num_faces} faces")
    if len(lines) < 1 + num_vertices + num_faces:
        raise damaged(
            f"it announces {num_vertices} vertices and {num_faces} faces, "
            f"and holds {len(lines) - 1} lines"
        )
    try:
        vertices = _vertices(lines[1 : 1 + num_vertices])
        faces = _faces(lines[1 + num_vertices : 1 + num_vertices + num_faces])
    except (ValueError, IndexError, OverflowError):
        raise damaged("a line of a vertex or a face cannot be read as numbers") from None
    if not np.isfinite(vertices).all():
        raise damaged("a vertex is NaN or infinite")
    if faces.size and (faces.min() < 0 or faces.max() >= num_vertices):
        raise damaged(f"a face refers to a vertex outside 0 ... {num_vertices - 1}")
    return vertices, faces


def _numbers(lines: list[bytes], dtype: type) -> np.ndarray:
    # Three times as fast as converting words: 0.3 s for a mesh of 200,000 faces.
    with warnings.catch_warnings():
        # At a word that is no number NumPy stops and only warns.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(b" ".join(lines), dtype=dtype, sep=" ")
        except DeprecationWarning as error:
            raise ValueError(str(error)) from error


def _vertices(lines: list[bytes]) -> np.ndarray:
    columns = len(lines[0].split())
    if columns < 3:
        raise ValueError("a vertex has fewer than three columns")
    if any(len(line.split()) != columns for line in lines):
        raise ValueError("vertices have different numbers of columns")
    return _numbers(lines, np.float64).reshape(len(lines), columns)[:, :3].copy()


def _faces(lines: list[bytes]) -> np.ndarray:
    if not lines:
        return np.zeros((0, 3), dtype=np.int64)
    if len(lines[0].split()) == 4:
        with suppress(ValueError):  # colours after a later face, say
            table = _numbers(lines, np.int64)
            if table.size == 4 * len(lines) and (table[::4] == 3).all():
                return table.reshape(-1, 4)[:, 1:].copy()
    words = [line.split() for line in lines]
    triangles = []
    for word in words:
        count = int(word[0])
        corners = [int(corner) for corner in word[1 : 1 + count]]
        if len(corners) != count:
            raise ValueError("a face has fewer corners than it announces")
        triangles += cut_fan(corners)
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def cut_fan(corners: Sequence[int]) -> list[tuple[int, int, int]]:
    """The triangles of a polygon that meet in its first corner; none of fewer than three.

    **Equivariance:** does not apply.
    """
    return [(corners[0], *corners[i : i + 2]) for i in range(1, len(corners) - 1)]


def cut_strip(corners: np.ndarray) -> np.ndarray:
    """The triangles of a strip, int64 ``[F, 3]``: each three corners in a row, every other one
    turned back to face as the first; after -1 a new strip begins.

    **Equivariance:** does not apply.
    """
    corners = np.asarray(corners).astype(np.int64)
    place = np.arange(len(corners))
    begins = np.maximum.accumulate(np.where(corners == -1, place + 1, 0)) if len(corners) else place
    triangles = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    odd = (place - begins)[: len(triangles)] % 2 == 1
    triangles[odd] = triangles[odd][:, [1, 0, 2]]
    return triangles[(triangles != -1).all(axis=1)]


def read_off(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an OFF file; see :func:`parse_off`.

    Args:
        path: The file.

    Returns:
        Vertices, float64 ``[V, 3]``, and triangles, int64 ``[F, 3]``.

    Raises:
        FileError: The file is missing or damaged.

    **Equivariance:** does not apply.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"`path` (={str(path)!r}) cannot be read: {error.strerror}") from error
    return parse_off(content, name=str(path))


def sample_mesh(
    vertices: np.ndarray, faces: np.ndarray, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points from the surface of a mesh, independently and by area.

    A mesh without area (no faces, or all of them degenerate) is sampled at its
    vertices, with zero normals.

    Args:
        vertices: Corners, ``[V, 3]``.
        faces: Triangles, ``[F, 3]``.
        num: Number of points.
        rng: Source of randomness.

    Returns:
        Points, float64 ``[num, 3]``, and the unit normals of their triangles,
        float64 ``[num, 3]``.

    **Equivariance:** points and normals turn with the vertices; the draw
    depends on areas alone.
    """
    corners = in_range(vertices)[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1)
    total = np.cumsum(length)
    if not len(faces) or not total[-1] > 0:
        return vertices[(rng.random(num) * len(vertices)).astype(np.int64)], np.zeros((num, 3))
    face = np.searchsorted(total, rng.random(num) * total[-1], side="right")
    face = np.minimum(face, len(faces) - 1)
    # The square root makes the draw uniform: Osada et al., "Shape
    # Distributions", ACM TOG 2002, equation 1.
    root, along = np.sqrt(rng.random((num, 1))), rng.random((num, 1))
    a, b, c = vertices[faces[face]].transpose(1, 0, 2)
    points = (1 - root) * a + root * (1 - along) * b + root * along * c
    return points, cross[face] / np.maximum(length[face], np.finfo(float).tiny)[:, None]


def in_range(points: np.ndarray) -> np.ndarray:
    """The points, divided by their largest coordinate where it is so large or small
    that squares of squares would leave float64.

    **Equivariance:** a scale.
    """
    scale = np.abs(points).max(initial=0.0)
    return points if scale == 0 or 1e-70 < scale < 1e70 else points / scale


def check_finite(points: np.ndarray, name: str, remedy: str = "remove them") -> None:
    """Check that no coordinate is NaN or infinite.

    Args:
        points: Points, ``[N, 3]``.
        name: What to call them in the error.
        remedy: What to do, for the error.

    Raises:
        DataError: one is; the message says how many points.

    **Equivariance:** does not apply.
    """
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad:
        raise DataError(
            f"`{name}` has {bad} of {len(points)} points with NaN or infinite coordinates: {remedy}"
        )


def normalize_cloud(points: np.ndarray, name: str = "points") -> np.ndarray:
    """Move a cloud to zero mean and scale its farthest point to distance one.

    Args:
        points: Points, ``[N, 3]``.
        name: What to call the cloud in errors.

    Returns:
        Points, float64 ``[N, 3]``. A cloud without extent ends at the origin.

    Raises:
        DataError: The cloud is empty, or has NaN or infinite coordinates.

    **Equivariance:** turns with the points; invariant to translation and scale.
    """
    points = np.asarray(points, dtype=np.float64)
    if not len(points):
        raise DataError(f"`{name}` is empty: a cloud needs at least one point")
    check_finite(points, name)
    if (points == points[0]).all():
        # The mean of equal numbers can miss them by rounding, which the
        # division below would blow up to a cloud of noise.
        return np.zeros_like(points)
    points = in_range(points)
    points = in_range(points - points.mean(axis=0))
    radius = np.sqrt((points**2).sum(axis=1).max())
    return points / radius

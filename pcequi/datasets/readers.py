"""One cloud from one file: meshes are sampled, clouds are read."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from pcequi.datasets.archives import brief, check_unpacked
from pcequi.datasets.mending import mend_obj, mend_stl
from pcequi.datasets.meshes import check_finite, normalize_cloud, read_off, sample_mesh
from pcequi.datasets.pcd import read_pcd
from pcequi.datasets.ply_headers import mend_ply
from pcequi.datasets.ply_polygons import read_polygons
from pcequi.datasets.text_clouds import read_text
from pcequi.errors import DataError, FileError, check_count
from pcequi.files import check_reach, expanded, may_read

__all__ = ["ENDINGS", "READABLE", "read_points"]

_MESHES = (".off", ".obj", ".ply", ".stl", ".glb")
_CLOUDS = (".pcd", ".xyz", ".txt", ".npy", ".npz")
# Further endings of text, and whether columns 4 to 6 may be normals: those of the other two are
# colours, perhaps after an intensity.
_TEXTS = {".csv": True, ".xyzn": True, ".xyzrgb": False, ".pts": False}

# Names of the points in an archive, and what to do where they are not found.
_POSITIONS = ("pos", "points", "xyz")
_SAVE = "save the points of one cloud as one table, x y z in its first columns"

# For clouds of depth cameras.
_NO_RETURNS = (
    "if they are places without a return, leave them out, `points[np.isfinite(points[:, :3])"
    ".all(axis=1)]` in NumPy, or save the cloud as .pcd, where they mean that"
)

# More columns than points have; where there are no more rows than this, rows are columns.
_WIDE, _FEW = 64, 16


class _Layout(ValueError):
    """A file that is whole, and holds no cloud."""


#: Endings of the files that :func:`read_points` understands, one for each way of reading.
READABLE = _MESHES + _CLOUDS

#: All of them: text has several.
ENDINGS = (*READABLE, *_TEXTS)


def read_points(
    path: str | Path,
    num_points: int = 1024,
    seed: int = 0,
    *,
    normalize: bool = True,
    with_normals: bool = False,
) -> Data:
    """Read a mesh or a cloud from a file.

    A mesh (``.off .obj .ply .stl .glb``) is sampled by area. A cloud (``.pcd .npy
    .npz``, text as ``.xyz .txt .csv .pts .xyzn .xyzrgb``, or a mesh format without
    faces) is thinned at random where it has more than ``num_points``, and kept
    whole where it has fewer. Columns 1 to 3 are coordinates, and 4 to 6, where they
    are asked for, normals (in ``.pts`` and ``.xyzrgb``, colours, which are left out);
    names above the columns may say otherwise, see ``text_clouds.read_text``. An
    ``.npz`` holds them as ``pos`` (or ``points``, ``xyz``, or its only array) and
    ``normal``, a ``.npy`` of records in its fields ``x``, ``y``, ``z``, a ``.pcd``
    has normals in the fields ``normal_x`` ..., a ``.ply`` in ``nx`` ...

    A point with NaN or infinite coordinates stands in a ``.pcd`` for a place where
    the scanner saw nothing, and is left out, as the format has it. In every other
    format it is an error: there it is as likely a slip, which would go unnoticed.

    Args:
        path: The file.
        num_points: Points to sample from a mesh; the most to keep of a cloud.
        seed: Decides the sample.
        normalize: Whether to move to zero mean and scale to unit radius, as the
            data sets are.
        with_normals: Whether to read normals (those of the faces for a mesh).

    Returns:
        ``Data`` with ``pos`` float32 ``[N, 3]`` and, where asked for, ``normal``
        float32 ``[N, 3]``.

    Raises:
        ArgumentError: ``num_points`` is below 1 or the seed is negative.
        FileError: The file is missing, may not be read, is damaged, a device, or of an unknown
            format.
        DataError: It has no points, NaN or infinite coordinates (but in a ``.pcd``),
            or lacks the normals that are asked for.

    **Equivariance:** points and normals are those of the file: they turn with it.
    """
    check_count("num_points", num_points)
    rng = np.random.default_rng(check_count("seed", seed, least=0))
    path = expanded(path)
    ending = path.suffix.lower()
    _check_place(path)
    if ending not in ENDINGS:
        raise FileError(
            f"`path` (={str(path)!r}) is of an unknown format: it must end in {' '.join(ENDINGS)}"
        )
    # All points are checked, so that it does not depend on the draw whether a bad one is met.
    if ending in _MESHES:
        vertices, faces, given = (*read_off(path), None) if ending == ".off" else _load_mesh(path)
        check_finite(vertices, str(path), "repair the mesh" if len(faces) else _NO_RETURNS)
        if len(faces):
            points, normals = sample_mesh(vertices, faces, num_points, rng)
        else:
            points, normals = _thin(vertices, given, num_points, rng)
    else:
        table = _LOADERS[ending](path)
        check_finite(table[:, :3], str(path), _NO_RETURNS)
        normals = table[:, 3:6] if table.shape[1] >= 6 and _TEXTS.get(ending, True) else None
        points, normals = _thin(table[:, :3], normals, num_points, rng)
    if with_normals:
        normals = _check_normals(normals, path)
    checked = normalize_cloud(points, name=str(path))
    if not normalize and np.abs(points).max() > np.finfo(np.float32).max:
        raise DataError(
            f"`normalize` (=False), and `{path}` has coordinates that float32 cannot hold: pass "
            "normalize=True"
        )
    data = Data(pos=torch.from_numpy((checked if normalize else points).astype(np.float32)))
    if with_normals:
        data.normal = torch.from_numpy(normals.astype(np.float32))
    return data


def _check_place(path: Path) -> None:
    """Whether a file is there that may be read, and comes to an end."""
    check_reach(path)
    if not os.path.exists(path):
        raise FileError(f"`path` (={str(path)!r}) does not exist: check the path")
    if not may_read(path):
        raise FileError(
            f"`path` (={str(path)!r}) cannot be read (Permission denied): check its permissions"
        )
    if os.path.isdir(path):
        raise FileError(f"`path` (={str(path)!r}) is a folder: name files, as {path}/*")
    kind = os.stat(path).st_mode
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):  # such as /dev/zero, which has no end
        raise FileError(f"`path` (={str(path)!r}) is a device, not a file: name a file")


def _damaged(path: Path, reason: object) -> FileError:
    return FileError(
        f"`path` (={str(path)!r}) is damaged or empty ({brief(reason)}): export it again"
    )


def _thin(
    points: np.ndarray, normals: np.ndarray | None, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    if len(points) <= num:
        return points, normals
    kept = rng.permutation(len(points))[:num]
    return points[kept], None if normals is None else normals[kept]


def _check_normals(normals: np.ndarray | None, path: Path) -> np.ndarray:
    if normals is None:
        raise DataError(
            f"`with_normals` (=True), and `{path}` has no normals: pass with_normals=False"
        )
    with np.errstate(over="ignore"):
        length = np.linalg.norm(normals, axis=1, keepdims=True)
    # Within a tenth: text files round, but colours and curvatures are far off.
    if not (np.abs(length - 1) < 0.1).all():
        raise DataError(
            f"`with_normals` (=True), and the normals of `{path}` (columns 4 to 6) are not unit "
            "vectors: "
            "pass with_normals=False"
        )
    return normals / length


# What trimesh would misread in silence is put right, or refused, before it reads.
_MENDED: dict[str, Callable[[Path], bytes | None]] = {
    ".obj": mend_obj,
    ".ply": mend_ply,
    ".stl": mend_stl,
}


def _load_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    # Imported here: it takes a third of a second that no other reader needs.
    import trimesh

    # As they stand: what trimesh would repair or drop in silence is checked here.
    options, ending = {"process": False}, path.suffix.lower()
    if ending in (".obj", ".ply", ".glb"):
        # Materials name further files, which are not to be opened.
        options["skip_materials"] = True
    vertices, faces, offset = [], [], 0
    try:
        if ending == ".ply" and (polygons := read_polygons(path)) is not None:
            _check_corners(polygons[1], len(polygons[0]))
            return polygons
        mended = _MENDED[ending](path) if ending in _MENDED else None
        # Opened here: trimesh cannot where a name is no text in UTF-8.
        opened = io.BytesIO(path.read_bytes() if mended is None else mended)
        parts = trimesh.load_scene(opened, file_type=ending[1:], **options).dump()
        for part in parts:
            points = getattr(part, "vertices", None)
            if points is None or not len(points):
                continue
            points = np.asarray(points, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 3:
                raise ValueError(f"its points have the shape {list(points.shape)}")
            vertices.append(points)
            if isinstance(part, trimesh.Trimesh):
                corners = np.asarray(part.faces, dtype=np.int64).reshape(-1, 3)
                _check_corners(corners, len(points))
                faces.append(corners + offset)
            offset += len(points)
        normals = _ply_normals(parts[0]) if len(parts) == 1 else None
    except Exception as error:  # each of trimesh's formats fails in its own way
        raise _damaged(path, error) from error
    if not vertices:
        raise _damaged(path, "it holds no points")
    none = np.zeros((0, 3), dtype=np.int64)
    return np.concatenate(vertices), np.concatenate(faces or [none]), normals


def _check_corners(faces: np.ndarray, number: int) -> None:
    if faces.size and not 0 <= faces.min() <= faces.max() < number:
        raise ValueError(f"a face refers to a vertex outside 0 ... {number - 1}")


def _ply_normals(part) -> np.ndarray | None:
    # trimesh keeps the normals of a mesh, and those of a cloud among its raw columns alone.
    columns = part.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    try:
        normals = np.stack([np.ravel(columns[name]) for name in ("nx", "ny", "nz")], axis=1)
    except (LookupError, ValueError, TypeError):
        return None
    return normals.astype(np.float64) if len(normals) == len(part.vertices) else None


def _load_text(path: Path) -> np.ndarray:
    try:
        table = read_text(path)
    except (OSError, ValueError, MemoryError) as error:
        raise FileError(
            f"`path` (={str(path)!r}) cannot be read as a cloud ({brief(error)}): each line must "
            "hold x y z, separated by spaces, commas or semicolons"
        ) from error
    return _check_table(table, path)


def _load_binary(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() == ".npz":
            table = _load_npz(path)
        else:
            # Mapped: what a header announces is compared with the file, not allocated.
            table = _numbers(np.load(path, mmap_mode="r", allow_pickle=False))
    except _Layout as error:
        raise FileError(f"`path` (={str(path)!r}) holds no cloud ({error}): {_SAVE}") from error
    except Exception as error:  # zipfile, zlib and NumPy each fail in their own way
        if isinstance(error, ValueError) and "object" in str(error).lower():
            raise FileError(
                f"`path` (={str(path)!r}) holds Python objects, which are not read, as they may "
                f"run code: {_SAVE}, `np.save(file, np.array(points, dtype=float))`"
            ) from error
        raise _damaged(path, error) from error
    return _check_table(table, path)


def _load_npz(path: Path) -> np.ndarray:
    check_unpacked(path)
    # Pickles run code: a file from elsewhere must not.
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        single = names[0] if len(names) == 1 else None
        name = next((name for name in _POSITIONS if name in names), single)
        if name is None:
            raise _Layout(f"of its arrays {names}, none is called {' or '.join(_POSITIONS)}")
        table = _numbers(archive[name])
        if "normal" in names and table.ndim == 2:
            table = np.concatenate([table[:, :3], _numbers(archive["normal"])], axis=1)
    return table


def _numbers(table: np.ndarray) -> np.ndarray:
    names = table.dtype.names
    if names and {"x", "y", "z"} <= set(names):
        return np.stack([_numbers(np.ravel(table[name])) for name in "xyz"], axis=1)
    if table.dtype.kind not in "fiub":
        raise _Layout(f"its type is {brief(table.dtype)}, not numbers")
    with np.errstate(over="ignore"):
        return table.astype(np.float64)


def _load_pcd(path: Path) -> np.ndarray:
    try:
        table = read_pcd(path)
    except (OSError, ValueError, LookupError, OverflowError, MemoryError) as error:
        raise _damaged(path, error) from error
    return _check_table(table, path)


def _check_table(table: np.ndarray, path: Path) -> np.ndarray:
    if table.size == 0:
        raise _damaged(path, "it holds no points")
    if table.ndim != 2 or table.shape[1] < 3:
        raise FileError(
            f"`path` (={str(path)!r}) holds no cloud (its shape is {list(table.shape)}, not "
            f"[points, 3 or more]): {_SAVE}"
        )
    if table.shape[1] > _WIDE:
        looks = (
            "transposed: save one point a row"
            if len(table) <= _FEW
            else f"like an image or a grid: {_SAVE}"
        )
        raise FileError(
            f"`path` (={str(path)!r}) holds {len(table)} points of {table.shape[1]} columns, which "
            f"looks {looks}"
        )
    return table


_LOADERS = {
    ".pcd": _load_pcd,
    ".xyz": _load_text,
    ".txt": _load_text,
    ".npy": _load_binary,
    ".npz": _load_binary,
    **dict.fromkeys(_TEXTS, _load_text),
}

"""The default data set: parametric meshes that need no download."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pcequi.datasets import shapes_furniture, shapes_tools, shapes_vessels
from pcequi.datasets.base import Cloud, CloudDataset
from pcequi.datasets.meshes import normalize_cloud, sample_mesh
from pcequi.datasets.roots import default_root
from pcequi.datasets.shapes_primitives import Part
from pcequi.errors import ArgumentError, check_count

__all__ = ["SHAPE_CLASSES", "Shapes", "make_shape"]

_GENERATORS: dict[str, Callable[[np.random.Generator], Part]] = {
    name: getattr(module, name)
    for module in (shapes_furniture, shapes_tools, shapes_vessels)
    for name in module.__all__
}

#: The classes of the default set, in the order of their labels.
SHAPE_CLASSES = sorted(name for name in _GENERATORS if not name.startswith("coil"))

# Raised when a generator changes, so that a processed file of the old one is
# made again instead of read.
_VERSION = 2


def make_shape(name: str, rng: np.random.Generator) -> Part:
    """Draw a mesh of one class.

    The axes are scaled by up to a fifth each, at random, so that proportions
    alone do not tell a class.

    Args:
        name: A class, one of ``SHAPE_CLASSES``, ``"coil_left"`` or
            ``"coil_right"``.
        rng: Source of randomness.

    Returns:
        Vertices, float64 ``[V, 3]``, and triangles, int64 ``[F, 3]``, counter-
        clockwise seen from outside.

    Raises:
        ArgumentError: There is no such class.

    **Equivariance:** a fixed upright pose, z up.
    """
    if name not in _GENERATORS:
        raise ArgumentError(f"`name` (={name!r}) must be one of {', '.join(sorted(_GENERATORS))}")
    vertices, faces = _GENERATORS[name](rng)
    return vertices * rng.uniform(0.85, 1.2, size=3), faces


class Shapes(CloudDataset):
    """Sixteen classes of everyday things, made from a seed.

    Furniture, vessels, tools and an airplane, composed of boxes, turned
    profiles, plates and tubes, with proportions and options that vary within a
    class. Clouds are independent area-weighted samples of the surfaces, of zero
    mean and unit radius, upright in z. A cloud depends on ``seed``, its class,
    its split and its place in it alone: more clouds, or other classes, leave it
    unchanged.

    Each ``Data`` has ``pos`` float32 ``[num_points, 3]``, ``y`` long ``[1]``, and
    ``normal`` float32 ``[num_points, 3]`` where asked for.

    Args:
        root: Folder of the set; ``default_root() / "Shapes"`` by default.
        train: The training split, or the test split.
        num_train: Clouds of a class to train on.
        num_test: Clouds of a class to test on.
        num_points: Points of a cloud.
        seed: Decides all shapes and samples.
        classes: Names of classes, whose order gives the labels;
            ``SHAPE_CLASSES`` by default. ``"coil_left"`` and ``"coil_right"``,
            which are mirror images, are there to be asked for.
        with_normals: Whether to keep the outward unit normals of the meshes.
        transform: Called on every access.
        pre_transform: Called once, before saving.
        pre_filter: Called once; keeps a cloud if true.
        force_reload: Whether to make the set again.

    Raises:
        ArgumentError: A count is below 1, the seed is negative, or a class is
            unknown or named twice.

    **Equivariance:** canonical pose; rotate with a transform to test a network.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        *,
        num_train: int = 80,
        num_test: int = 20,
        num_points: int = 1024,
        seed: int = 0,
        classes: Sequence[str] | None = None,
        with_normals: bool = False,
        force_reload: bool = False,
    ) -> None:
        check_count("num_train", num_train)
        check_count("num_test", num_test)
        self.num_points = check_count("num_points", num_points)
        self.seed = check_count("seed", seed, least=0)
        chosen = list(SHAPE_CLASSES if classes is None else classes)
        unknown = [name for name in chosen if name not in _GENERATORS]
        if unknown or not chosen or len(set(chosen)) < len(chosen):
            raise ArgumentError(
                f"`classes` (={chosen!r}) must name one or more different ones of "
                f"{', '.join(sorted(_GENERATORS))}"
            )
        self.with_normals = bool(with_normals)
        self.num_each = num_train if train else num_test
        settings = {
            "version": _VERSION,
            "num_each": int(self.num_each),
            "num_points": self.num_points,
            "seed": self.seed,
            "classes": chosen,
            "with_normals": self.with_normals,
        }
        super().__init__(
            default_root() / "Shapes" if root is None else root,
            "train" if train else "test",
            settings,
            chosen,
            transform,
            pre_transform,
            pre_filter,
            force_reload,
        )

    def _clouds(self) -> tuple[int, Iterable[Cloud]]:
        return self.num_each * len(self.classes), self._make()

    def _make(self) -> Iterator[Cloud]:
        split = ("train", "test").index(self.split)
        for label, name in enumerate(self.classes):
            for place in range(self.num_each):
                # The name's checksum, not its index: a class keeps its shapes
                # whatever other classes stand beside it.
                entropy = [self.seed, zlib.crc32(name.encode()), split, place]
                rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
                vertices, faces = make_shape(name, rng)
                points, normals = sample_mesh(vertices, faces, self.num_points, rng)
                yield normalize_cloud(points), normals if self.with_normals else None, label

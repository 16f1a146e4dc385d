"""Compressed graphs of one cloud or of a batch of clouds."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pcequi.clouds import check_floating
from pcequi.errors import ArgumentError, ShapeError
from pcequi.ops import Characters
from pcequi.pose_graph.point_rows import PointRows
from pcequi.short_repr import short_repr


@dataclass(repr=False)
class LevelGraph:
    """One level of a batch of clouds.

    Attributes:
        count: representatives of each cloud [G].
        weight: poses that each representative stands for [M].
        pos: position of each representative [M, 3].
        rot: frame of each representative [M, 3, 3].
        lift: geometry seen by each representative [M, ``Level.lift_channels``] (first level only).
        spread: variances of each cloud's points along the axes of the frame that its poses are
            turned to [G, 3] (first level only, where there is such a frame).
        bypass: geometry around all poses of the level below, as A sees it where nothing is
            sampled [M, B * D], D the ``lift_channels`` there (levels with ``bypass`` only).
        entries: entries of each row of A [M * B]; rows are (representative, basis).
        col: column of each entry, counted within its cloud [nnz].
        val: value of each entry [nnz].
        basis: B.
        blocks: A as dense blocks, in place of ``entries``, ``col`` and ``val`` where a device
            multiplies these faster, see ``ops.grouped_bmm``.
        characters: by which ``blocks`` are taken apart, where they are of the first pose of
            each point alone; and whether functions are as well (``Characters.both``).
        each: representatives of every cloud, where all have as many and it is known.
        points: what the points of the clouds read of the representatives, where asked for.

    **Equivariance:** only ``pos`` and ``rot`` move with the cloud.
    """

    count: Tensor
    weight: Tensor
    pos: Tensor | None
    rot: Tensor | None
    basis: int
    lift: Tensor | None = None
    spread: Tensor | None = None
    bypass: Tensor | None = None
    entries: Tensor | None = None
    col: Tensor | None = None
    val: Tensor | None = None
    blocks: Tensor | None = None
    characters: Characters | None = None
    each: int | None = None
    points: PointRows | None = None

    __repr__ = short_repr

    @property
    def num(self) -> int:
        """Representatives in all clouds."""
        return self.weight.shape[0]  # not by len(), which would fix it in a traced graph

    @property
    def batch(self) -> Tensor:
        """Cloud of each representative [M]."""
        clouds = torch.arange(len(self.count), device=self.count.device)
        return torch.repeat_interleave(clouds, self.count)

    def to(self, *args, **kwargs) -> LevelGraph:
        """Move every tensor, as ``Tensor.to`` (a dtype applies to floating ones).

        Raises:
            ArgumentError: the dtype is not floating.
        """
        if args and isinstance(args[0], Tensor):  # its device and its dtype
            args = (args[0].device, args[0].dtype, *args[1:])
        for kind in (*args, kwargs.get("dtype")):
            if isinstance(kind, torch.dtype):
                check_floating(kind)
        kinds = [a for a in args if not isinstance(a, torch.dtype)]
        kept = {k: v for k, v in kwargs.items() if k != "dtype"}

        def move(value):
            if isinstance(value, Characters):
                return value.to(*kinds, **kept)
            if isinstance(value, PointRows):
                return value.to(*args, **kwargs)
            if not isinstance(value, Tensor):
                return value
            if not value.is_floating_point():
                return value.to(*kinds, **kept) if kinds or kept else value
            return value.to(*args, **kwargs)

        return LevelGraph(**{name: move(value) for name, value in vars(self).items()})

    def take(self, clouds: Tensor) -> LevelGraph:
        """The level of some clouds [P], in their order; see ``PoseGraph.take``."""
        even = self.each is not None and self.entries is None  # nothing to wait for on a GPU
        counts, which = ([], []) if even else (self.count.tolist(), clouds.tolist())

        def some(value: Tensor | None, sizes: list[int]) -> Tensor | None:
            if value is None:
                return None
            if even:
                rows = value.unflatten(0, (-1, self.each))
                return rows.index_select(0, clouds).flatten(0, 1)
            parts = value.split(sizes)
            return torch.cat([parts[cloud] for cloud in which])

        values = {name: some(getattr(self, name), counts) for name in _OF_REPRESENTATIVES}
        if self.entries is not None:
            rows = [count * self.basis for count in counts]
            values["entries"] = some(self.entries, rows)
            sizes = torch.stack([part.sum() for part in self.entries.split(rows)]).tolist()
            values |= {"col": some(self.col, sizes), "val": some(self.val, sizes)}
        count = self.count.index_select(0, clouds)
        blocks = None if self.blocks is None else self.blocks.index_select(0, clouds)
        kept = {"blocks": blocks, "characters": self.characters, "each": self.each}
        kept["spread"] = None if self.spread is None else self.spread.index_select(0, clouds)
        return LevelGraph(count=count, basis=self.basis, **values, **kept)


def batch_levels(parts: list[LevelGraph]) -> LevelGraph:
    """The same level of several clouds as one; columns stay counted within a cloud.

    Raises:
        ArgumentError: A comes as dense blocks, or the parts are no graphs of the same level.

    **Equivariance:** clouds do not touch each other.
    """
    for part in parts:
        check_entries(part)
    bases = sorted({part.basis for part in parts})
    widths = sorted({part.lift.shape[1] for part in parts if part.lift is not None})
    if len(bases) > 1 or len(widths) > 1:
        raise ArgumentError(
            f"`graphs` have a level of different kernels ({bases if len(bases) > 1 else widths} "
            "functions); build them with the same levels"
        )
    values = {}
    for name in (*TENSORS, "points"):
        with_it = sum(getattr(part, name) is not None for part in parts)
        if 0 < with_it < len(parts):
            remedy = "with `points=True`, or all without" if name == "points" else "in one way"
            raise ArgumentError(
                f"`graphs` (={len(parts)}) have `{name}` in {with_it} of them alone; "
                f"build all {remedy}"
            )
    for name in TENSORS:
        tensors = [getattr(part, name) for part in parts]
        values[name] = None if tensors[0] is None else torch.cat(tensors)
    points = [part.points for part in parts]
    values["points"] = None if points[0] is None else PointRows.batch(points)
    return LevelGraph(basis=parts[0].basis, **values)


def check_entries(level: LevelGraph) -> None:
    """Whether a level has the entries of A, not its dense blocks.

    Raises:
        ArgumentError: it has blocks.

    **Equivariance:** does not apply.
    """
    if level.blocks is not None:
        raise ArgumentError(
            "the graph has A as dense blocks, which are for one batch alone; take "
            "`store.batch(rows)` without `blocks`"
        )


_KEY = re.compile(r"graph\d+_.*")
_OF_REPRESENTATIVES = ("weight", "pos", "rot", "lift", "bypass")
TENSORS = ("count", "spread", *_OF_REPRESENTATIVES, "entries", "col", "val")
_POINTS = tuple(field.name for field in fields(PointRows))


def _check_level(level: LevelGraph, number: int) -> None:
    """Whether the tensors of a level belong together: PyG's transforms take those that are as
    long as the cloud for attributes of its points, and cut or reorder them with these."""
    if torch.compiler.is_compiling() or level.count.device.type == "meta":
        return
    num = len(level.weight)
    sizes = {name: getattr(level, name) for name in ("pos", "rot", "lift", "bypass")}
    fits = all(value is None or len(value) == num for value in sizes.values())
    fits = fits and (level.spread is None or len(level.spread) == len(level.count))
    if level.entries is not None:
        fits = fits and len(level.entries) == level.basis * num and len(level.col) == len(level.val)
    if level.count.device.type == "cpu":  # looking would make a GPU wait
        fits = fits and int(level.count.sum()) == num
        if level.entries is not None:
            fits = fits and int(level.entries.sum()) == len(level.col)
        fits = fits and (level.points is None or level.points.fits())
    if not fits:
        raise ArgumentError(
            f"`data.graph{number}_*` (={num} representatives) has tensors that do not belong "
            "together; apply BuildPoseGraph after all transforms that drop or reorder points"
        )


@dataclass(repr=False)
class PoseGraph:
    """The levels of one cloud or of a batch of clouds.

    In a PyG ``Data`` the tensors are attributes ``graph{level}_{name}``, all
    concatenated along the first dimension and counted within their cloud, so
    PyG's own batching needs no offsets.

    **Equivariance:** as its levels.
    """

    levels: list[LevelGraph]

    __repr__ = short_repr

    def store(self, data: Data) -> Data:
        """Attach to a PyG ``Data``, in place of a graph that is there, and return it.

        Raises:
            ArgumentError: A comes as dense blocks.
        """
        for level in self.levels:
            check_entries(level)
        for key in list(data.keys()):
            if _KEY.fullmatch(key):
                del data[key]
        for number, level in enumerate(self.levels):
            for name in TENSORS:
                value = getattr(level, name)
                if value is not None:
                    setattr(data, f"graph{number}_{name}", value)
            for name in _POINTS if level.points is not None else ():
                setattr(data, f"graph{number}_point_{name}", getattr(level.points, name))
        return data

    @classmethod
    def load(cls, data: Data | Batch) -> PoseGraph:
        """From a ``Data`` or ``Batch`` that ``store`` filled.

        Raises:
            ArgumentError: ``data`` has no pose graph, or one whose tensors do not belong together.
        """
        levels: list[LevelGraph] = []
        while getattr(data, f"graph{len(levels)}_count", None) is not None:
            prefix = f"graph{len(levels)}_"
            values = {name: getattr(data, prefix + name, None) for name in TENSORS}
            entries = values["entries"]
            basis = 0 if entries is None else entries.shape[0] // max(1, values["weight"].shape[0])
            if (first := getattr(data, prefix + "point_count", None)) is not None:
                rest = (getattr(data, f"{prefix}point_{name}") for name in _POINTS[1:])
                values["points"] = PointRows(first, *rest)
            levels.append(LevelGraph(basis=basis, **values))
            _check_level(levels[-1], len(levels) - 1)
        if not levels:
            raise ArgumentError(
                "`data` has no pose graph; apply `pcequi.transforms.BuildPoseGraph` first"
            )
        return cls(levels)

    def to(self, *args, **kwargs) -> PoseGraph:
        """Move every tensor, as ``Tensor.to`` (a dtype applies to floating ones).

        Raises:
            ArgumentError: the dtype is not floating.
        """
        return PoseGraph([level.to(*args, **kwargs) for level in self.levels])

    def cpu(self) -> PoseGraph:
        """The same on the CPU."""
        return self.to("cpu")

    def cuda(self, device: torch.device | int | str | None = None) -> PoseGraph:
        """The same on a GPU, by default the current one."""
        return self.to("cuda" if device is None else device)

    def take(self, clouds: Tensor) -> PoseGraph:
        """The graph of some clouds of a batch, without what their points read.

        Args:
            clouds: their numbers [P], int64, in any order, at least one.

        Raises:
            ArgumentError: ``clouds`` are no such numbers.

        **Equivariance:** clouds do not touch each other.
        """
        size = len(self.levels[0].count)
        whole = isinstance(clouds, Tensor) and clouds.dtype == torch.long and clouds.dim() == 1
        if not whole or not len(clouds) or not 0 <= int(clouds.min()) <= int(clouds.max()) < size:
            raise ArgumentError(
                f"`clouds` (={clouds!r:.200}) must be a tensor [P] of int64, at least one number, "
                f"each from 0 to {size - 1}"
            )
        return PoseGraph([level.take(clouds) for level in self.levels])

    def to_points(self, x: Tensor, level: int) -> Tensor:
        """Features of every point of the clouds [N, C] from those of a level's
        representatives ``x`` [M, C]: each point has the mean of its poses, and a point without
        poses a mean of those of the nearest three points that have some, weighted so that
        nothing jumps between them (``read_carriers``).

        Args:
            x: differentiable.
            level: 0 is the lifting level.

        Raises:
            ArgumentError: there is no such level, or the graph was built without points.
            ShapeError: ``x`` is not of the level's representatives.

        **Equivariance:** invariant where ``x`` is, up to the cloud's own symmetries, which
        exchange points; rows follow the order of the points.
        """
        if not 0 <= level < len(self.levels):
            raise ArgumentError(
                f"`level` (={level}) must be 0 to {len(self.levels) - 1}, counted from 0"
            )
        points, num = self.levels[level].points, self.levels[level].num
        if x.dim() != 2 or len(x) != num:
            raise ShapeError(
                f"`x` (={list(x.shape)}) must be [representatives of level {level} (={num}), C]"
            )
        if points is None:
            raise ArgumentError(
                "the graph does not say what its points read; build it with `points=True`"
            )
        return points.read(x, self.levels[level].count)

    @classmethod
    def batch(cls, graphs: list[PoseGraph]) -> PoseGraph:
        """The graphs of several clouds as one.

        Raises:
            ArgumentError: there is none, they are of different levels, some alone have points,
                or A comes as dense blocks.
        """
        numbers = sorted({len(graph.levels) for graph in graphs})
        if len(numbers) != 1:
            raise ArgumentError(
                f"`graphs` (={len(graphs)}) must be at least one, all of the same levels (they "
                f"have {numbers}); build them with the levels of one network"
            )
        levels = zip(*(graph.levels for graph in graphs))
        return cls([batch_levels(list(parts)) for parts in levels])

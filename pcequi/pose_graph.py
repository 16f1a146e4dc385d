"""The compressed graph: representatives of each level and what they read.

A level's layer is out = (A f) W. The rows of A are (representative, basis
function) pairs, its columns the representatives of the level below: the
feature of a pose h is read at the representative a(h) that stands for it, and
entries that meet in one place are added up once. Nothing of the size of the
pose set is left in the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pcequi import rotations as so3
from pcequi.canonical import canonical_pose
from pcequi.embedding import geometric_embedding
from pcequi.errors import ArgumentError
from pcequi.kernels import anchor_rotations, kernel_points, rotation_basis, space_basis
from pcequi.ops import HAS_NUMBA, coalesce_rows, farthest_point_sampling, pairs_within
from pcequi.poses import (
    CentroidPoses,
    GridPoses,
    Poses,
    check_cloud,
    estimate_normals,
    sampler_from_dict,
    sampler_to_dict,
    unit_normals,
)
from pcequi.sampling import FeatureSampler, Representatives, sampling_key

# Relative slack when the rotation nearest to an anchor is chosen: equal angles
# go to the first rotation in the sampler's own (data-given) order.
_ANGLE_TIE = 1e-9


@dataclass(frozen=True)
class Level:
    """One level of a network: where its poses are, what they see, how many stay.

    Args:
        radius: of the support, in units of the cloud (unit radius when normalised).
        poses: sampler of poses.
        sampling: budget and method.
        num_points: points that carry poses, the first of a spatial FPS order;
            None: all. Never more than the level below has.
        kernel_points: basis in space, see ``kernels.LAYOUTS``.
        kernel_rotations: anchors in SO(3), see ``kernels.SE3Kernel``. A pose
            reads, at each neighbouring point and for each anchor, the pose
            nearest in rotation to the anchor.
        rotation_width: support about an anchor, radians.
        normals: whether the geometry at this level includes normals.

    Raises:
        ArgumentError: ``radius`` is not positive.

    **Equivariance:** settings only; the samplers' own lines say how they move.
    """

    radius: float
    poses: object = field(default_factory=lambda: GridPoses("O", "principal"))
    sampling: FeatureSampler = FeatureSampler()
    num_points: int | None = None
    kernel_points: int = 15
    kernel_rotations: int = 1
    rotation_width: float = 3.14159265
    normals: bool = False

    def __post_init__(self):
        if not self.radius > 0:
            raise ArgumentError(f"`radius` (={self.radius}) must be positive")
        if self.num_points is not None and self.num_points < 1:
            raise ArgumentError(f"`num_points` (={self.num_points}) must be at least 1, or None")
        kernel_points(self.kernel_points)
        anchor_rotations(self.kernel_rotations)

    @property
    def basis(self) -> int:
        """Size of the kernel basis."""
        return self.kernel_points * self.kernel_rotations

    @property
    def lift_channels(self) -> int:
        """Width of the lifting input of this level."""
        return self.kernel_points * (4 if self.normals else 1)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        values = {k: getattr(self, k) for k in self.__dataclass_fields__}
        values["poses"] = sampler_to_dict(self.poses)
        values["sampling"] = vars(self.sampling).copy()
        return values

    @classmethod
    def from_dict(cls, values: dict) -> Level:
        """The level that ``to_dict`` described."""
        values = dict(values)
        values["poses"] = sampler_from_dict(values["poses"])
        values["sampling"] = FeatureSampler(**values["sampling"])
        return cls(**values)

    def with_budget(self, **budget) -> Level:
        """The same level with another ``FeatureSampler`` budget; none: dense."""
        budget = {"num": None, "ratio": None, "tolerance": None, **budget}
        return replace(self, sampling=replace(self.sampling, **budget))


@dataclass
class LevelGraph:
    """One level of a batch of clouds.

    Attributes:
        count: representatives of each cloud [G].
        weight: poses that each representative stands for [M].
        pos: position of each representative [M, 3].
        rot: frame of each representative [M, 3, 3].
        lift: geometry seen by each representative [M, B0 * F] (first level only).
        entries: entries of each row of A [M * B]; rows are (representative, basis).
        col: column of each entry, counted within its cloud [nnz].
        val: value of each entry [nnz].
        basis: B.
    """

    count: Tensor
    weight: Tensor
    pos: Tensor
    rot: Tensor
    basis: int
    lift: Tensor | None = None
    entries: Tensor | None = None
    col: Tensor | None = None
    val: Tensor | None = None

    @property
    def num(self) -> int:
        """Representatives in all clouds."""
        return len(self.weight)

    @property
    def batch(self) -> Tensor:
        """Cloud of each representative [M]."""
        clouds = torch.arange(len(self.count), device=self.count.device)
        return torch.repeat_interleave(clouds, self.count)

    def to(self, *args, **kwargs) -> LevelGraph:
        """Move every tensor, as ``Tensor.to`` (a dtype applies to floating ones)."""

        def move(value):
            if not isinstance(value, Tensor):
                return value
            if not value.is_floating_point():
                kinds = [a for a in args if not isinstance(a, torch.dtype)]
                kept = {k: v for k, v in kwargs.items() if k != "dtype"}
                return value.to(*kinds, **kept) if kinds or kept else value
            return value.to(*args, **kwargs)

        return LevelGraph(**{name: move(value) for name, value in vars(self).items()})


def batch_levels(parts: list[LevelGraph]) -> LevelGraph:
    """The same level of several clouds as one; columns stay counted within a cloud.

    **Equivariance:** clouds do not touch each other.
    """
    values = {}
    for name in TENSORS:
        tensors = [getattr(part, name) for part in parts]
        values[name] = None if tensors[0] is None else torch.cat(tensors)
    return LevelGraph(basis=parts[0].basis, **values)


TENSORS = ("count", "weight", "pos", "rot", "lift", "entries", "col", "val")


@dataclass
class PoseGraph:
    """The levels of one cloud or of a batch of clouds.

    In a PyG ``Data`` the tensors are attributes ``graph{level}_{name}``, all
    concatenated along the first dimension and counted within their cloud, so
    PyG's own batching needs no offsets.
    """

    levels: list[LevelGraph]

    def store(self, data):
        """Attach to a PyG ``Data`` and return it."""
        for number, level in enumerate(self.levels):
            for name in TENSORS:
                value = getattr(level, name)
                if value is not None:
                    setattr(data, f"graph{number}_{name}", value)
        return data

    @classmethod
    def load(cls, data) -> PoseGraph:
        """From a ``Data`` or ``Batch`` that ``store`` filled.

        Raises:
            ArgumentError: ``data`` has no pose graph.
        """
        levels: list[LevelGraph] = []
        while getattr(data, f"graph{len(levels)}_count", None) is not None:
            prefix = f"graph{len(levels)}_"
            values = {name: getattr(data, prefix + name, None) for name in TENSORS}
            entries = values["entries"]
            basis = 0 if entries is None else len(entries) // max(1, len(values["weight"]))
            levels.append(LevelGraph(basis=basis, **values))
        if not levels:
            raise ArgumentError(
                "`data` has no pose graph; apply `pcequi.transforms.BuildPoseGraph` first"
            )
        return cls(levels)

    def to(self, *args, **kwargs) -> PoseGraph:
        """Move every tensor, as ``Tensor.to`` (a dtype applies to floating ones)."""
        return PoseGraph([level.to(*args, **kwargs) for level in self.levels])

    @classmethod
    def batch(cls, graphs: list[PoseGraph]) -> PoseGraph:
        """The graphs of several clouds as one."""
        levels = zip(*(graph.levels for graph in graphs), strict=True)
        return cls([batch_levels(list(parts)) for parts in levels])


@dataclass
class _Below:
    """What the next level reads: points with poses, and who stands for them."""

    poses: Poses
    assignment: Tensor  # [N, K]
    num: int
    normal: Tensor | None


def build_pose_graph(
    pos: Tensor,
    levels: list[Level] | tuple[Level, ...],
    *,
    normal: Tensor | None = None,
    generator: torch.Generator | None = None,
    embeddings: bool = False,
    dtype: torch.dtype | None = None,
):
    """The precomputed graph of one cloud, from its geometry alone.

    Everything is computed in float64 and cast once, at the end.

    Args:
        pos: one cloud [N, 3], any floating dtype.
        levels: at least one; the first is the lifting level.
        normal: unit normals [N, 3]; estimated where a level needs them.
        generator: for levels sampled at random.
        embeddings: also return what each level sampled.
        dtype: of the result; by default that of ``pos``.

    Returns:
        The ``PoseGraph``; with ``embeddings`` a pair of it and a list of
        ``SampledLevel``, one a level.

    Raises:
        ShapeError, DataError: the cloud is unusable.

    **Equivariance:** with data-driven frames every tensor but ``pos`` and
    ``rot`` is invariant to SE(3) and to the order of the points, and those two
    turn and move with the cloud.
    """
    builder = GraphBuilder(pos, levels, normal=normal)
    sampled, graphs = [], []
    for number in range(len(builder.levels)):
        step = builder.level(number)
        chosen = step.sample(generator=generator)
        graphs.append(builder.finish(step, chosen))
        if embeddings:
            sampled.append(builder.sampled(step, chosen))
    graph = PoseGraph(graphs).to(dtype or pos.dtype)
    return (graph, sampled) if embeddings else graph


@dataclass
class SampledLevel:
    """What one level sampled.

    Attributes:
        poses: the level's poses, in world coordinates.
        points: row of the cloud of each of its points [N']; None at the centroid.
        embedding: geometric embedding [N', K, D], or None for a dense level.
        chosen: representatives, counted as point * K + rotation.
    """

    poses: Poses
    points: Tensor | None
    embedding: Tensor | None
    chosen: Representatives


class GraphBuilder:
    """Builds the levels of one cloud, bottom up; shared by all ways of running."""

    def __init__(self, pos: Tensor, levels, *, normal: Tensor | None = None):
        check_cloud(pos)
        if not levels:
            raise ArgumentError("`levels` (=[]) must hold at least one Level")
        if isinstance(levels[0].poses, CentroidPoses):
            raise ArgumentError(
                "`levels[0].poses` cannot be CentroidPoses: it lifts local geometry"
            )
        self.levels = list(levels)
        self.origin = pos.mean(0).double()
        # Rows and frames below are the canonical ones; results are turned back.
        self.frame, self.rows, self.pos, self.normal = canonical_pose(
            pos.double() - pos.double().mean(0),
            self._allowed_frames(),
            None if normal is None else unit_normals(pos, normal, 0).double(),
        )
        if self.normal is None and any(
            level.normals or hasattr(level.poses, "num_neighbors") for level in levels
        ):
            self.normal = estimate_normals(self.pos)
        self.order: Tensor | None = None
        self.below: _Below | None = None

    def _allowed_frames(self) -> Tensor | None:
        """Rotations that map the pose sets to themselves: a grid fixed in the
        world allows its group alone, data-driven frames allow all (None)."""
        fixed = {
            level.poses.rotations
            for level in self.levels
            if getattr(level.poses, "align", "principal") == "none"
        }
        if not fixed:
            return None
        if len(fixed) == 1 and isinstance(name := fixed.pop(), str):
            return so3.finite_group(name, dtype=torch.float64, device=self.origin.device)
        return torch.eye(3, dtype=torch.float64, device=self.origin.device)[None]

    def in_world(self, poses: Poses) -> Poses:
        """Poses of this builder, turned and moved back to where the cloud is."""
        return Poses(poses.pos @ self.frame.T + self.origin, self.frame @ poses.rot, poses.group)

    def level(self, number: int) -> LevelStep:
        """Poses and geometric embedding of a level; those below must be finished."""
        level = self.levels[number]
        if isinstance(level.poses, CentroidPoses):
            poses, points = level.poses(self.pos), None
        else:
            poses = level.poses(self.pos, self.normal)
            points = self._points(level, number)
            if points is not None and number > 0:
                poses = poses.select(points)
        embedding = None
        if number == 0 or not level.sampling.is_dense:
            normal = self.normal if level.normals else None
            embedding = geometric_embedding(
                poses, self.pos, level.radius, level.kernel_points, normal
            )
        if number == 0 and self.order is None:
            # A key for spatial ties: the largest key over a point's poses does
            # not depend on which of its frames comes first.
            key = sampling_key(embedding.flatten(0, 1)).view(embedding.shape[:2])
            first = embedding.shape[0]
            wanted = max((lv.num_points or 0) for lv in self.levels)
            seeds = max((lv.sampling.seeds or 0) for lv in self.levels)
            wanted = min(first, max(wanted, seeds, 1))
            self.order, _, _ = farthest_point_sampling(self.pos, wanted, key=key.max(1).values)
            points = self._points(level, number)
            if points is not None:
                poses, embedding = poses.select(points), embedding[points]
        return LevelStep(self, number, level, poses, points, embedding)

    def sampled(self, step: LevelStep, chosen: Representatives) -> SampledLevel:
        """What a level sampled, in the coordinates and rows of the cloud given."""
        points = None
        if not isinstance(step.level.poses, CentroidPoses):
            points = self.rows if step.points is None else self.rows[step.points]
        return SampledLevel(self.in_world(step.poses), points, step.embedding, chosen)

    def _points(self, level: Level, number: int) -> Tensor | None:
        """Points of a level as rows of the cloud, or None for all of them."""
        limits = [lv.num_points for lv in self.levels[: number + 1] if lv.num_points is not None]
        if not limits or self.order is None or min(limits) >= len(self.pos):
            return None
        return self.order[: min(limits)]

    def finish(self, step: LevelStep, chosen: Representatives) -> LevelGraph:
        """The graph of a level whose representatives are chosen."""
        poses, k = step.poses, step.poses.num_rotations
        point, turn = chosen.index // k, chosen.index % k
        graph = LevelGraph(
            count=torch.tensor([chosen.num], device=self.pos.device),
            weight=chosen.multiplicity.to(self.pos),
            pos=poses.pos[point] @ self.frame.T + self.origin,
            rot=self.frame @ poses.rot[point, turn],
            basis=0,
        )
        if step.number == 0:
            rows = step.embedding.flatten(0, 1)
            if step.level.sampling.center == "mean":
                total = rows.new_zeros(chosen.num, rows.shape[1])
                total.index_add_(0, chosen.assignment, rows)
                graph.lift = total / chosen.multiplicity.clamp_min(1)[:, None]
            else:
                graph.lift = rows[chosen.index]
        else:
            graph.basis = step.level.basis
            entries, graph.col, graph.val = step.operator(chosen)
            graph.entries = (entries[1:] - entries[:-1]).to(torch.int32)
        self.below = _Below(
            poses,
            chosen.assignment.view(-1, k),
            chosen.num,
            None,
        )
        return graph


@dataclass
class LevelStep:
    """A level whose poses are known and whose representatives are not."""

    builder: GraphBuilder
    number: int
    level: Level
    poses: Poses
    points: Tensor | None
    embedding: Tensor | None  # geometric, [N, K, D]

    def sample(self, embedding: Tensor | None = None, generator=None) -> Representatives:
        """Choose representatives by an embedding [P, D], by default the geometric one."""
        k = self.poses.num_rotations
        if embedding is None:
            embedding = self.embedding
            embedding = (
                embedding.flatten(0, 1)
                if embedding is not None
                else self.poses.pos.new_zeros(self.poses.num, 1)
            )
        return self.level.sampling(
            embedding,
            pos=self.poses.pos.repeat_interleave(k, 0),
            num_rotations=k,
            seed_rows=self._seed_rows(),
            generator=generator,
            strict=False,  # levels meet clouds of any size
        )

    def _seed_rows(self) -> Tensor | None:
        seeds, k = self.level.sampling.seeds, self.poses.num_rotations
        if (
            seeds is None
            or self.builder.order is None
            or isinstance(self.level.poses, CentroidPoses)
        ):
            return None
        if seeds >= len(self.poses.pos):
            return None
        rows = self.builder.order[:seeds]
        if self.points is not None:  # the points are a prefix of the same order
            rows = torch.arange(seeds, device=rows.device)
        return (rows[:, None] * k + torch.arange(k, device=rows.device)).flatten()

    def operator(self, chosen: Representatives | None = None):
        """The sparse matrix A of some poses, as (ptr, col, val).

        Rows are (row of ``chosen.index``, basis); None: all poses. With
        ``center="mean"`` a row is the mean over the members' rows.
        """
        below = self.builder.below
        k = self.poses.num_rotations
        if chosen is None:
            index, target = torch.arange(self.poses.num, device=self.poses.pos.device), None
            num_rows = self.poses.num
        elif self.level.sampling.center == "mean" and not self.level.sampling.is_dense:
            index = torch.arange(self.poses.num, device=chosen.index.device)
            target, num_rows = chosen.assignment, chosen.num
        else:
            index, target, num_rows = chosen.index, None, chosen.num
        ptr, col, val = pose_operator(
            self.poses.pos[index // k],
            self.poses.rot[index // k, index % k],
            below.poses,
            below.assignment,
            below.num,
            self.level,
        )
        if target is None:
            return ptr, col, val
        basis = self.level.basis
        row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
        member = target[row // basis]
        val = val / chosen.multiplicity.to(val)[member]
        return coalesce_rows(member * basis + row % basis, col, val, num_rows * basis, below.num)


def pose_operator(
    pos: Tensor, rot: Tensor, source: Poses, assignment: Tensor, below: int, level: Level
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of A of some poses, entries that share a place added up.

    At each source point within the radius, and for each anchor, the source
    pose nearest in rotation is read; its value is the basis function over the
    sum of all space functions of the row's pose.

    Args:
        pos: [T, 3], rot: [T, 3, 3], the poses whose rows are wanted.
        source: poses of the level below, [S] points with K rotations.
        assignment: representative of each source pose [S, K], in [0, below).
        below: number of representatives of the level below.
        level: settings.

    Returns:
        CSR of a [T * basis, below] matrix: ``ptr``, ``col``, ``val``.

    **Equivariance:** unchanged when all poses move together.
    """
    points, width = kernel_points(level.kernel_points)
    points = points.to(pos)
    anchors = anchor_rotations(level.kernel_rotations).to(pos)
    if HAS_NUMBA and pos.device.type == "cpu":
        from pcequi.ops import numba_kernels

        frames = source.rot.flatten(2)
        if source.rot.stride(0) == 0:  # a grid: every point has the same frames
            frames = frames[:1]
        arrays = [t.contiguous().numpy() for t in (pos, rot, source.pos, frames, assignment)]
        edge = 1 + 2 * math.cos(level.rotation_width)
        out = numba_kernels.operator(
            *arrays,
            below,
            level.radius,
            points.numpy(),
            width,
            anchors.contiguous().numpy(),
            edge,
            _ANGLE_TIE,
        )
        return tuple(map(torch.from_numpy, out))
    edges = pose_edges(pos, rot, source, level)
    target = edges.edge_index[1]
    space = space_basis(edges.offset, points, width)
    # Every anchor reads every neighbour once, so one anchor's edges make the mass.
    mass = pos.new_zeros(len(pos)).index_add_(0, target, space.sum(1)) / len(anchors)
    space = space / mass.clamp_min(torch.finfo(pos.dtype).tiny)[target][:, None]
    turned = edges.rotation @ anchors[edges.anchor].mT
    factor = rotation_basis(turned, anchors[:1], level.rotation_width)  # anchors[0] is I
    value = space * factor
    edge, point = value.nonzero(as_tuple=True)
    row = (target[edge] * len(points) + point) * len(anchors) + edges.anchor[edge]
    col = assignment.flatten()[edges.edge_index[0, edge]]
    return coalesce_rows(row, col, value[edge, point], len(pos) * level.basis, below)


@dataclass
class PoseEdges:
    """Bipartite edges between poses, before anything is shared or added up.

    Attributes:
        edge_index: [2, E], source poses (point * K + rotation) above, targets below.
        offset: position of the source seen from the target, in units of the
            radius [E, 3].
        rotation: frame of the source seen from the target [E, 3, 3].
        anchor: anchor of the kernel for which the source was chosen [E].
    """

    edge_index: Tensor
    offset: Tensor
    rotation: Tensor
    anchor: Tensor


def pose_edges(pos: Tensor, rot: Tensor, source: Poses, level: Level) -> PoseEdges:
    """The support of some poses: at each source point within the radius, and
    for each anchor, the pose nearest in rotation to the anchor.

    With one anchor these edges and relative poses are what ``nn.GroupConv``
    takes, and give what the compressed operator gives.

    Args:
        pos: [T, 3], rot: [T, 3, 3], the target poses.
        source: poses of the level below, [S] points with K rotations.
        level: settings.

    **Equivariance:** unchanged when all poses move together.
    """
    anchors = anchor_rotations(level.kernel_rotations).to(pos)
    target, near = pairs_within(source.pos, pos, level.radius)
    frame = rot[target]
    offset = torch.einsum("eij,ei->ej", frame, source.pos[near] - pos[target]) / level.radius
    wanted = torch.einsum("eij,ajk->eaik", frame, anchors).flatten(2)
    score = wanted @ source.rot.flatten(2)[near].mT  # traces [E, A, K]
    best = score.max(-1, keepdim=True).values
    turn = (score >= best - _ANGLE_TIE).int().argmax(-1)
    rotation = frame.mT[:, None] @ source.rot[near[:, None], turn]
    pose = near[:, None] * source.num_rotations + turn
    count = len(anchors)
    return PoseEdges(
        torch.stack([pose.flatten(), target.repeat_interleave(count)]),
        offset.repeat_interleave(count, 0),
        rotation.flatten(0, 1),
        torch.arange(count, device=pos.device).repeat(len(target)),
    )

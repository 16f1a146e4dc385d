"""From a cloud to its graph, level by level."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from inspect import isfunction, signature

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pcequi import rotations as so3
from pcequi.canonical import canonical_pose
from pcequi.clouds import ROUNDING, check_cloud, check_floating
from pcequi.embedding import geometric_embedding, pair_embedding
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.normals import check_normals, estimate_normals, unit_normals
from pcequi.ops import farthest_point_sampling
from pcequi.pose_graph.graph import LevelGraph, PoseGraph
from pcequi.pose_graph.level import Level
from pcequi.pose_graph.point_numbers import check_numbers
from pcequi.pose_graph.point_rows import point_rows
from pcequi.pose_graph.scale import warn_of_scale
from pcequi.pose_graph.step import LevelStep
from pcequi.poses import ALIGNMENTS, CentroidPoses, GridPoses, NormalPoses, Poses
from pcequi.sampling import Representatives
from pcequi.short_repr import short_repr

# Elements of two groups that are this near are the same.
_SAME = 1e-9


@dataclass
class _Below:
    """What the next level reads: points with poses, and who stands for them."""

    poses: Poses
    shared: Tensor  # [N, K, k], see ``Representatives``
    share: Tensor  # [N, K, k]
    num: int
    seen: Tensor | None  # embeddings of all poses [N * K, D], where the next level bypasses


def build_pose_graph(
    pos: Tensor,
    levels: list[Level] | tuple[Level, ...],
    *,
    normal: Tensor | None = None,
    x: Tensor | None = None,
    generator: torch.Generator | None = None,
    embeddings: bool = False,
    points: bool = False,
    dtype: torch.dtype | None = None,
):
    """The precomputed graph of one cloud, from its geometry alone.

    Everything is computed in float64 and cast once, at the end. No gradient flows to the
    points. ``nn.GroupConv`` has one, on poses made with ``differentiable=True``
    (``poses.TangentPoses``), between several of a point through ``pose_edges``.

    Args:
        pos: one cloud [N, 3], any floating dtype.
        levels: at least one; the first is the lifting level.
        normal: unit normals [N, 3]; estimated where a level needs them.
        x: what the points bring beside their places [N, C], of levels with ``in_channels`` = C;
            no gradient flows to it.
        generator: for levels sampled at random.
        embeddings: also return what each level sampled.
        points: also keep what the points of the cloud read of each level, for
            ``PoseGraph.to_points``.
        dtype: of the result; by default that of ``pos``, single for half precision.

    Returns:
        The ``PoseGraph``; with ``embeddings`` a pair of it and a list of
        ``SampledLevel``, one a level.

    Raises:
        ShapeError, DataError: the cloud is unusable, or ``x`` is.
        ArgumentError: levels take ``x`` and there is none, or the other way around, or they do
            not agree on C, or ``dtype`` is not floating.

    **Equivariance:** with data-driven frames every tensor but ``pos`` and
    ``rot`` is invariant to SE(3) and to the order of the points, and those two
    turn and move with the cloud.
    """
    check_floating(dtype)
    builder = GraphBuilder(pos, levels, normal=normal, x=x)
    sampled, graphs = [], []
    for number in range(len(builder.levels)):
        step = builder.level(number)
        chosen = step.sample(generator=generator)
        graphs.append(builder.finish(step, chosen, points))
        if embeddings:
            sampled.append(builder.sampled(step, chosen))
    # Half precision has neither kernels on the CPU nor digits for what is kept here.
    own = pos.dtype if pos.dtype in (torch.float32, torch.float64) else torch.float32
    graph = PoseGraph(graphs).to(dtype or own)
    return (graph, sampled) if embeddings else graph


@dataclass(repr=False)
class SampledLevel:
    """What one level sampled.

    Attributes:
        poses: the level's poses, in world coordinates.
        points: row of the cloud of each of its points [N']; None at the centroid.
        embedding: geometric embedding [N', K, D]; None for a dense level above the first, unless
            the next one bypasses it.
        chosen: representatives, counted as point * K + rotation.

    **Equivariance:** ``poses`` move with the cloud, the rest stays.
    """

    poses: Poses
    points: Tensor | None
    embedding: Tensor | None
    chosen: Representatives

    __repr__ = short_repr


class GraphBuilder:
    """Builds the levels of one cloud, bottom up; shared by all ways of running.

    **Equivariance:** as ``build_pose_graph``.
    """

    def __init__(
        self, pos: Tensor, levels, *, normal: Tensor | None = None, x: Tensor | None = None
    ):
        check_cloud(pos)
        if not levels:
            raise ArgumentError("`levels` (=[]) must hold at least one Level")
        if isinstance(levels[0].poses, CentroidPoses):
            raise ArgumentError(
                "`levels[0].poses` cannot be CentroidPoses: it lifts local geometry"
            )
        if levels[0].bypass:
            raise ArgumentError(
                "`levels[0].bypass` (=True) needs a level below, of which there is none; leave it "
                "to a level above the first"
            )
        self.levels = list(levels)
        self.first_only: set[int] = set()  # levels of which no other rows are made
        pos = pos.detach().double()
        self.origin = pos.mean(0)
        if normal is not None:
            check_normals(pos, normal)
            read = any(level.takes_normals for level in self.levels)
            normal = unit_normals(pos, normal, 0).double() if read else None
        x = check_numbers(x, pos, self.levels)
        centered = _centered(pos, self.origin)
        size = centered.norm(dim=1).median()  # strays say nothing
        warn_of_scale(size, len(centered), self.levels)
        # Rows and frames below are the canonical ones; results are turned back.
        self.frame, self.rows, self.pos, self.normal, self.x = canonical_pose(
            centered, self._allowed_frames(), normal, x
        )
        self._estimated: dict[int, Tensor] = {}
        self._frames: dict[str, Tensor] = {}
        self._known: dict[NormalPoses | GridPoses, Poses] = {}
        self.below: _Below | None = None

    def _allowed_frames(self) -> Tensor | None:
        """Rotations that map the pose sets to themselves: grids fixed in the world allow what
        their groups have in common, data-driven frames allow all (None)."""
        fixed = {
            getattr(level.poses, "rotations", None)
            for level in self.levels
            if getattr(level.poses, "align", "principal") == "none"
        }
        if not fixed:
            return None
        if not all(isinstance(name, str) for name in fixed):
            return torch.eye(3, dtype=torch.float64, device=self.origin.device)[None]
        common, *others = (so3.finite_group(n, dtype=torch.float64) for n in sorted(fixed))
        for other in others:
            apart, _ = cKDTree(other.flatten(1).numpy()).query(common.flatten(1).numpy())
            common = common[torch.from_numpy(apart <= _SAME)]
        return common.to(self.origin.device)

    def normals(self, level: Level) -> Tensor | None:
        """The given normals; else estimates, once for each number of neighbours
        that a level's sampler asks for; None where a level has no use for them."""
        neighbors = getattr(level.poses, "num_neighbors", 24 if level.normals else None)
        if self.normal is not None or neighbors is None:
            return self.normal
        if neighbors not in self._estimated:
            self._estimated[neighbors] = estimate_normals(self.pos, neighbors)
        return self._estimated[neighbors]

    def base_frame(self, level: Level) -> Tensor | None:
        """The frame that a level's poses are turned to, found once for all levels;
        None where the sampler needs none."""
        align = alignment(level)
        if align is not None and align not in self._frames:
            self._frames[align] = ALIGNMENTS[align](self.pos)
        return self._frames.get(align)

    def in_world(self, poses: Poses) -> Poses:
        """Poses of this builder, turned and moved back to where the cloud is."""
        rot = self.frame @ (poses.rot[:1] if poses.shared else poses.rot)
        pos = poses.pos @ self.frame.T + self.origin
        return Poses(pos, rot.expand(poses.rot.shape), poses.group, poses.axial)

    def level(self, number: int) -> LevelStep:
        """Poses and geometric embedding of a level; those below must be finished."""
        level = self.levels[number]
        axes = None
        known = self.base_frame(level)
        if isinstance(level.poses, CentroidPoses):
            poses, points = level.poses(self.pos, **_given(known)), None
            _check_poses(level, poses, self.pos[:1])
        else:
            poses = self._everywhere(level, known)
            points = self._points(number)
            if level.pairs is not None:
                axes = poses.rot[:, 0, :, 2]
            if points is not None:
                poses = poses.select(points)
        embedding = None
        if number == 0 or not level.sampling.is_dense or self._bypassed(number):
            embedding = self._embedding(level, poses, axes)
        return LevelStep(self, number, level, poses, points, embedding)

    def _bypassed(self, number: int) -> bool:
        return number + 1 < len(self.levels) and self.levels[number + 1].bypass

    def _embedding(self, level: Level, poses: Poses, axes: Tensor | None) -> Tensor:
        if level.pairs is not None:
            return pair_embedding(poses, self.pos, axes, level.radius, level.pairs)
        normal = self.normals(level) if level.normals else None
        x = self.x if level.in_channels else None
        return geometric_embedding(poses, self.pos, level.radius, level.kernel_points, normal, x)

    def _everywhere(self, level: Level, frame: Tensor | None) -> Poses:
        """Poses on all points; grids, and axes along normals, are found once for all levels."""
        sampler = level.poses
        known = type(sampler) in (NormalPoses, GridPoses)  # a user's own may look at more
        if known and sampler in self._known:
            return self._known[sampler]
        normal = self.normal if isinstance(sampler, NormalPoses) else self.normals(level)
        poses = sampler(self.pos, normal, **_given(frame))
        _check_poses(level, poses, self.pos)
        if known:
            self._known[sampler] = poses
        return poses

    def sampled(self, step: LevelStep, chosen: Representatives) -> SampledLevel:
        """What a level sampled, in the coordinates and rows of the cloud given."""
        points = None
        if not isinstance(step.level.poses, CentroidPoses):
            points = self.rows if step.points is None else self.rows[step.points]
        return SampledLevel(self.in_world(step.poses), points, step.embedding, chosen)

    def _points(self, number: int) -> Tensor | None:
        """Points of a level as rows of the cloud, or None for all of them."""
        limits = [lv.num_points for lv in self.levels[: number + 1] if lv.num_points is not None]
        if not limits or min(limits) >= len(self.pos):
            return None
        return self.order[: min(limits)]

    @functools.cached_property
    def order(self) -> Tensor:
        """Rows of the cloud in spatial FPS order, as far as any level needs them.

        Ties go to the first in canonical order, which is the same in all copies.
        """
        wanted = [lv.num_points or 0 for lv in self.levels]
        wanted += [lv.sampling.seeds or 0 for lv in self.levels]
        count = min(len(self.pos), max(*wanted, 1))
        return farthest_point_sampling(self.pos, count)[0]

    def finish(self, step: LevelStep, chosen: Representatives, points: bool = False) -> LevelGraph:
        """The graph of a level whose representatives are chosen; with ``points`` also what
        the points of the cloud read of it."""
        poses = step.poses
        if poses.shared:
            pos, rot = self.in_world(poses).at(chosen.index)
        else:
            pos, rot = poses.at(chosen.index)
            pos, rot = pos @ self.frame.T + self.origin, self.frame @ rot
        graph = LevelGraph(
            count=torch.tensor([chosen.num], device=self.pos.device),
            weight=chosen.multiplicity.to(self.pos),
            pos=pos,
            rot=rot,
            basis=0,
        )
        if step.number == 0:
            graph.lift = step.lift(chosen)
            if (frame := self.base_frame(step.level)) is not None:
                graph.spread = (self.pos @ frame).square().mean(0)[None]
        else:
            graph.basis = step.level.basis
            entries, graph.col, graph.val = step.operator(chosen)
            graph.entries = (entries[1:] - entries[:-1]).to(torch.int32)
            graph.bypass = step.bypass(chosen) if step.level.bypass else None
        size = (*poses.rot.shape[:2], -1)
        seen = step.embedding.flatten(0, 1) if self._bypassed(step.number) else None
        shared, share = chosen.shared.view(size), chosen.share.view(size)
        self.below = _Below(poses, shared, share, chosen.num, seen)
        if points:
            graph.points = point_rows(poses, shared, share, chosen.num, self.pos, self.rows)
        return graph


def alignment(level: Level) -> str | None:
    """The name in ``poses.ALIGNMENTS`` of the frame that a level's poses are turned to; None where
    its sampler needs none, or is a user's own that takes none.

    **Equivariance:** does not apply.
    """
    align = getattr(level.poses, "align", None)
    known = ALIGNMENTS.get(align) is not None and _takes_frame(level.poses)
    return align if known else None


def _check_poses(level: Level, poses: Poses, places: Tensor) -> None:
    """Whether a sampler, which may be a user's own, has put poses on all places [N, 3].

    Raises:
        ShapeError: it has not.
    """
    wrong = _misplaced(poses, places)
    if wrong is not None:
        raise ShapeError(f"`poses` (={level.poses!r:.200}) must return {wrong}")


def _misplaced(poses: Poses, places: Tensor) -> str | None:
    """What a sampler should have returned in place of these poses; None where they are right."""
    if not isinstance(poses, Poses):
        return f"pcequi.poses.Poses(pos, rot), not a {type(poses).__name__}"
    found = [list(value.shape) for value in (poses.pos, poses.rot)]
    turns = poses.rot.shape[1:]
    if found != [[len(places), 3], [len(places), *turns]] or turns[1:] != (3, 3) or not turns[0]:
        return f"`pos` [N, 3] and `rot` [N, K, 3, 3] of all N (={len(places)}) points, not {found}"
    if poses.group is not None and poses.group.shape != turns:
        return f"a `group` (={list(poses.group.shape)}) of its K frames {list(turns)}, or None"
    for name in ("pos", "rot", "group"):
        value = getattr(poses, name)
        if value is not None and (value.dtype, value.device) != (places.dtype, places.device):
            return (
                f"`{name}` as the points that it is given ({places.dtype}, {places.device}), not "
                f"{value.dtype}, {value.device}; take `.to(pos)`"
            )
    return None


def _takes_frame(sampler) -> bool:
    method = type(sampler).__call__  # of a function or the like: of its own signature instead
    return _has_frame(method) if isfunction(method) else _has_frame.__wrapped__(sampler)


@functools.lru_cache(maxsize=64)  # a graph asks four times, which would cost a fiftieth of it
def _has_frame(function) -> bool:
    named = signature(function).parameters
    return "frame" in named or any(one.kind is one.VAR_KEYWORD for one in named.values())


def _given(frame: Tensor | None) -> dict[str, Tensor]:
    return {} if frame is None else {"frame": frame}


def _centered(pos: Tensor, origin: Tensor) -> Tensor:
    """Points less their mean, exactly zero where they differ by rounding alone."""
    centered = pos - origin
    size = centered.abs().max()
    if not torch.isfinite(size * size * len(pos)):
        raise DataError(
            f"`pos` reaches {float(size):.2g} from its mean, too far for squares of distances; "
            "scale the cloud to unit radius"
        )
    return torch.zeros_like(centered) if size <= ROUNDING * origin.abs().max() else centered

"""Sampling of representative poses in feature space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.assignment import assign, blend, covering, distance_to_means
from pcequi.clouds import all_finite
from pcequi.constants import constant
from pcequi.errors import ArgumentError, DataError, ShapeError, check_count
from pcequi.lloyd import lloyd
from pcequi.ops import farthest_point_sampling
from pcequi.ops.precision import own_precision
from pcequi.orbits import Orbits
from pcequi.sampled import has_kernels, sampled
from pcequi.short_repr import short_repr

METHODS = ("fps", "random", "spatial")
CENTERS = ("medoid", "mean")
# The search for the nearest keeps 16 candidates apart; more never gained anything.
_MOST_BLENDED = 15


@dataclass(repr=False)
class Representatives:
    """Which poses stand for which, for a batch of clouds.

    Attributes:
        index: pose of each representative [M], cloud by cloud.
        assignment: nearest representative of each pose [P], in [0, M).
        distance: embedding distance of each pose to it [P], to the mean of its cluster where that
            is what it stands for (``center`` of "mean", with the nearest alone).
        multiplicity: number of poses that each representative stands for [M],
            the sum of its shares.
        covering_radius: largest ``distance`` in each cloud [B].
        batch: cloud of each representative [M].
        shared: representatives whose output a pose shares [P, k], in [0, M); with
            the nearest alone, k is 1.
        share: how much of each [P, k]; rows sum to one, unused places are zero.

    **Equivariance:** indices and distances; see ``FeatureSampler``.
    """

    index: Tensor
    assignment: Tensor
    distance: Tensor
    multiplicity: Tensor
    covering_radius: Tensor
    batch: Tensor
    shared: Tensor
    share: Tensor

    __repr__ = short_repr

    def spread(self, x: Tensor) -> Tensor:
        """What each pose gets of its representatives' values, [M, C] to [P, C].

        **Equivariance:** each row follows its pose.
        """
        return (x[self.shared] * self.share.to(x.dtype)[..., None]).sum(1)

    @property
    def num(self) -> int:
        """Number of representatives, M."""
        return len(self.index)


def sampling_key(embedding: Tensor) -> Tensor:
    """Tie-breaker of feature-space FPS: a fixed generic linear function [P].

    Mirror images have equal distances but different keys, so that rounding
    does not decide between them; see ``ops.fps``.

    **Equivariance:** as invariant as the embedding.
    """
    return embedding @ _direction(embedding.shape[1]).to(embedding)


@constant
def _direction(dim: int) -> Tensor:
    step = torch.arange(1, dim + 1, dtype=torch.float64)
    return torch.frac(step * (math.sqrt(5) - 1) / 2) + 0.5


@dataclass(frozen=True)
class FeatureSampler:
    """Chooses representative poses, by a budget and a method.

    Args:
        num: representatives a cloud.
        ratio: or a share of each cloud's poses, in (0, 1].
        tolerance: or a bound on the covering radius, in units of the embedding;
            with ``num`` or ``ratio`` too, that is the most that are taken.
            None of the three: every pose is its own representative (dense).
        method: "fps" in feature space; "random" poses with nearest assignment;
            "spatial": FPS over positions, all K rotations of a chosen point,
            each pose assigned to the same rotation at the nearest chosen point.
        refine: Lloyd steps after the choice ("fps" and "random").
        center: what a representative stands for: "medoid" (the member nearest
            to the cluster's mean) or "mean" (the mean of its members' rows; with ``blend`` the
            rows from which all poses are had back with the least error, see ``centers``. While a
            graph is made that takes a number for each pose and representative, and time that grows
            with the square of the representatives).
        seeds: FPS and Lloyd run on the poses of the first ``seeds`` points of
            a spatial FPS order instead of on all; all are assigned at the end. Of
            no effect where these have fewer poses than the budget, as without ``num`` and
            ``ratio``.
        blend: nearest representatives of which a pose shares a weighted mean,
            see ``ops.blend_centers``. 1: the output of the nearest. More cost
            entries of the sparse operator and lose less: with 6, a third to a half
            less of the variance.
        orbits: representatives are whole orbits, all K poses of a point, and
            points are compared in all K frames at once. For frames that are one
            base frame times a group; where that permutes the kernel's points
            ("C2", "C4", "D2", "T", "O") there is K times less to search. The budget
            counts poses, and at least one orbit is taken.

    Raises:
        ArgumentError: a value outside its range, budgets that exclude each other,
            ``blend`` or ``orbits`` with "spatial" sampling, which takes whole orbits anyway.

    **Equivariance:** a function of the embeddings' distances and of a fixed
    key of them: as invariant as they are. ``random`` is not.
    """

    num: int | None = None
    ratio: float | None = None
    tolerance: float | None = None
    method: str = "fps"
    refine: int = 0
    center: str = "medoid"
    seeds: int | None = None
    blend: int = 1
    orbits: bool = False

    def __post_init__(self):
        if self.method not in METHODS:
            raise ArgumentError(f"`method` (={self.method!r}) must be one of {METHODS}")
        if self.center not in CENTERS:
            raise ArgumentError(f"`center` (={self.center!r}) must be one of {CENTERS}")
        for name, least in (("num", 1), ("seeds", 1), ("refine", 0), ("blend", 1)):
            none = name in ("num", "seeds")
            object.__setattr__(self, name, check_count(name, getattr(self, name), least, none=none))
        for name in ("ratio", "tolerance"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ArgumentError(f"`ratio` (={self.ratio}) must be in (0, 1]")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ArgumentError(f"`tolerance` (={self.tolerance}) must be positive")
        if self.ratio is not None and self.num is not None:
            raise ArgumentError(
                f"`num` (={self.num}) and `ratio` (={self.ratio}) are two budgets; give one"
            )
        if self.tolerance is not None and self.method != "fps":
            raise ArgumentError(
                f"`tolerance` (={self.tolerance}) needs `method` 'fps', not {self.method!r}"
            )
        if self.tolerance is not None and self.center == "mean" and self.blend == 1:
            raise ArgumentError(
                f"`tolerance` (={self.tolerance}) bounds distances to poses; take `center` "
                "'medoid', not 'mean', or `blend` several"
            )
        if self.blend > _MOST_BLENDED:
            raise ArgumentError(f"`blend` (={self.blend}) must be between 1 and {_MOST_BLENDED}")
        if self.blend > 1 and self.method == "spatial":
            raise ArgumentError(
                f"`blend` (={self.blend}) must be 1 with `method` 'spatial': representatives are "
                "blended by their embeddings"
            )
        if self.orbits and self.method == "spatial":
            raise ArgumentError(
                f"`orbits` (={self.orbits}) must be False with `method` 'spatial', which takes "
                "all rotations of a point anyway"
            )

    @property
    def is_dense(self) -> bool:
        """Whether every pose is kept."""
        return self.num is None and self.ratio is None and self.tolerance is None

    def budget(self, poses: int) -> int:
        """Representatives for a cloud with this many poses."""
        if self.ratio is not None:
            return max(1, round(self.ratio * poses))
        return poses if self.num is None else min(self.num, poses)

    @own_precision
    def __call__(
        self,
        embedding: Tensor,
        batch: Tensor | None = None,
        *,
        pos: Tensor | None = None,
        num_rotations: int = 1,
        seed_rows: Tensor | None = None,
        generator: torch.Generator | None = None,
        strict: bool = True,
        products: Tensor | None = None,
        closed: bool = False,
    ) -> Representatives:
        """Sample representatives.

        Args:
            embedding: [P, D], one row a pose.
            batch: sorted cloud of each pose [P]; None for one cloud.
            pos: position of each pose [P, 3]; needed by ``method="spatial"``.
            num_rotations: K, poses of a point are consecutive; for "spatial" and
                ``orbits``.
            seed_rows: rows (of one cloud) on which FPS and Lloyd run; with
                ``orbits`` all poses of the points whose poses they are.
            generator: for ``method="random"``.
            strict: raise when ``num`` exceeds the poses of a cloud; otherwise
                such a cloud keeps them all.
            products: multiplication table [K, K] of the frames' group, see
                ``orbits.group_products``; needed by ``orbits``.
            closed: whether that group permutes the entries of an embedding, see
                ``orbits.Orbits``.

        Raises:
            ShapeError, DataError, ArgumentError: unusable input; the message
            names the argument.
        """
        num_rotations = check_count("num_rotations", num_rotations)
        orbits = Orbits(num_rotations, products, closed) if self.orbits else Orbits()
        if self.orbits and num_rotations > 1 and products is None:
            raise ArgumentError(
                "`products` (=None) is needed by `orbits`: poses whose frames are one base frame "
                "times a group (GridPoses with the name of one, TangentPoses); or drop `orbits`"
            )
        if products is not None and products.shape != (num_rotations, num_rotations):
            raise ShapeError(
                f"`products` (={list(products.shape)}) must be [K, K] of the `num_rotations` "
                f"(={num_rotations}) of a point"
            )
        clouds = _cloud_bounds(embedding, batch)
        if self.method == "spatial" and pos is not None and pos.shape != (len(embedding), 3):
            raise ShapeError(
                f"`pos` (={list(pos.shape)}) must be [poses, 3] (={[len(embedding), 3]}), the "
                "position of each pose"
            )
        if any((stop - start) % orbits.size for start, stop in clouds):
            raise ShapeError(
                f"`embedding` (={list(embedding.shape)}) must have `num_rotations` "
                f"(={num_rotations}) rows for each point of a cloud, where `orbits` are sampled"
            )
        parts, first = [], 0
        for cloud, (start, stop) in enumerate(clouds):
            rows = embedding[start:stop].detach()
            if strict and self.num is not None and self.num > stop - start:
                raise ArgumentError(
                    f"`num` (={self.num}) must be at most the number of poses "
                    f"(={stop - start}) of cloud {cloud}; lower it, or pass `strict=False` to "
                    "keep every pose of small clouds"
                )
            if self.method == "spatial" and not self._keeps_all(len(rows)):
                where = None if pos is None else pos[start:stop]
                found = self._spatial(rows, where, self.budget(len(rows)), num_rotations)
            else:
                found = self._sample(rows, orbits, seed_rows, generator)
            index, assignment, distance, shared, share = found
            count = rows.new_zeros(len(index)).index_add_(0, shared.flatten(), share.flatten())
            parts.append(
                (
                    index + start,
                    assignment + first,
                    distance,
                    count,
                    distance.max()[None],
                    torch.full_like(index, cloud),
                    shared + first,
                    share,
                )
            )
            first += len(index)
        if len(parts) == 1:
            return Representatives(*parts[0])
        return Representatives(*map(torch.cat, zip(*parts, strict=True)))

    def _keeps_all(self, poses: int) -> bool:
        return self.is_dense or (self.budget(poses) == poses and self.tolerance is None)

    def _sample(self, x, orbits, seed_rows, generator):
        """Index, assignment, distance, shared and share of one cloud."""
        size = orbits.size
        if self._keeps_all(len(x)):
            every = torch.arange(len(x), device=x.device)
            return every, every, x.new_zeros(len(x)), *self._own(every, x)
        num = max(1, self.budget(len(x)) // size)
        turned = orbits.rows(x)  # [orbits, K, D]; each pose is an orbit where K is 1
        few = seed_rows is None or len(seed_rows) < num * size
        rows = None if few else seed_rows[::size] // size
        found = None
        if self.method == "fps" and self.tolerance is None and has_kernels(x, num * size):
            generic = _direction(turned.shape[2])
            found = sampled(turned, rows, generic, num, self.refine, self.blend, orbits)
        if found is None:
            found = self._composed(turned, rows, num, orbits, generator)
        index, assignment, distance, shared, share = found
        if self.center == "mean" and self.blend == 1:
            distance = distance_to_means(x, assignment, index)
        elif orbits.mixed:  # what was compared is a mean over the poses of a point
            distance = (x - x[index[assignment]]).norm(dim=1)
        return index, assignment, distance, shared, share

    def _composed(self, turned, rows, num, orbits, generator):
        """What ``sampled`` returns, for every method and device."""
        size = orbits.size
        pool = turned if rows is None else turned[rows]
        key = sampling_key(pool.flatten(0, 1)).view(-1, size).amax(1)
        if self.method == "random":
            draw = "cpu" if generator is None else generator.device
            order = torch.randperm(len(pool), generator=generator, device=draw)
            index = order[:num].to(pool.device)
            assignment, distance = assign(pool, index)
        else:
            index, assignment, distance = farthest_point_sampling(
                pool[:, 0], num, key=key, tolerance=self.tolerance or 0.0, turned=pool
            )
        if self.refine:
            index = lloyd(pool, index, assignment, key, self.refine, orbits)
        if rows is not None:
            index = rows[index]
        changed = self.refine or rows is not None or orbits.mixed
        if self.tolerance is not None and changed:
            every = sampling_key(turned.flatten(0, 1)).view(turned.shape[:2]).amax(1)
            index = covering(turned, index, every, self.tolerance, num, orbits)
        if self.blend > 1:
            assignment, distance, shared, share = blend(turned, index, self.blend)
            shared, share = orbits.spread(shared), orbits.repeat(share)
        elif changed:
            assignment, distance = assign(turned, index)
        assignment, distance = orbits.spread(assignment), orbits.repeat(distance)
        if self.blend == 1:
            shared, share = self._own(assignment, distance)
        return orbits.poses(index), assignment, distance, shared, share

    def _own(self, assignment, x):
        """Shares of poses that take one representative each."""
        share = x.new_zeros(len(x), self.blend)
        share[:, 0] = 1
        return assignment[:, None].expand(-1, self.blend), share

    def _spatial(self, x, pos, num, num_rotations):
        if pos is None:
            raise ArgumentError("`pos` (=None) is needed by `method` 'spatial'; pass positions")
        if len(x) % num_rotations:
            raise ShapeError(
                f"`embedding` (={len(x)} poses of a cloud) must have `num_rotations` "
                f"(={num_rotations}) rows for each point, where `method` is 'spatial'"
            )
        points = max(1, num // num_rotations)
        where = pos.view(-1, num_rotations, 3)[:, 0]
        chosen, nearest, _ = farthest_point_sampling(where, points)
        orbits = Orbits(num_rotations)
        index, assignment = orbits.poses(chosen), orbits.poses(nearest)
        if self.center == "mean":
            distance = distance_to_means(x, assignment, index)
        else:
            distance = (x - x[index[assignment]]).norm(dim=1)
        return index, assignment, distance, *self._own(assignment, x)


def _cloud_bounds(embedding: Tensor, batch: Tensor | None) -> list[tuple[int, int]]:
    if embedding.dim() != 2 or not embedding.is_floating_point():
        raise ShapeError(f"`embedding` (={list(embedding.shape)}) must be floating, [poses, dim]")
    if len(embedding) == 0:
        raise DataError("`embedding` (shape [0, ...]) has no pose; a cloud needs at least one")
    if not all_finite(embedding):
        raise DataError("`embedding` has entries that are NaN or infinite; check the cloud")
    if batch is None:
        return [(0, len(embedding))]
    whole = not (batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool)
    if batch.shape != (len(embedding),) or not whole:
        raise ShapeError(
            f"`batch` (={list(batch.shape)}, {batch.dtype}) must be whole numbers, [poses] "
            f"(={len(embedding)})"
        )
    if batch[0] < 0 or (batch[1:] < batch[:-1]).any():
        raise DataError("`batch` is not sorted from 0 on; sort the poses by cloud first")
    counts = torch.bincount(batch)
    if (counts == 0).any():
        empty = int((counts == 0).int().argmax())
        raise DataError(f"`batch` skips cloud {empty}; every cloud needs at least one pose")
    stops = counts.cumsum(0).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))

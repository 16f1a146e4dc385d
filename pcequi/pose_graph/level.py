"""The settings of one level of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from pcequi.errors import ArgumentError, check_count
from pcequi.kernels import SE3Kernel, anchor_rotations, kernel_points
from pcequi.ops import check_radius
from pcequi.pair_kernel import PairKernel, check_pairs
from pcequi.poses import CentroidPoses, GridPoses, TangentPoses, sampler_from_dict, sampler_to_dict
from pcequi.sampling import FeatureSampler

_KINDS = {
    "radius": float,
    "rotation_width": float,
    "kernel_points": int,
    "kernel_rotations": int,
    "in_channels": int,
    "normals": bool,
    "bypass": bool,
}


@dataclass(frozen=True)
class Level:
    """One level of a network: where its poses are, what they see, how many stay.

    Args:
        radius: of the support, in units of the cloud (unit radius when normalised).
        poses: sampler of poses: one of ``pcequi.poses``, or any callable from points
            [N, 3] and their normals (or None) to ``Poses``. One of your own is called with
            points in a canonical pose and order, and its frames are turned back: it cannot see
            the world's axes, unless it says so by an attribute ``align`` of "none". Networks are
            saved with their levels, so one for a network is a dataclass and named in
            ``pcequi.poses.SAMPLERS``.
        sampling: budget and method.
        num_points: points that carry poses, the first of a spatial FPS order;
            None: all. Never more than the level below has.
        kernel_points: basis in space, see ``kernels.LAYOUTS``.
        kernel_rotations: anchors in SO(3), see ``kernels.SE3Kernel``. A pose
            reads, at each neighbouring point and for each anchor, the pose
            nearest in rotation to the anchor.
        rotation_width: support about an anchor, radians; see ``kernels.SE3Kernel``.
        normals: whether the geometry at this level includes normals.
        in_channels: numbers that the points bring beside their places, such as colours, which
            the poses of this level see as they see the points: sums of ``x`` [N, in_channels]
            around each kernel point, over the mass of all points seen. All levels that take any
            take the same. On the first level they go into the network, and on each they count in
            the sampling as geometry does, so scale them to about one. No rotation may change them:
            a velocity is none of them, its length is. No gradient flows to them.
        bypass: whether the representatives of this level also see, through its kernel, the
            geometry around *all* poses of the level below, past the sampling there: their
            embeddings, which nothing has learned. For a level above the first; worth having on
            the last one where few poses are kept below (docs/claims.md, 1).
        pairs: take the kernel on pairs of normals instead of kernel points and anchors:
            numbers of its functions, see ``pair_kernel.PairKernel``. The z axes of the
            poses are the normals; one pose a point, as ``NormalPoses`` has.

    Raises:
        ArgumentError: a value outside its range, or settings that do not fit each other.

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
    pairs: tuple[int, int, int, int] | None = None
    in_channels: int = 0
    bypass: bool = False

    def __post_init__(self):
        check_radius(self.radius)
        if isinstance(self.poses, type) or not callable(self.poses):
            raise ArgumentError(
                f"`poses` (={self.poses!r}) must be a sampler of poses, such as TangentPoses(8)"
            )
        if not isinstance(self.sampling, FeatureSampler):
            raise ArgumentError(
                f"`sampling` (={self.sampling!r}) must be a FeatureSampler, such as "
                "FeatureSampler(num=128)"
            )
        points = check_count("num_points", self.num_points, none=True)
        object.__setattr__(self, "num_points", points)
        if not 0 < self.rotation_width <= math.pi:
            raise ArgumentError(f"`rotation_width` (={self.rotation_width}) must be in (0, pi]")
        kernel_points(self.kernel_points, "kernel_points")
        anchor_rotations(self.kernel_rotations, "kernel_rotations")
        check_count("in_channels", self.in_channels, 0)
        turns = getattr(self.poses, "num_rotations", getattr(self.poses, "rotations", 1))
        grouped = isinstance(self.poses, TangentPoses) or isinstance(turns, str) or turns == 1
        if self.sampling.orbits and not grouped:
            raise ArgumentError(
                f"`sampling.orbits` (=True) needs `poses` (={self.poses!r}) whose frames are one "
                "base frame times a group: GridPoses with the name of one, or TangentPoses"
            )
        if self.pairs is not None:
            object.__setattr__(self, "pairs", check_pairs(self.pairs))
            turns = getattr(self.poses, "num_rotations", 1)
            if isinstance(self.poses, (GridPoses, CentroidPoses)) or turns != 1:
                raise ArgumentError(
                    f"`poses` (={self.poses!r}) must have one pose a point, along its normal, "
                    "where `pairs` is given; take NormalPoses()"
                )
            if self.normals:
                raise ArgumentError("`normals` (=True) is part of `pairs` already; leave it out")
            if self.in_channels:
                raise ArgumentError(
                    f"`in_channels` (={self.in_channels}) is for kernel points; leave out `pairs`"
                )
            if self.bypass:
                raise ArgumentError("`bypass` (=True) is for kernel points; leave out `pairs`")

        # NumPy's numbers are not for JSON.
        for name, kind in _KINDS.items():
            object.__setattr__(self, name, kind(getattr(self, name)))

    @property
    def basis(self) -> int:
        """Size of the kernel basis."""
        return math.prod(self.pairs or (self.kernel_points, self.kernel_rotations))

    def kernel(self) -> SE3Kernel | PairKernel:
        """The kernel basis of this level."""
        if self.pairs is not None:
            return PairKernel(self.pairs)
        return SE3Kernel(self.kernel_points, self.kernel_rotations, self.rotation_width)

    @property
    def lift_channels(self) -> int:
        """Width of the lifting input of this level."""
        if self.pairs is not None:
            return self.basis + 3  # see ``embedding.pair_embedding``
        return self.kernel_points * (1 + 3 * self.normals + self.in_channels)

    @property
    def takes_normals(self) -> bool:
        """Whether normals that are given make a difference at this level."""
        return self.normals or not isinstance(self.poses, (GridPoses, CentroidPoses))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        values = {k: getattr(self, k) for k in self.__dataclass_fields__}
        values["poses"] = sampler_to_dict(self.poses)
        values["sampling"] = vars(self.sampling).copy()
        values["pairs"] = self.pairs and list(self.pairs)
        for name in ("in_channels", "bypass"):
            if not values[name]:  # as in files from before there were any
                del values[name]
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

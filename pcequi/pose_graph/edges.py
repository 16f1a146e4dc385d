"""Which poses a pose reads, and the sparse matrix that comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.kernels import anchor_rotations, kernel_points, or_one, rotation_basis, space_basis
from pcequi.ops import HAS_NUMBA, coalesce_rows, pairs_within, wants_gradient
from pcequi.ops.precision import own_precision
from pcequi.pair_kernel import COINCIDE, SIGN_WIDTH, pair_basis
from pcequi.pose_graph.level import Level
from pcequi.poses import Poses
from pcequi.short_repr import short_repr

# Relative slack when the rotation nearest to an anchor is chosen: equal angles
# go to the first rotation in the sampler's own (data-given) order.
_ANGLE_TIE = 1e-5
# Numbers in the largest array of frames that are compared at once.
_MOST = 2**22


@dataclass(repr=False)
class PoseEdges:
    """Bipartite edges between poses, before anything is shared or added up.

    Attributes:
        edge_index: [2, E], source poses (point * K + rotation) above, targets below.
        offset: position of the source seen from the target, in units of the
            radius [E, 3].
        rotation: frame of the source seen from the target [E, 3, 3].
        anchor: anchor of the kernel for which the source was chosen [E].

    **Equivariance:** unchanged when all poses move together.
    """

    edge_index: Tensor
    offset: Tensor
    rotation: Tensor
    anchor: Tensor

    __repr__ = short_repr

    @property
    def relative_pose(self) -> tuple[Tensor, Tensor, Tensor]:
        """What ``nn.GroupConv`` takes beside ``edge_index``. Without ``anchor`` a layer of
        several anchors would give every edge to each of them, which is another layer."""
        return self.offset, self.rotation, self.anchor


@own_precision
def pose_edges(
    pos: Tensor,
    rot: Tensor,
    source: Poses,
    level: Level,
    batch: Tensor | None = None,
    source_batch: Tensor | None = None,
) -> PoseEdges:
    """The support of some poses: at each source point within the radius, and
    for each anchor, the pose nearest in rotation to the anchor.

    ``nn.GroupConv`` with ``level.kernel()`` takes ``edge_index`` and ``relative_pose`` of the
    result, with ``size=(source.num, len(pos))``, and gives what the compressed operator gives
    where all poses of the level below are kept.

    Args:
        pos: [T, 3], rot: [T, 3, 3], the target poses.
        source: poses of the level below, [S] points with K rotations.
        level: settings.
        batch: sorted cloud of each target [T], or None for one cloud.
        source_batch: sorted cloud of each source point [S].

    Raises:
        ArgumentError, ShapeError, DataError: one batch without the other, of other points, or
            not sorted.

    **Equivariance:** unchanged when all poses move together.
    """
    anchors = anchor_rotations(level.kernel_rotations).to(pos)
    target, near = pairs_within(source.pos, pos, level.radius, source_batch, batch)
    frame = rot[target]
    offset = torch.einsum("eij,ei->ej", frame, source.pos[near] - pos[target]) / level.radius
    if source.shared:
        turn = _nearest(rot, anchors, source)[target]
    else:
        turn = _nearest(frame, anchors, source, near)
    if source.axial and level.pairs is None:  # no rotation to compare: it counts as the anchor
        rotation = anchors.expand(len(target), *anchors.shape)
    else:
        rotation = frame.mT[:, None] @ source.rot[near[:, None], turn]
    pose = near[:, None] * source.num_rotations + turn
    count = len(anchors)
    return PoseEdges(
        torch.stack([pose.flatten(), target.repeat_interleave(count)]),
        offset.repeat_interleave(count, 0),
        rotation.flatten(0, 1),
        torch.arange(count, device=pos.device).repeat(len(target)),
    )


@torch.no_grad()
def _nearest(frame: Tensor, anchors: Tensor, source: Poses, near: Tensor | None = None) -> Tensor:
    """The rotation [E, A] nearest to each anchor seen from some frames [E, 3, 3], of those at
    the points ``near`` [E]; None: where all points have the same."""
    frames = source.rot.flatten(2)
    step = max(1, _MOST // (source.num_rotations * max(9, len(anchors))))
    turns = []
    for start in range(0, max(1, len(frame)), step):
        some = slice(start, start + step)
        wanted = torch.einsum("eij,ajk->eaik", frame[some], anchors).flatten(2)
        score = wanted @ (frames[0] if near is None else frames[near[some]]).mT  # traces [E, A, K]
        best = score.max(-1, keepdim=True).values
        turns.append((score >= best - _ANGLE_TIE).int().argmax(-1))
    return torch.cat(turns)


@own_precision
def pose_operator(
    pos: Tensor,
    rot: Tensor,
    source: Poses,
    shared: Tensor,
    share: Tensor,
    below: int,
    level: Level,
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of A of some poses, entries that share a place added up.

    At each source point within the radius, and for each anchor, the source
    pose nearest in rotation is read; its value is the basis function over the
    sum of all space functions of the row's pose. It goes to the representatives
    that this pose shares, to each its share.

    Args:
        pos: [T, 3], rot: [T, 3, 3], the poses whose rows are wanted.
        source: poses of the level below, [S] points with K rotations.
        shared: representatives of each source pose [S, K, k], in [0, below).
        share: how much of each [S, K, k].
        below: number of representatives of the level below.
        level: settings.

    Returns:
        CSR of a [T * basis, below] matrix: ``ptr``, ``col``, ``val``.

    **Equivariance:** unchanged when all poses move together.
    """
    if level.pairs is not None:
        return _pair_operator(pos, rot, source, shared, share, below, level)
    points, width = kernel_points(level.kernel_points)
    points = points.to(pos)
    anchors = anchor_rotations(level.kernel_rotations).to(pos)
    frames = (source.rot[:1] if source.shared else source.rot).flatten(2)
    tensors = (pos, rot, source.pos, frames, shared, share)
    if HAS_NUMBA and pos.device.type == "cpu" and not wants_gradient(*tensors):
        from pcequi.ops.compiled import neighborhoods

        arrays = [t.detach().contiguous().numpy() for t in tensors]
        edge = 1 + 2 * math.cos(level.rotation_width)
        out = neighborhoods.operator(
            *arrays,
            below,
            level.radius,
            points.numpy(),
            width,
            anchors.contiguous().numpy(),
            edge,
            _ANGLE_TIE,
            source.axial,
        )
        return tuple(map(torch.from_numpy, out))
    edges = pose_edges(pos, rot, source, level)
    target = edges.edge_index[1]
    space = space_basis(edges.offset, points, width)
    # Every anchor reads every neighbour once, so one anchor's edges make the mass.
    mass = pos.new_zeros(len(pos)).index_add_(0, target, space.sum(1)) / len(anchors)
    space = space / or_one(mass)[target][:, None]
    turned = edges.rotation @ anchors[edges.anchor].mT
    factor = rotation_basis(turned, anchors[:1], level.rotation_width)  # anchors[0] is I
    value = space * factor
    edge, point = value.nonzero(as_tuple=True)
    row = (target[edge] * len(points) + point) * len(anchors) + edges.anchor[edge]
    pose, value = edges.edge_index[0, edge], value[edge, point]
    return _share_out(row, pose, value, shared, share, len(pos) * level.basis, below)


def _pair_operator(pos, rot, source, shared, share, below, level):
    """``pose_operator`` of a level with a kernel on pairs."""
    if source.num_rotations != 1:
        raise ArgumentError(
            f"`source` (={source.num_rotations} poses a point) must have one pose a point below "
            "a level with `pairs`; take NormalPoses() for the level below too"
        )
    axes = source.rot[:, 0, :, 2]
    tensors = (pos, rot[:, :, 2], source.pos, axes, shared[:, 0], share[:, 0])
    if HAS_NUMBA and pos.device.type == "cpu" and not wants_gradient(*tensors):
        from pcequi.ops.compiled import pairs

        arrays = [t.detach().contiguous().numpy() for t in tensors]
        settings = (float(level.radius), level.pairs, (COINCIDE, SIGN_WIDTH))
        return tuple(map(torch.from_numpy, pairs.pair_operator(*arrays, below, *settings)))
    edges = pose_edges(pos, rot, source, level)
    near, target = edges.edge_index
    value = pair_basis(edges.offset, edges.rotation[:, :, 2], level.pairs)
    mass = pos.new_zeros(len(pos)).index_add_(0, target, value.sum(1))
    value = value / or_one(mass)[target][:, None]
    edge, function = value.nonzero(as_tuple=True)
    row = target[edge] * level.basis + function
    value = value[edge, function]
    return _share_out(row, near[edge], value, shared, share, len(pos) * level.basis, below)


def _share_out(row, pose, value, shared, share, num_rows, below):
    """Entries that poses have in rows, handed on to their representatives and added up."""
    part = share.flatten(0, 1)[pose]
    entry, place = part.nonzero(as_tuple=True)
    col = shared.flatten(0, 1)[pose[entry], place]
    value = value[entry] * part[entry, place]
    return coalesce_rows(row[entry], col, value, num_rows, below)

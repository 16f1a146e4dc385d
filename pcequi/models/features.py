"""Features out of a trained network: per representative, per pose, per point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.errors import ArgumentError
from pcequi.models.classifier import GroupConvClassifier
from pcequi.pose_graph import build_pose_graph, read_carriers
from pcequi.short_repr import short_repr

__all__ = ["CloudFeatures", "LevelFeatures", "extract_features"]


@dataclass(repr=False)
class LevelFeatures:
    """What one level of a network computed on one cloud.

    Attributes:
        x: features of each representative [M, C].
        pos: position of each representative [M, 3].
        rot: frame of each representative [M, 3, 3], columns its axes.
        assignment: nearest representative of each pose [N', K].
        shared: representatives of which each pose shares a mean [N', K, k].
        share: how much of each [N', K, k].
        pose_pos: position of the poses of each of the level's points [N', 3].
        pose_rot: frame of each pose [N', K, 3, 3].
        points: row of the cloud of each of the level's points [N']; None at the
            centroid, where N' is 1.
        cloud: the points of the cloud [N, 3].

    **Equivariance:** ``x`` and the shares stay, positions and frames turn and
    move with the cloud, and ``points`` follow the order of its points. Where a motion maps
    the cloud to itself (a box, a lattice, a sphere), the choice between the places that it
    exchanges may differ from copy to copy; sums over the cloud do not.
    """

    x: Tensor
    pos: Tensor
    rot: Tensor
    assignment: Tensor
    shared: Tensor
    share: Tensor
    pose_pos: Tensor
    pose_rot: Tensor
    points: Tensor | None
    cloud: Tensor

    __repr__ = short_repr

    def per_pose(self) -> Tensor:
        """Features of every pose [N', K, C]: its shares of its representatives'.

        **Equivariance:** the feature of a pose stays while the pose moves.
        """
        return (self.x[self.shared] * self.share.to(self.x.dtype)[..., None]).sum(2)

    def per_point(self) -> Tensor:
        """Invariant features of every point of the cloud [N, C].

        The mean over the poses of a point; a point without poses takes a mean of the
        nearest three that have some, weighted so that nothing jumps between them
        (``pose_graph.read_carriers``). At the centroid all points share one row.

        **Equivariance:** invariant, up to the cloud's own symmetries, which exchange points;
        rows follow the order of the points.
        """
        return self._to_points(self.per_pose().mean(1))

    def per_point_vectors(self, axis: int = 2) -> Tensor:
        """Vectors at every point of the cloud [N, C, 3], one a channel.

        The mean over the poses of a point of feature times an axis of the frame; for points
        without poses as ``per_point``.

        Args:
            axis: 0, 1 or 2 of the frame.

        Raises:
            ArgumentError: there is no such axis.

        **Equivariance:** turn with the cloud, up to the cloud's own symmetries, which
        exchange points; rows follow the order of the points.
        """
        if axis not in (0, 1, 2):
            raise ArgumentError(f"`axis` (={axis}) must be 0, 1 or 2")
        axes = self.pose_rot[..., axis].to(self.x.dtype)  # [N', K, 3]
        vectors = torch.einsum("nkc,nkd->ncd", self.per_pose(), axes) / axes.shape[1]
        return self._to_points(vectors.flatten(1)).view(len(self.cloud), -1, 3)

    def _to_points(self, values: Tensor) -> Tensor:
        """Values of the level's points [N', C], brought to all points of the cloud [N, C]."""
        if self.points is None:
            return values.expand(len(self.cloud), -1)
        # A level's points are in canonical order: the first of equals is the same in every copy.
        near, weight = read_carriers(self.cloud[self.points], self.cloud)
        return torch.einsum("nk,nkc->nc", weight.to(values.dtype), values[near])


@dataclass(repr=False)
class CloudFeatures:
    """Features of one cloud.

    Attributes:
        levels: one ``LevelFeatures`` a level of the network, the lifting first.
        pooled: mean and maximum over each level but the first [sum of 2 C], the
            input of the head.
        logits: [num_classes]; None of a network without a head, and while the network
            trains, as the batch norm of its head needs several clouds then.

    **Equivariance:** ``pooled`` and ``logits`` are invariant.
    """

    levels: list[LevelFeatures]
    pooled: Tensor
    logits: Tensor | None

    __repr__ = short_repr


def extract_features(
    model: GroupConvClassifier, pos: Tensor, normal: Tensor | None = None, x: Tensor | None = None
) -> CloudFeatures:
    """Run a network on one cloud and keep what every level computed.

    Gradients flow to the weights; wrap the call in ``torch.no_grad()`` where
    they are not needed, and call ``model.eval()`` first unless you train on them.

    Args:
        model: a ``GroupConvClassifier``.
        pos: one cloud [N, 3], scaled as in training (unit radius).
        normal: unit normals [N, 3], where the levels take them.
        x: what the points bring beside their places [N, C], where the levels take it.

    Returns:
        Features in the dtype of the weights; positions and frames in float64.

    Raises:
        ShapeError, DataError: the cloud is unusable.

    **Equivariance:** see ``LevelFeatures``; exact where the network's frames are
    taken from the data.
    """
    check_cloud(pos)
    wide = torch.promote_types(model.dtype, torch.float32)  # of A, as in graphs that are loaded
    pos = pos.to(model.device, torch.float64)
    normal = None if normal is None else normal.to(model.device)
    graph, sampled = build_pose_graph(pos, model.levels, normal=normal, x=x, embeddings=True)
    levels, graph_wide = [], graph.to(wide)
    features = model.level_features(graph_wide)
    for found, level, seen in zip(features, graph.levels, sampled, strict=True):
        size = seen.poses.rot.shape[:2]
        levels.append(
            LevelFeatures(
                x=found,
                pos=level.pos,
                rot=level.rot,
                assignment=seen.chosen.assignment.view(size),
                shared=seen.chosen.shared.view(*size, -1),
                share=seen.chosen.share.view(*size, -1),
                pose_pos=seen.poses.pos,
                pose_rot=seen.poses.rot,
                points=seen.points,
                cloud=pos,
            )
        )
    pairs = zip(features[1:], graph_wide.levels[1:], strict=True)
    every = torch.cat([model.pool(x, level) for x, level in pairs], 1)
    without = model.training or isinstance(model.head, torch.nn.Identity)
    return CloudFeatures(levels, every[0], None if without else model.head(every)[0])

"""The transform that attaches a precomputed ``PoseGraph`` to a ``Data``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pcequi.errors import ArgumentError
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.transforms.checks import points_of_one_cloud


class BuildPoseGraph(BaseTransform):
    """Attach the pose graph of ``data.pos`` (and ``data.normal``, where given, and ``data.x``
    where the levels take it: ``Level.in_channels``).

    Use it as ``pre_transform`` to pay once, or as ``transform`` to build at
    every access. PyG's own ``DataLoader`` batches the result. It comes last among the transforms
    that touch points, as the graph stays that of the points as they were: PyG's ``RandomJitter``,
    ``RandomScale``, ``RandomShear``, ``RandomFlip``, ``RandomRotate``, ``LinearTransformation``,
    ``Center``, ``NormalizeScale`` and ``NormalizeRotation`` have no effect after it, without a
    word. What drops or reorders points (``FixedPoints``) has none or is an error; pcequi's own
    transforms refuse. No gradient flows to them either, see
    ``build_pose_graph``.

    Args:
        levels: of the network; one ``Level`` alone will do for a graph of one level.
        seed: of levels that are sampled at random; the same for every cloud.
        points: also keep what the points read of each level, for features of points
            (``PoseGraph.to_points``).

    Raises:
        ArgumentError: no levels.
        DataError: ``data`` has no ``pos``, or is a batch of several clouds.
        ArgumentError, ShapeError, DataError: of ``x``, as ``build_pose_graph`` says.

    **Equivariance:** as ``build_pose_graph``.
    """

    def __init__(self, levels: Sequence[Level], seed: int = 0, points: bool = False):
        self.levels = [levels] if isinstance(levels, Level) else list(levels)
        if not self.levels:
            raise ArgumentError(
                "`levels` (=[]) must be at least one Level; take those of the network, model.levels"
            )
        self.seed, self.points = seed, points

    def forward(self, data: Data) -> Data:
        pos = points_of_one_cloud(data)
        generator = torch.Generator("cpu").manual_seed(self.seed)
        graph = build_pose_graph(
            pos,
            self.levels,
            normal=data.get("normal"),
            x=data.get("x") if any(level.in_channels for level in self.levels) else None,
            generator=generator,
            points=self.points,
        )
        return graph.store(data)

    def __repr__(self) -> str:
        # PyG warns where a data set was processed with a transform of another name.
        settings = repr([self.levels, self.seed, self.points])
        settings = re.sub(r" at 0x[0-9a-fA-F]+", "", settings)  # of a sampler that is a function
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        return f"BuildPoseGraph({len(self.levels)} levels, settings {digest})"

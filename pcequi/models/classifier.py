"""A group-convolutional classifier on compressed pose graphs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pcequi.errors import ArgumentError, check_count
from pcequi.models.hub import HubMixin
from pcequi.models.presets import preset
from pcequi.nn.block import GroupConvBlock
from pcequi.nn.lift_block import LiftBlock
from pcequi.nn.pooling import GroupPool
from pcequi.pose_graph import Level, LevelGraph, PoseGraph
from pcequi.poses import CentroidPoses

#: Names of the weights that depend on the classes.
LAST_LAYER = ("head.4.weight", "head.4.bias")


def check_head(model: torch.nn.Module) -> None:
    """Whether a network was made with a head, for what needs logits.

    Raises:
        ArgumentError: its ``num_classes`` is 0.

    **Equivariance:** does not apply.
    """
    if getattr(model, "settings", {}).get("num_classes") == 0:
        raise ArgumentError(
            "`model` (=with num_classes=0) has no head, so it gives features where logits are "
            "needed; make it with the number of its classes"
        )


def default_channels(levels: int) -> list[int]:
    """Channels of so many levels: 32, and twice as many on each level above, 256 at most.

    **Equivariance:** does not apply.
    """
    return [min(32 * 2**number, 256) for number in range(levels)]


class GroupConvClassifier(HubMixin, torch.nn.Module):
    """Lifting, group convolutions, group pooling of every level, and a head.

    The forward pass takes a graph and weights and samples nothing, so one
    ``state_dict`` serves graphs that are dense, precomputed or sampled online.
    ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` are those of
    huggingface_hub's ``PyTorchModelHubMixin``; see ``models.hub``.

    Args:
        levels: of the pose graph; the first one lifts.
        num_classes: logits; 0: no head and none of its weights, for features that
            go elsewhere.
        channels: one a level; by default ``default_channels``, as many as there are levels.
        head_channels: width of the hidden layer of the head.
        dropout: in the head.

    Shapes:
        a ``Data``, ``Batch`` or ``PoseGraph`` of G clouds -> logits [G, num_classes]; without
        a head the pooled features [G, 2 * sum(channels[1:])].

    Raises:
        ArgumentError: arguments that do not fit each other.

    **Equivariance:** invariant to whatever leaves the graph in place: SE(3)
    and the order of the points, for data-driven frames.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        channels: Sequence[int] | None = None,
        head_channels: int = 256,
        dropout: float = 0.4,
    ):
        super().__init__()
        if len(levels) < 2:
            raise ArgumentError(
                f"`levels` (={len(levels)} of them) must be at least two levels: the head reads "
                "those above the first, which lifts"
            )
        channels = default_channels(len(levels)) if channels is None else channels
        if len(channels) != len(levels):
            raise ArgumentError(
                f"`channels` (={list(channels)}) must have one entry a level "
                f"(={len(levels)} levels); leave it out for {default_channels(len(levels))}"
            )
        num_classes = check_count("num_classes", num_classes, 0)
        head_channels = check_count("head_channels", head_channels)
        channels = [check_count(f"channels[{i}]", width) for i, width in enumerate(channels)]
        self.levels = list(levels)
        self.settings = {
            "levels": [level.to_dict() for level in levels],
            "num_classes": num_classes,
            "channels": channels,
            "head_channels": head_channels,
            "dropout": float(dropout),
        }
        self._hub_mixin_config = self.settings  # what huggingface_hub writes to config.json
        self.lift = LiftBlock(levels[0].lift_channels, channels[0])
        self.blocks = torch.nn.ModuleList(
            GroupConvBlock(wide, wider, level.kernel(), _bypass_channels(below, level))
            for wide, wider, below, level in zip(
                channels, channels[1:], levels, levels[1:], strict=False
            )
        )
        self.pool = GroupPool()
        self.head = torch.nn.Identity()
        if num_classes:
            self.head = torch.nn.Sequential(
                torch.nn.Linear(2 * sum(channels[1:]), head_channels, bias=False),
                torch.nn.BatchNorm1d(head_channels),
                torch.nn.ReLU(),
                torch.nn.Dropout(dropout),
                torch.nn.Linear(head_channels, num_classes),
            )

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights; graphs are read in it."""
        return self.lift.layers[1].weight.dtype

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self.lift.layers[1].weight.device

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in (self.lift, *self.blocks):
            module.reset_parameters()
        for module in self.head.modules():
            if module is not self.head and hasattr(module, "reset_parameters"):
                module.reset_parameters()

    @classmethod
    def from_settings(cls, settings: dict) -> GroupConvClassifier:
        """The (untrained) network that ``settings`` describe; plain JSON values."""
        settings = dict(settings)
        settings["levels"] = [Level.from_dict(level) for level in settings["levels"]]
        return cls(**settings)

    @classmethod
    def from_preset(cls, name: str, num_classes: int | None = None) -> GroupConvClassifier:
        """A network by name.

        Args:
            name: one of ``models.PRESETS``, for an untrained network; or one of
                ``networks.network_names()``, such as ``"modelnet40"``, for a trained
                one, which has classes of its own.
            num_classes: logits of an untrained network, 0 for none; of a trained one the last
                layer is then drawn anew, or the head left out, and all others stay as they
                have learned.

        Raises:
            ArgumentError: no such name, or ``num_classes`` is missing.

        **Equivariance:** as the class.
        """
        from pcequi.networks import load_network, network_names

        if name in network_names():
            trained = load_network(name).model
            if num_classes is None:
                return trained
            model = cls.from_settings(trained.settings | {"num_classes": num_classes})
            learned, own = trained.state_dict(), model.state_dict()
            new = LAST_LAYER if num_classes else ()
            model.load_state_dict(own | {k: learned[k] for k in own if k not in new})
            return model
        settings = preset(name)
        if num_classes is None:
            raise ArgumentError(f"`num_classes` (=None) is needed by the untrained preset {name!r}")
        return cls(num_classes=num_classes, **settings)

    def with_levels(self, levels: Sequence[Level]) -> GroupConvClassifier:
        """The same network for graphs of other levels: other budgets, or other poses.

        The modules are shared with their weights, not copied, and so is what changes within them
        (``train()``, ``eval()``, an entry of ``head``); a module that is put in another's place,
        or a hook, is its own. ``copy.deepcopy`` makes everything its own.

        Args:
            levels: as many, with the same kernels.

        Raises:
            ArgumentError: the weights do not fit these levels.

        **Equivariance:** as the class, with the poses of ``levels``.
        """
        levels = list(levels)
        if _widths(levels) != _widths(self.levels):
            raise ArgumentError(
                f"`levels` (=with {_widths(levels)} basis functions) must have those of the "
                f"network's own, {_widths(self.levels)}: weights are of kernels, not of poses"
            )
        seen, own = (
            f"normals={first.normals}, in_channels={first.in_channels} on the first, "
            f"bypass={[level.bypass for level in rest]} above"
            for first, *rest in (levels, self.levels)
        )
        if seen != own:  # of which the widths may be the same
            raise ArgumentError(f"`levels` (={seen}) must see what the network's own see: {own}")
        other = copy.copy(self)
        for name, value in vars(self).items():  # modules by name, hooks: its own from here on
            if name.startswith("_") and isinstance(value, dict):
                setattr(other, name, copy.copy(value))
        other.levels = levels
        other.settings = {**self.settings, "levels": [level.to_dict() for level in levels]}
        other._hub_mixin_config = other.settings
        return other

    def with_budget(self, **budget) -> GroupConvClassifier:
        """The same network at another budget; levels at the centroid keep their few poses.

        Modules are shared, not copied, as ``with_levels`` does.

        Args:
            budget: ``num``, ``ratio`` or ``tolerance`` of ``FeatureSampler``, for every other
                level; none: dense.

        Raises:
            ArgumentError: a value outside its range.

        **Equivariance:** as the class.
        """
        return self.with_levels(
            level if isinstance(level.poses, CentroidPoses) else level.with_budget(**budget)
            for level in self.levels
        )

    def forward(self, data: Data | Batch | PoseGraph) -> Tensor:
        """Logits [G, num_classes] of a ``Data``, ``Batch`` or ``PoseGraph`` of G clouds; without
        a head what ``pooled`` gives.

        Raises:
            ArgumentError: the graph was built with other levels, or in training is that of
                one cloud alone.

        **Equivariance:** as the class.
        """
        pooled = self.pooled(data)
        self.check_clouds(pooled.shape[0])
        return self.head(pooled)

    def check_clouds(self, number: int) -> None:
        """Whether so many clouds are enough for the head, which in training needs two.

        Raises:
            ArgumentError: they are not.

        **Equivariance:** does not apply.
        """
        if self.training and number == 1:
            # Not frozen ones, nor those that several processes share.
            norms = [m for m in self.head.modules() if type(m) is torch.nn.BatchNorm1d]
            if any(norm.training for norm in norms):
                raise ArgumentError(
                    "`data` (=one cloud) is too few for batch norm in training, which needs two; "
                    "take DataLoader(..., drop_last=True), or call model.eval()"
                )

    def pooled(
        self, data: Data | Batch | PoseGraph, turns: Sequence[Tensor] | None = None
    ) -> Tensor:
        """What the head sees: mean and maximum of each level above the first,
        [G, 2 * sum(channels[1:])].

        Args:
            data: as ``forward`` takes.
            turns: see ``level_features``.

        **Equivariance:** invariant, as the logits are.
        """
        graph = data if isinstance(data, PoseGraph) else PoseGraph.load(data)
        features = self.level_features(graph, turns)
        pairs = zip(features[1:], graph.levels[1:], strict=True)
        return torch.cat([self.pool(x, level) for x, level in pairs], 1)

    def level_features(
        self, data: Data | Batch | PoseGraph, turns: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Features of the representatives [M, C] of each level, the lifting one first.

        ``PoseGraph.to_points`` brings them to the points of the clouds.

        Args:
            data: as ``forward`` takes.
            turns: of each level a permutation [B] of its kernel's functions: function b is taken
                for what the graph has of function ``turn[b]``, as in a cloud that is seen from
                turned frames, see ``models.orders``.

        **Equivariance:** invariant, while the representatives move with the clouds.
        """
        graph = data if isinstance(data, PoseGraph) else PoseGraph.load(data)
        self._check_graph(graph)
        features, below = [], None
        for number, level in enumerate(graph.levels):
            x = features[-1] if number else None
            features.append(self.run_level(number, x, level, below, turns))
            below = level.count
        return features

    def _check_graph(self, graph: PoseGraph) -> None:
        """Whether a graph was built with levels like the network's."""
        own = _widths(self.levels)
        first, *rest = graph.levels
        found = [first.lift.shape[1], *(level.basis for level in rest)]
        if found != own:
            raise ArgumentError(
                f"`data` (=a graph with {found} basis functions on its levels) was built with "
                f"other levels than the network's, which have {own}; build it with "
                "BuildPoseGraph(model.levels), and process the data set anew if it keeps graphs"
            )
        for number, (level, own) in enumerate(zip(graph.levels, self.levels, strict=True)):
            if (level.bypass is not None) != own.bypass:
                raise ArgumentError(
                    f"`data` (=a graph {'without' if own.bypass else 'with'} `bypass` on level "
                    f"{number}) was built with other levels than the network's; build it with "
                    "BuildPoseGraph(model.levels)"
                )

    def run_level(
        self,
        number: int,
        x: Tensor | None,
        level: LevelGraph,
        sources: Tensor | None,
        turns: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Features [M, C] of one level; ``x`` and ``sources`` are of the level below, ``turns``
        are those of ``level_features``."""
        turn = None if turns is None else turns[number]
        if number == 0:
            lift = level.lift if turn is None else level.lift.index_select(1, turn)
            return self.lift(lift.to(self.dtype))
        if turn is None or level.bypass is None:
            return self.blocks[number - 1](x, level, sources, turn)
        # Of the embeddings below, of which each function has several numbers.
        inner, each = turns[number - 1], 1 + self.levels[number - 1].in_channels
        if number > 1:
            inner = (inner[:, None] * each + torch.arange(each, device=inner.device)).flatten()
        bypass_turn = (turn[:, None] * len(inner) + inner).flatten()
        return self.blocks[number - 1](x, level, sources, turn, bypass_turn)


def _bypass_channels(below: Level, level: Level) -> int:
    return level.basis * below.lift_channels if level.bypass else 0


def _widths(levels: Sequence[Level]) -> list[int]:
    """What the weights of each level read: basis functions, geometry on the first."""
    return [level.basis if number else level.lift_channels for number, level in enumerate(levels)]

"""The figures of ``pcequi check``: how far the default network is from exact.

Every figure builds the pose graph again from the moved points. A figure is
``testing.relative_change`` of the logits of one cloud: the norm of the change
over the norm of the logits less their mean.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pcequi.models import GroupConvClassifier, forward_online
from pcequi.models.presets import preset as preset_settings
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.rotations import octahedral_group, random_rotations
from pcequi.testing import generic_clouds, relative_change, symmetric_clouds
from pcequi.testing.probe import in_dtype

__all__ = ["EXPLANATIONS", "LIMITS", "TIE_RULE", "equivariance_figures", "randomized_network"]

#: What each figure must stay under; the others are reported without a limit.
LIMITS = {
    "invariance_float64": 1e-8,
    "invariance_symmetric": 1e-8,
    "permutation": 1e-8,
    "permutation_symmetric": 1e-8,
    "finite_group_error": 1e-8,
    "invariance_float32": 1e-4,
    "dense_agreement": 1e-5,
}

#: One line on each figure, for people.
EXPLANATIONS = {
    "invariance_float64": "worst, generic clouds, random rotations and translations, float64",
    "invariance_float32": "median of the same, moved points rounded to float32",
    "invariance_float32_worst": "worst of the same: rounding decides where sampling nearly ties",
    "invariance_symmetric": "worst over cube, grid and sphere, float64: exact ties everywhere",
    "invariance_symmetric_float32": "worst of the same, moved points rounded to float32",
    "permutation": "worst, generic clouds, new order of the points, float64",
    "permutation_symmetric": "worst, cube, grid and sphere, new order of the points, float64",
    "finite_group_error": "worst, frames fixed in the world, a cube's rotations, shifts, float64",
    "grid_error": "mean, frames fixed in the world, all poses kept; falls as the grid grows",
    "grid_error_sampled": "the same with the network's budgets: the selection jumps too",
    "dense_agreement": "worst, all poses as representatives against dense, float32",
}

#: How ties are decided, for people.
TIE_RULE = (
    "Ties. Farthest-point sampling is discontinuous: of two candidates at equal distance, "
    "rounding could take either. So every cloud is first brought to one pose and one order that "
    "all its moved copies share (of several such poses, which only a symmetric cloud has, any "
    "gives the same features). Squared distances within 1e-5 of the largest (relative) then count "
    "as equal; among equals the largest key wins, a fixed linear function of the embedding, and "
    "after that the first in the shared order. Points rounded to float32 move by 1e-7, which "
    "exact ties survive; but candidates whose distances differ by just about 1e-5 can swap, and "
    "the logits jump by what one representative is worth. That is most of the gap between the "
    "median and the worst figure in float32: graphs are built in float64."
)


def randomized_network(
    levels: Sequence[Level], channels: Sequence[int], seed: int = 0, num_classes: int = 40
) -> GroupConvClassifier:
    """A network with random weights, float64, that could have been trained.

    Fresh batch norms expect unit variance and would let logits degenerate, so
    their statistics are taken from eight random clouds, and their scales and
    shifts are drawn: scales in [0.5, 1.5], shifts with deviation 0.1.

    Args:
        levels, channels: settings of the network.
        seed: of the weights.
        num_classes: logits.

    **Equivariance:** as ``GroupConvClassifier``.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = GroupConvClassifier(levels, num_classes, channels).double()
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.1)
            norm.momentum = 1.0
        clouds = generic_clouds(8, least=128, most=256, generator=generator)
        model.train()(PoseGraph.batch([build_pose_graph(cloud, levels) for cloud in clouds]))
        for norm in norms:
            norm.momentum = 0.1
    return model.eval().requires_grad_(False)


def equivariance_figures(
    preset: str | dict = "default",
    seed: int = 0,
    *,
    num_clouds: int = 32,
    num_rotations: int = 2,
    points: tuple[int, int] = (256, 1024),
    dense_points: int = 48,
    grids: tuple[int, int] = (24, 384),
    grid_points: int = 16,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Measure a network with random weights; what ``pcequi check`` prints.

    Args:
        preset: name of a preset, or a dictionary of ``levels`` and ``channels``.
        seed: of weights, clouds and motions.
        num_clouds: generic clouds, of between ``points`` many points.
        num_rotations: motions of each cloud.
        points: least and most points of a generic cloud.
        dense_points: points of the clouds that are run with all poses.
        grids: sizes of the two grids of ``grid_error``, the coarse one first.
        grid_points: points of the eight clouds that are run on grids.
        progress: told the name of each figure before it is measured.

    Returns:
        The figures that ``EXPLANATIONS`` explains; besides ``seconds``,
        ``passed`` (all of ``LIMITS`` hold, and ``grid_error`` falls), and what was measured.

    **Equivariance:** figures about it.
    """
    settings = preset_settings(preset) if isinstance(preset, str) else preset
    levels, channels = settings["levels"], settings["channels"]
    start, tell = time.perf_counter(), progress or (lambda name: None)
    generator = torch.Generator().manual_seed(seed)
    clouds = generic_clouds(num_clouds, least=points[0], most=points[1], generator=generator)
    model = randomized_network(levels, channels, seed)
    single = in_dtype(model, torch.float32)
    figures: dict = {}

    tell("invariance_float64")
    wide = list(_changes(model, clouds, num_rotations, generator))
    figures["invariance_float64"] = max(wide)
    tell("invariance_float32")
    narrow = list(_changes(single, clouds, num_rotations, generator))
    figures["invariance_float32"] = statistics.median(narrow)
    figures["invariance_float32_worst"] = max(narrow)
    tell("invariance_symmetric")
    shapes = symmetric_clouds()
    each = {name: max(_changes(model, [cloud], 8, generator)) for name, cloud in shapes.items()}
    figures["invariance_symmetric"] = max(each.values())
    figures["invariance_symmetric_each"] = each
    tell("invariance_symmetric_float32")
    narrow = _changes(single, shapes.values(), 4, generator)
    figures["invariance_symmetric_float32"] = max(narrow)
    tell("permutation")
    figures["permutation"] = max(_permuted(model, clouds[:8], 2, generator))
    figures["permutation_symmetric"] = max(_permuted(model, shapes.values(), 4, generator))
    tell("finite_group_error")
    fixed = randomized_network(fixed_frames(levels, "O"), channels, seed)
    group = octahedral_group(dtype=torch.float64)[1:]
    shift = torch.randn(3, generator=generator, dtype=torch.float64)
    figures["finite_group_error"] = max(
        _change(fixed, cloud, cloud @ turn.T + shift) for cloud in clouds[:2] for turn in group
    )
    small = generic_clouds(3, least=dense_points, most=dense_points, generator=generator)
    figures["grid_error"], figures["grid_error_sampled"] = {}, {}
    # One network, and the same clouds and turns on both grids: draws differ more than grids do.
    coarse = randomized_network(fixed_frames(levels, grids[0]), channels, seed)
    for size in grids:
        tell(f"grid_error {size}")
        fixed = coarse.with_levels(fixed_frames(levels, size))
        for name, network in (("grid_error", fixed.with_budget()), ("grid_error_sampled", fixed)):
            draws = torch.Generator().manual_seed(seed)
            few = generic_clouds(8, least=grid_points, most=grid_points, generator=draws)
            figures[name][str(size)] = statistics.mean(_changes(network, few, 2, draws))
    tell("dense_agreement")
    figures["dense_agreement"] = max(_dense_changes(single, small))
    held = all(figures[name] <= limit for name, limit in LIMITS.items())
    figures["passed"] = held and grid_error_falls(figures)
    figures["preset"] = preset if isinstance(preset, str) else "custom"
    figures["seed"] = seed
    figures["clouds"], figures["motions"] = num_clouds, num_clouds * num_rotations
    figures["seconds"] = round(time.perf_counter() - start, 2)
    return figures


def grid_error_falls(figures: dict) -> bool:
    """Whether frames fixed in the world cost less on the fine grid than on the coarse one.

    **Equivariance:** a figure about it.
    """
    coarse, fine = figures["grid_error"].values()
    return fine < coarse


def fixed_frames(levels: Sequence[Level], rotations: str | int) -> list[Level]:
    """The same levels with a grid of frames that does not turn with the cloud.

    Levels with a kernel on pairs, which know no frames, get kernel points.

    Args:
        levels: of a network.
        rotations: the grid, see ``GridPoses``.

    **Equivariance:** exact for the elements of a finite group, approximate
    for other rotations.
    """
    return [
        replace(
            level,
            poses=CentroidPoses(rotations, align="none")
            if isinstance(level.poses, CentroidPoses)
            else GridPoses(rotations, align="none"),
            pairs=None,
            sampling=replace(level.sampling, orbits=False),  # a grid of any size is no group
        )
        for level in levels
    ]


def _logits(model: GroupConvClassifier, pos: Tensor) -> Tensor:
    return model(build_pose_graph(pos.to(model.dtype), model.levels))[0]


def _change(model: GroupConvClassifier, before: Tensor, after: Tensor) -> float:
    return relative_change(_logits(model, before), _logits(model, after))


def _changes(model, clouds, num: int, generator) -> Iterator[float]:
    """Changes by rotation (in float64) and a shift of about the cloud's radius."""
    for cloud in clouds:
        before = _logits(model, cloud)
        for turn in random_rotations(num, generator=generator, dtype=torch.float64):
            shift = torch.randn(3, generator=generator, dtype=torch.float64)
            yield relative_change(before, _logits(model, cloud @ turn.T + shift))


def _permuted(model, clouds, num: int, generator) -> Iterator[float]:
    for cloud in clouds:
        before = _logits(model, cloud)
        for _ in range(num):
            order = torch.randperm(len(cloud), generator=generator)
            yield relative_change(before, _logits(model, cloud[order]))


def _dense_changes(model: GroupConvClassifier, clouds: Sequence[Tensor]) -> Iterator[float]:
    """Precomputed and online, each with all poses, against dense.

    "All poses" is reached in two ways: by their number, which skips the sampling,
    and by sampling until none is left, which puts them in another order. For the
    second the tolerance is so small that its square is zero: a mere duplicate of
    an embedding does not end it.
    """
    most = 1_000_000
    for cloud in clouds:
        dense = _logits(model.with_budget(), cloud)
        for budget in ({"num": most}, {"num": most, "tolerance": 1e-200}):
            full = model.with_budget(**budget)
            yield relative_change(dense, _logits(full, cloud))
            yield relative_change(dense, forward_online(full, [cloud.float()])[0])

"""The figures of ``pcequi bench``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcequi.bench.dgcnn import DGCNN
from pcequi.bench.measure import Timing, interleaved, peak_bytes, summary
from pcequi.datasets.meshes import normalize_cloud, sample_mesh
from pcequi.datasets.shapes import SHAPE_CLASSES, make_shape
from pcequi.graph_build import build_stored_graph, pack
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, averaged_logits, preset
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import GridPoses
from pcequi.training.rows import fast_blocks, load_batch
from pcequi.training.settings import FitSettings
from pcequi.training.state import TrainingState
from pcequi.training.step import BatchLoss, Totals, train_step
from pcequi.training.threads import set_threads

__all__ = ["EXPLANATIONS", "bench_figures"]

EXPLANATIONS = {
    "precompute_ms_per_shape": "all levels of a shape's graph, as it is kept, one thread",
    "train_ms_per_shape": "reading, forward, backward and AdamW step, batch 32",
    "train_bfloat16_ms_per_shape": "the same with automatic casts to bfloat16",
    "predict_shapes_per_s": "from cached graphs, batch 64",
    "predict_raw_shapes_per_s": "from points to class, a process a core",
    "dense_time_ratio": "training step of the same network on all its poses, float32",
    "dense_memory_ratio": "peak memory of the same two steps",
    "dense_bfloat16_time_ratio": "ours with casts to bfloat16, dense in its faster precision",
    "dense_bfloat16_memory_ratio": "peak memory, dense in the precision that takes less",
    "dense_24_time_ratio": "with 24 frames a point, equal budgets, float32",
    "dense_24_memory_ratio": "peak memory of those two steps",
    "dense_24_bfloat16_time_ratio": "24 frames, ours with casts, dense in its faster precision",
    "dense_24_bfloat16_memory_ratio": "peak memory, dense in the precision that takes less",
    "dense_64_time_ratio": "with 64 rotations a point, float32 (not with --quick)",
    "dense_64_memory_ratio": "peak memory of those two steps",
    "dense_64_bfloat16_time_ratio": "64 rotations, ours with casts, dense in its faster precision",
    "dense_64_bfloat16_memory_ratio": "peak memory, dense in the precision that takes less",
    "rotation_scaling_ratio": "training step, 64 rotations a point over 8, equal budgets",
    "dgcnn_time_ratio": "training step of DGCNN, neighbour search in it, over ours from graphs",
}


class _Step:
    """A training step of a network on the graphs of a few clouds, repeated; A as ``fit``
    takes it in this precision."""

    def __init__(
        self,
        levels: list[Level],
        clouds: list[Tensor],
        channels: list[int],
        precision: str = "float32",
    ):
        self.model = GroupConvClassifier(levels, 40, channels=channels)
        rows, blocks = torch.arange(len(clouds)), fast_blocks(precision, "cpu")
        with tempfile.TemporaryDirectory() as folder:
            store = GraphStore.build(folder, clouds, levels, workers=1)
            self.batch = load_batch(self.model, store, rows, "cpu", blocks)
        self.target, self.casts = rows % 40, precision == "bfloat16"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3, fused=True)

    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.casts):
            _train(self.model, self.optimizer, self.batch, self.target)


def _train(model, optimizer, batch, target) -> None:
    model.train()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch).float(), target).backward()
    optimizer.step()


def bench_figures(
    name: str = "default",
    quick: bool = False,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Measure this machine.

    Args:
        name: preset of the network.
        quick: fewer rounds and clouds: under a minute on two cores.
        workers: processes that work from raw points; by default one a core.
        progress: called with the name of each part as it begins.

    Returns:
        The figures named in ``EXPLANATIONS``, None where a network has no rotations that
        could be changed, or ``quick`` leaves them out; and, under ``rounds``, the median
        and spread of what they come from, in seconds.

    **Equivariance:** does not apply.
    """
    tell = progress or (lambda part: None)
    settings = preset(name)
    levels, channels = settings["levels"], settings["channels"]
    tell("shapes")
    clouds = default_clouds(64 if quick else 256)
    figures, rounds = dict.fromkeys(EXPLANATIONS), {}
    turning = all(hasattr(level.poses, "rotations") for level in levels)
    rounds_of = 3 if quick else 9

    def keep(timing: Timing) -> None:
        rounds.update({key: summary(values) for key, values in timing.items()})

    tell("precompute")
    timing = _precompute(levels, clouds, 24 if quick else 128)
    keep(timing)
    figures["precompute_ms_per_shape"] = 1e3 * rounds["precompute"]["median"]
    with tempfile.TemporaryDirectory() as folder:
        store = GraphStore.build(folder, clouds, levels, workers=1)
        tell("train")
        timing = _train_and_predict(store, levels, channels, rounds_of)
    keep(timing)
    figures["train_ms_per_shape"] = 1e3 * rounds["train"]["median"] / 32
    figures["train_bfloat16_ms_per_shape"] = 1e3 * rounds["train_bfloat16"]["median"] / 32
    figures["predict_shapes_per_s"] = 64 / rounds["predict"]["median"]
    tell("predict from points")
    figures["predict_raw_shapes_per_s"] = _raw(name, clouds, workers, 64 if quick else 512)
    tell("dense")
    dense = [("dense", levels, 8)]
    if turning:
        dense.append(("dense_24", with_rotations(levels, "O"), 4 if quick else 8))
        if not quick:  # half a minute
            dense.append(("dense_64", with_rotations(levels, 64), 8))
    for label, own, size in dense:
        some = clouds[:size]
        found, timing = _against_dense(label, own, some, channels, 2 if quick else 5)
        keep(timing)
        figures.update(found)
    tell("rotations")
    some = clouds[: 4 if quick else 8]
    if turning:  # others have no number of rotations to change
        steps = {
            f"rotations_{count}": _Step(with_rotations(levels, count), some, channels)
            for count in (8, 64)
        }
        keep(interleaved(steps, 15 if quick else 60, warmup=2))  # steps of 20 ms: noisy
        figures["rotation_scaling_ratio"] = (
            rounds["rotations_64"]["median"] / rounds["rotations_8"]["median"]
        )
    tell("DGCNN")
    keep(_dgcnn(levels, clouds, channels, 4 if quick else 32, 2 if quick else 5))
    figures["dgcnn_time_ratio"] = rounds["dgcnn"]["median"] / rounds["dgcnn_ours"]["median"]
    return {**figures, "preset": name, "rounds": rounds}


def default_clouds(count: int) -> list[Tensor]:
    """Clouds of 1,024 points from the meshes of the default set."""
    clouds = []
    for number in range(count):
        rng = np.random.default_rng(number)
        mesh = make_shape(SHAPE_CLASSES[number % len(SHAPE_CLASSES)], rng)
        clouds.append(torch.from_numpy(normalize_cloud(sample_mesh(*mesh, 1024, rng)[0])).float())
    return clouds


def _precompute(levels, clouds, count) -> Timing:
    threads = torch.get_num_threads()
    set_threads(1)
    try:
        seconds = []
        for number in range(-2, count):
            start = time.perf_counter()
            pack(build_stored_graph(clouds[number % len(clouds)].double(), levels), levels)
            if number >= 0:
                seconds.append(time.perf_counter() - start)
        return {"precompute": seconds}
    finally:
        set_threads(threads)


def _train_and_predict(store, levels, channels, rounds) -> Timing:
    model = GroupConvClassifier(levels, 40, channels=channels)
    rows = torch.arange(64) % len(store)

    def training(precision: str) -> Callable[[], None]:
        """A step as ``fit`` takes it."""
        settings = FitSettings(precision=precision)
        optimizer = TrainingState(model, settings, None).optimizer
        loss, totals = BatchLoss(model, settings), Totals("cpu")
        blocks = fast_blocks(precision, "cpu")

        def step() -> None:
            model.train()
            graph = load_batch(model, store, rows[:32], "cpu", blocks)
            train_step(loss, optimizer, graph, rows[:32] % 40, None, totals, clip=settings.clip)

        return step

    @torch.no_grad()
    def predict():
        model.eval()
        averaged_logits(model, store.batch(rows))

    steps = {
        "train": training("float32"),
        "train_bfloat16": training("bfloat16"),
        "predict": predict,
    }
    return interleaved(steps, 2 * rounds, warmup=2)


_RAW: dict = {}


def _raw_start(name: str) -> None:
    set_threads(1)
    _RAW["model"] = GroupConvClassifier.from_preset(name, 40).eval()
    _raw_classes([torch.rand(1024, 3, generator=torch.Generator().manual_seed(0))])


@torch.no_grad()
def _raw_classes(clouds: list[Tensor]) -> list[int]:
    model = _RAW["model"]
    graphs = [build_pose_graph(cloud, model.levels, dtype=torch.float32) for cloud in clouds]
    return averaged_logits(model, PoseGraph.batch(graphs)).argmax(1).tolist()


def _raw(name, clouds, workers, count) -> float:
    """Shapes a second from points to class; starting the processes is not counted."""
    workers = workers or torch.get_num_threads()
    jobs = [
        [clouds[number % len(clouds)] for number in range(start, start + 8)]
        for start in range(0, count, 8)
    ]
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_raw_start, initargs=(name,)
    ) as pool:
        list(pool.map(_raw_classes, jobs[:workers] * 2))  # all are up and warm
        start = time.perf_counter()
        list(pool.map(_raw_classes, jobs))
        return count / (time.perf_counter() - start)


def _against_dense(label, levels, clouds, channels, rounds) -> tuple[dict, Timing]:
    """Our step against that of the dense network, both in float32; and ours with casts to
    bfloat16 against the dense one in whichever precision suits it."""
    dense = [level.with_budget() for level in levels]
    steps = {
        f"{label}_compressed": _Step(levels, clouds, channels),
        label: _Step(dense, clouds, channels),
        f"{label}_compressed_bfloat16": _Step(levels, clouds, channels, "bfloat16"),
        f"{label}_bfloat16": _Step(dense, clouds, channels, "bfloat16"),
    }
    for step in steps.values():
        step()  # from here on AdamW has its state, and only a step's own memory is counted
    memory = [peak_bytes(step) for step in steps.values()]
    timing = interleaved(steps, rounds, warmup=0)
    time = [summary(timing[key])["median"] for key in steps]
    found = {}
    for kind, (ours, whole, ours_cast, whole_cast) in {"time": time, "memory": memory}.items():
        found[f"{label}_{kind}_ratio"] = whole / ours if ours else None
        least = min(whole or 0, whole_cast or 0)
        found[f"{label}_bfloat16_{kind}_ratio"] = least / ours_cast if ours_cast else None
    return found, timing


def with_rotations(levels: list[Level], rotations: str | int) -> list[Level]:
    """The same levels with other rotations a point. Of a group also at the
    centroid; where a number is asked for, the last level keeps its own frames."""
    # Of 64 or of an octahedral group's 24 poses a point few whole orbits would fit the budgets.
    levels = [replace(lv, sampling=replace(lv.sampling, orbits=False)) for lv in levels]
    if isinstance(rotations, str):
        return [replace(lv, poses=replace(lv.poses, rotations=rotations)) for lv in levels]
    grid = GridPoses(rotations, align="manhattan")
    return [*(replace(lv, poses=grid) for lv in levels[:-1]), levels[-1]]


def _dgcnn(levels, clouds, channels, size, rounds) -> Timing:
    clouds = [clouds[number % len(clouds)] for number in range(size)]
    ours = _Step(levels, clouds, channels)
    model, pos = DGCNN(40), torch.stack(clouds)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    target = torch.arange(size) % 40
    theirs = lambda: _train(model, optimizer, pos, target)  # noqa: E731
    return interleaved({"dgcnn_ours": ours, "dgcnn": theirs}, rounds)

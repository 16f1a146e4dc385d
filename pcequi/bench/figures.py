"""The figures of ``pcequi bench``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pcequi.bench import cost
from pcequi.bench.measure import Timing, interleaved, summary
from pcequi.bench.steps import GraphStep, Peaks, against_dense, against_others, compared
from pcequi.datasets.meshes import normalize_cloud, sample_mesh
from pcequi.datasets.shapes import SHAPE_CLASSES, make_shape
from pcequi.graph_build import build_stored_graph, pack
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, averaged_logits, preset
from pcequi.pose_graph import Level, PoseGraph
from pcequi.poses import GridPoses
from pcequi.training.precision import multiplies_bfloat16
from pcequi.training.rows import built_batch, fast_blocks, load_batch
from pcequi.training.settings import FitSettings
from pcequi.training.state import TrainingState
from pcequi.training.step import BatchLoss, Totals, train_step
from pcequi.training.threads import set_threads
from pcequi.workers import worker_map

__all__ = ["EXPLANATIONS", "MEMORY", "bench_figures", "memory_mib"]

EXPLANATIONS = {
    "precompute_ms_per_shape": "all levels of a shape's graph, as it is kept, one thread",
    "train_ms_per_shape": "reading, forward, backward and AdamW step, batch 32",
    "train_floor_ms_per_shape": "least time of its FLOPs, or its bytes, at the rates below",
    "train_share_of_floor": "that over the time it takes",
    "train_bfloat16_ms_per_shape": "the same with automatic casts to bfloat16",
    "train_bfloat16_floor_ms_per_shape": "its least time",
    "train_bfloat16_share_of_floor": "that over the time it takes",
    "predict_shapes_per_s": "from cached graphs, batch 64",
    "predict_floor_ms_per_shape": "its least time, with all orders of axes that are asked",
    "predict_share_of_floor": "that over the time it takes",
    "predict_raw_shapes_per_s": "from points to class, a process a core",
    "matmul_gflop_per_s": "what this machine multiplies in float32, 1,024 x 1,024 x 1,024",
    "matmul_bfloat16_gflop_per_s": "the same in bfloat16",
    "copy_gb_per_s": "what it copies within its memory, read and written",
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
    "ours_ms_per_shape": "our training step from graphs, beside those below",
    "dgcnn_ms_per_shape": "training step of DGCNN, neighbour search in it",
    "dgcnn_time_ratio": "that over ours",
    "dgcnn_memory_ratio": "peak memory of those two steps",
    "pointnet2_ms_per_shape": "training step of PointNet++, neighbour search in it",
    "pointnet2_time_ratio": "that over ours",
    "pointnet2_memory_ratio": "peak memory of those two steps",
    "pointnet2_ready_ms_per_shape": "the same, neighbours found before, as our graphs are",
    "pointnet2_ready_time_ratio": "that over ours",
}

_OTHERS = ("dgcnn", "pointnet2", "pointnet2_ready")

#: Steps behind figures: the one whose memory it is; of a ratio ours, then those beside it, of
#: which the one counts that takes least.
MEMORY = {
    "train_ms_per_shape": ("train",),
    "train_bfloat16_ms_per_shape": ("train_bfloat16",),
    "predict_shapes_per_s": ("predict",),
    "dgcnn_memory_ratio": ("ours", "dgcnn"),
    "pointnet2_memory_ratio": ("ours", "pointnet2"),
    "pointnet2_ready_ms_per_shape": ("pointnet2_ready",),
}
for _label in ("dense", "dense_24", "dense_64"):
    _cast = f"{_label}_compressed_bfloat16"
    MEMORY[f"{_label}_memory_ratio"] = (f"{_label}_compressed", _label)
    MEMORY[f"{_label}_bfloat16_memory_ratio"] = (_cast, _label, f"{_label}_bfloat16")


def memory_mib(figures: dict, name: str) -> list[float] | None:
    """Peak memory behind a figure, in MiB: of a step, or of both sides of a ratio, ours first.

    Args:
        figures: of ``bench_figures``.
        name: of one of them.

    Returns:
        None where no memory is measured, or this system does not tell.

    **Equivariance:** does not apply.
    """
    found = [figures["memory_mib"].get(step) for step in MEMORY.get(name, ())]
    if not found or None in found:
        return None
    return [*found[:1], *([min(found[1:])] if found[1:] else [])]


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
        could be changed, ``quick`` leaves them out, this system does not tell of memory, or its
        processor does not multiply bfloat16;
        under ``rounds``, the median and spread of what they come from, in seconds; under
        ``memory_mib`` what each step takes at its peak beyond what was there before; and under
        ``floors`` the FLOPs and bytes of the floors, of a batch.

    **Equivariance:** does not apply.
    """
    tell = progress or (lambda part: None)
    settings = preset(name)
    levels, channels = settings["levels"], settings["channels"]
    tell("shapes")
    clouds = default_clouds(64 if quick else 256)
    figures, rounds, memory = dict.fromkeys(EXPLANATIONS), {}, {}
    turning = all(hasattr(level.poses, "rotations") for level in levels)
    casts = multiplies_bfloat16("cpu")  # emulated, they would take half of the time of it all

    def keep(timing: Timing, peaks: Peaks | None = None) -> None:
        rounds.update({key: summary(values) for key, values in timing.items()})
        for key, peak in (peaks or {}).items():
            memory[key] = None if peak is None else peak / 2**20

    def median(key: str) -> float:
        return rounds[key]["median"]

    tell("precompute")
    keep(_precompute(levels, clouds, 24 if quick else 128))
    figures["precompute_ms_per_shape"] = 1e3 * median("precompute")
    tell("ceilings")
    keep(cost.ceilings(10 if quick else 30, casts))
    figures |= _rates(rounds)
    with tempfile.TemporaryDirectory() as folder:
        store = GraphStore.build(folder, clouds, levels, workers=1)
        tell("train")
        timing, peaks, costs = _train_and_predict(
            store, levels, channels, 6 if quick else 18, casts
        )
    keep(timing, peaks)
    figures["train_ms_per_shape"] = 1e3 * median("train") / 32
    if casts:
        figures["train_bfloat16_ms_per_shape"] = 1e3 * median("train_bfloat16") / 32
    figures["predict_shapes_per_s"] = 64 / median("predict")
    floors = {}
    for key, (flops, moved, size, precision) in costs.items():
        least = cost.floor_seconds(flops, moved, figures, precision)
        figures[f"{key}_floor_ms_per_shape"] = 1e3 * least / size
        figures[f"{key}_share_of_floor"] = least / median(key)
        floors[key] = {"flops": flops, "bytes": moved, "seconds": least, "batch": size}
    tell("predict from points")
    figures["predict_raw_shapes_per_s"] = _raw(name, clouds, workers, 64 if quick else 512)
    tell("dense")
    dense = {"dense": (levels, 8)}
    if turning:
        dense["dense_24"] = (with_rotations(levels, "O"), 4 if quick else 8)
        if not quick:  # half a minute
            dense["dense_64"] = (with_rotations(levels, 64), 8)
    for label, (own, size) in dense.items():
        keep(*against_dense(label, own, clouds[:size], channels, 2 if quick else 5, casts))
        figures[f"{label}_time_ratio"] = median(label) / median(f"{label}_compressed")
        if casts:
            least = min(median(label), median(f"{label}_bfloat16"))
            ours = median(f"{label}_compressed_bfloat16")
            figures[f"{label}_bfloat16_time_ratio"] = least / ours
    tell("rotations")
    some = clouds[: 4 if quick else 8]
    if turning:  # others have no number of rotations to change
        steps = {
            f"rotations_{count}": GraphStep(with_rotations(levels, count), some, channels)
            for count in (8, 64)
        }
        keep(interleaved(steps, 15 if quick else 60, warmup=2))  # steps of 20 ms: noisy
        figures["rotation_scaling_ratio"] = median("rotations_64") / median("rotations_8")
    tell("other networks")
    some = [clouds[number % len(clouds)] for number in range(4 if quick else 32)]
    keep(*against_others(levels, some, channels, 2 if quick else 5))
    for key in ("ours", *_OTHERS):
        figures[f"{key}_ms_per_shape"] = 1e3 * median(key) / len(some)
    figures |= {f"{key}_time_ratio": median(key) / median("ours") for key in _OTHERS}
    found = {**figures, "preset": name, "rounds": rounds, "memory_mib": memory, "floors": floors}
    for key in MEMORY:
        if key.endswith("_ratio") and (sides := memory_mib(found, key)) and sides[0]:
            found[key] = sides[1] / sides[0]
    return found


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


def _rates(rounds: dict) -> dict[str, float]:
    """What the machine reached in its best round: a floor must not rest on a disturbed one."""
    work = {"copy_gb_per_s": ("copy", 2 * cost.COPIED)}
    work["matmul_gflop_per_s"] = ("matmul", 2 * cost.MATRIX**3)
    work["matmul_bfloat16_gflop_per_s"] = ("matmul_bfloat16", 2 * cost.MATRIX**3)
    return {
        name: amount / 1e9 / rounds[key]["least"]
        for name, (key, amount) in work.items()
        if key in rounds
    }


def _train_and_predict(store, levels, channels, rounds, casts) -> tuple[Timing, Peaks, dict]:
    """Seconds, peak bytes, and FLOPs, least bytes, clouds and precision of a batch."""
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

    def loaded() -> PoseGraph:
        """As ``predict_logits`` takes it."""
        return load_batch(model, store, rows, "cpu", fast_blocks("float32", "cpu"))

    @torch.no_grad()
    def predict():
        model.eval()
        averaged_logits(model, loaded())

    trained = {"train": "float32"} | ({"train_bfloat16": "bfloat16"} if casts else {})
    steps = {key: training(precision) for key, precision in trained.items()}
    timing, peaks = compared(steps | {"predict": predict}, rounds, warmup=1)
    costs = {}
    for key, precision in trained.items():
        graph = load_batch(model, store, rows[:32], "cpu", fast_blocks(precision, "cpu"))
        moved = cost.least_bytes(model, graph, True)
        costs[key] = cost.step_flops(model, graph), moved, 32, precision
    graph = loaded()
    moved = cost.least_bytes(model, graph, False)
    costs["predict"] = cost.predict_flops(model, graph), moved, 64, "float32"
    return timing, peaks, costs


_RAW: dict = {}


def _raw_start(name: str) -> None:
    set_threads(1)
    _RAW["model"] = GroupConvClassifier.from_preset(name, 40).eval()
    _raw_classes([torch.rand(1024, 3, generator=torch.Generator().manual_seed(0))])


@torch.no_grad()
def _raw_classes(clouds: list[Tensor]) -> list[int]:
    model = _RAW["model"]
    graph = built_batch(clouds, model.levels, torch.float32, "cpu")
    return averaged_logits(model, graph).argmax(1).tolist()


def _raw(name, clouds, workers, count) -> float:
    """Shapes a second from points to class; starting the processes is not counted."""
    workers = workers or torch.get_num_threads()
    jobs = [
        [clouds[number % len(clouds)] for number in range(start, start + 8)]
        for start in range(0, count, 8)
    ]
    if workers == 1:
        _raw_start(name)  # here
    with worker_map(workers, _raw_start, name) as apply:
        list(apply(_raw_classes, jobs[:workers] * 2))  # all are up and warm
        start = time.perf_counter()
        list(apply(_raw_classes, jobs))
        return count / (time.perf_counter() - start)


def with_rotations(levels: list[Level], rotations: str | int) -> list[Level]:
    """The same levels with other rotations a point. Of a group also at the
    centroid; where a number is asked for, the last level keeps its own frames."""
    # Of 64 or of an octahedral group's 24 poses a point few whole orbits would fit the budgets.
    levels = [replace(lv, sampling=replace(lv.sampling, orbits=False)) for lv in levels]
    if isinstance(rotations, str):
        return [replace(lv, poses=replace(lv.poses, rotations=rotations)) for lv in levels]
    grid = GridPoses(rotations, align="manhattan")
    return [*(replace(lv, poses=grid) for lv in levels[:-1]), levels[-1]]

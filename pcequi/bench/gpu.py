"""The figures of ``pcequi bench --device cuda``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pcequi.bench.cost import step_cost
from pcequi.bench.dgcnn import DGCNN
from pcequi.bench.figures import default_clouds, with_rotations
from pcequi.bench.measure import interleaved, summary
from pcequi.graph_device import DeviceGraphs
from pcequi.models import GroupConvClassifier, averaged_logits, preset
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.training.settings import FitSettings
from pcequi.training.state import TrainingState
from pcequi.training.step import BatchLoss, GraphedSteps, Totals, train_step

__all__ = ["GPU_EXPLANATIONS", "gpu_figures"]

GPU_EXPLANATIONS = {
    "copy_gb_per_s": "what this GPU copies within its memory, read and written",
    "matmul_tflop_per_s": "what it multiplies in bfloat16, 8,192 x 8,192 x 8,192",
    "precompute_ms_per_shape": "graphs of 1,024 shapes made together on the GPU",
    "train_ms_per_shape": "captured step from graphs on the GPU, bfloat16 casts, batch 32",
    "train_share_of_model": "time of its FLOPs, or of its traffic by a model, over its time",
    "train_512_ms_per_shape": "the same, batch 512",
    "train_512_share_of_model": "the same; above 1 where the cache spares traffic",
    "train_eager_ms_per_shape": "batch 32, kernels launched one by one",
    "train_float32_ms_per_shape": "captured, batch 32, without casts",
    "predict_shapes_per_s": "from graphs on the GPU, batch 512, bfloat16 casts",
    "predict_raw_shapes_per_s": "from points to class, 1,024 shapes together",
    "dense_time_ratio": "captured step of the same network on all its poses, batch 32",
    "dense_memory_ratio": "peak memory of the same two steps, not captured",
    "dense_24_time_ratio": "the same with 24 frames a point, equal budgets, batch 4",
    "dense_24_memory_ratio": "peak memory of those two steps",
    "rotation_scaling_ratio": "captured step, 64 rotations a point over 8, equal budgets",
    "dgcnn_time_ratio": "captured step of DGCNN, neighbour search in it, over ours, batch 32",
}


def gpu_figures(
    name: str = "default",
    rounds: int = 20,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Measure this machine's GPU.

    Args:
        name: preset of the network.
        rounds: of each measurement.
        progress: called with the name of each part as it begins.

    Returns:
        The figures named in ``GPU_EXPLANATIONS``; and, under ``rounds``, the median and
        spread of what they come from, in seconds.

    **Equivariance:** does not apply.
    """
    gpu = _Measuring(**preset(name), rounds=rounds)
    for title, part in _PARTS.items():
        if progress:
            progress(title)
        part(gpu)
    return {**gpu.figures, "preset": name, "gpu": torch.cuda.get_device_name(), "rounds": gpu.kept}


@dataclass
class _Measuring:
    """What the parts of the measurement share."""

    levels: list[Level]
    channels: list[int]
    rounds: int
    figures: dict = field(default_factory=lambda: dict.fromkeys(GPU_EXPLANATIONS))
    kept: dict = field(default_factory=dict)

    def __post_init__(self):
        self.clouds = [cloud.cuda() for cloud in default_clouds(128)]
        self.many = self.clouds * 8
        self.grids = all(hasattr(level.poses, "rotations") for level in self.levels)

    def __call__(self, steps: dict[str, Callable], rounds: int | None = None, warmup: int = 5):
        """Median seconds of functions that take turns."""
        steps = {key: _waiting(step) for key, step in steps.items()}
        timing = interleaved(steps, rounds or self.rounds, warmup)
        self.kept.update({key: summary(values) for key, values in timing.items()})
        return {key: self.kept[key]["median"] for key in steps}

    def build(self, number: int, dtype: torch.dtype = torch.bfloat16) -> DeviceGraphs:
        """Graphs of the first clouds."""
        return DeviceGraphs.build(self.many[:number], self.levels, "cuda", dtype)

    def new_model(self) -> GroupConvClassifier:
        return GroupConvClassifier(self.levels, 40, channels=self.channels).cuda()


def _ceilings(gpu: _Measuring) -> None:
    """Bytes a second (read and written) and bfloat16 FLOPs a second."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    medians = gpu({"copy": lambda: target.copy_(source), "matmul": lambda: a @ b})
    gpu.figures["copy_gb_per_s"] = 2 * source.nbytes / medians["copy"] / 1e9
    gpu.figures["matmul_tflop_per_s"] = 2 * 8192**3 / medians["matmul"] / 1e12


def _precompute(gpu: _Measuring) -> None:
    number = len(gpu.many)
    seconds = gpu({"precompute": lambda: gpu.build(number)}, rounds=5, warmup=1)["precompute"]
    gpu.figures["precompute_ms_per_shape"] = 1e3 * seconds / number


def _train(gpu: _Measuring) -> None:
    graphs, single = gpu.build(128), gpu.build(128, torch.float32)
    steps = {
        "train": _captured(graphs, gpu.levels, gpu.channels, 32, "bfloat16"),
        "train_512": _captured(graphs, gpu.levels, gpu.channels, 512, "bfloat16"),
        "train_float32": _captured(single, gpu.levels, gpu.channels, 32, "float32"),
        "train_eager": _one_by_one(graphs, gpu.levels, gpu.channels, 32),
    }
    for key, seconds in gpu(steps).items():
        size = 512 if key == "train_512" else 32
        gpu.figures[f"{key}_ms_per_shape"] = 1e3 * seconds / size
        if f"{key}_share_of_model" in gpu.figures:
            flops, moved = step_cost(gpu.new_model(), graphs.batch(_rows(size, graphs)))
            product = flops / (1e12 * gpu.figures["matmul_tflop_per_s"])
            modelled = max(product, moved / (1e9 * gpu.figures["copy_gb_per_s"]))
            gpu.figures[f"{key}_share_of_model"] = modelled / seconds
            gpu.kept[key] |= {"flops": flops, "bytes": moved, "modelled_seconds": modelled}


def _predict(gpu: _Measuring) -> None:
    model, held, number = gpu.new_model().eval(), gpu.build(128), len(gpu.many)

    @torch.no_grad()
    def answer(graph: PoseGraph) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return averaged_logits(model, graph).argmax(1)

    rows = _rows(512, held)
    seconds = gpu({"predict": lambda: answer(held.batch(rows))})["predict"]
    gpu.figures["predict_shapes_per_s"] = 512 / seconds
    every = torch.arange(number, device="cuda")
    raw = {"predict_raw": lambda: answer(gpu.build(number).batch(every))}
    seconds = gpu(raw, rounds=5, warmup=1)["predict_raw"]
    gpu.figures["predict_raw_shapes_per_s"] = number / seconds


def _dense(gpu: _Measuring) -> None:
    if not gpu.grids:
        return
    octahedral = with_rotations(gpu.levels, "O")
    for label, own, size in (("dense", gpu.levels, 32), ("dense_24", octahedral, 4)):
        pair = {f"{label}_compressed": own, label: [level.with_budget() for level in own]}
        made = {key: _built_alone(gpu.clouds[:4], lv) for key, lv in pair.items()}
        memory = {
            key: _peak(_one_by_one(graphs, pair[key], gpu.channels, size))
            for key, graphs in made.items()
        }
        steps = {
            key: _captured(graphs, pair[key], gpu.channels, size, "bfloat16")
            for key, graphs in made.items()
        }
        medians = gpu(steps)
        gpu.figures[f"{label}_time_ratio"] = medians[label] / medians[f"{label}_compressed"]
        gpu.figures[f"{label}_memory_ratio"] = memory[label] / memory[f"{label}_compressed"]
        gpu.kept[f"{label}_bytes"] = memory
        made = steps = None  # gigabytes, before the next are made


def _rotations(gpu: _Measuring) -> None:
    if not gpu.grids:
        return
    steps = {}
    for count in (8, 64):
        own = with_rotations(gpu.levels, count)
        some = _built_alone(gpu.clouds[:8], own)
        steps[f"rotations_{count}"] = _captured(some, own, gpu.channels, 8, "bfloat16")
    medians = gpu(steps)
    gpu.figures["rotation_scaling_ratio"] = medians["rotations_64"] / medians["rotations_8"]


def _dgcnn(gpu: _Measuring) -> None:
    ours = _captured(gpu.build(32), gpu.levels, gpu.channels, 32, "bfloat16")
    theirs = _training(DGCNN(40).cuda(), torch.stack(gpu.clouds[:32]), 32)
    medians = gpu({"dgcnn_ours": ours, "dgcnn": _replayed(theirs)})
    gpu.figures["dgcnn_time_ratio"] = medians["dgcnn"] / medians["dgcnn_ours"]


_PARTS = {
    "ceilings": _ceilings,
    "precompute": _precompute,
    "train": _train,
    "predict": _predict,
    "dense": _dense,
    "rotations": _rotations,
    "DGCNN": _dgcnn,
}


def _waiting(step: Callable) -> Callable:
    def call() -> None:
        step()
        torch.cuda.synchronize()

    return call


def _built_alone(clouds: list[Tensor], levels: list[Level]) -> DeviceGraphs:
    """Graphs of settings that are not built together, such as dense ones."""
    built = [build_pose_graph(cloud.cpu(), levels, dtype=torch.float32) for cloud in clouds]
    return DeviceGraphs.collect(
        [PoseGraph.batch(built).to("cuda")], levels, len(clouds), torch.bfloat16
    )


def _rows(size: int, graphs: DeviceGraphs) -> Tensor:
    return torch.arange(size, device="cuda") % len(graphs)


def _captured(graphs, levels: list[Level], channels, size: int, precision: str) -> Callable:
    settings = FitSettings(precision=precision, batch_size=size)
    model = GroupConvClassifier(levels, 40, channels=channels).cuda().train()
    totals = Totals("cuda")
    optimizer = TrainingState(model, settings, None).optimizer
    steps = GraphedSteps(BatchLoss(model, settings), optimizer, totals, settings.clip)
    rows = torch.arange(size, device="cuda") % len(graphs)
    return lambda: steps(graphs, rows, rows % 40, None)


def _one_by_one(graphs, levels: list[Level], channels, size: int) -> Callable:
    """A step whose kernels are launched one by one."""
    settings = FitSettings(precision="bfloat16", batch_size=size)
    model = GroupConvClassifier(levels, 40, channels=channels).cuda().train()
    loss, totals = BatchLoss(model, settings), Totals("cuda")
    optimizer = TrainingState(model, settings, None).optimizer
    rows = torch.arange(size, device="cuda") % len(graphs)
    return lambda: train_step(
        loss, optimizer, graphs.batch(rows), rows % 40, None, totals, clip=settings.clip
    )


def _training(model, batch, size: int) -> Callable:
    """A step of any network, with the casts and the optimizer of ours."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True, capturable=True)
    target = torch.arange(size, device="cuda") % 40

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(batch)
        F.cross_entropy(logits.float(), target).backward()
        optimizer.step()

    return step


def _replayed(step: Callable) -> Callable:
    """A step captured as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def _peak(step: Callable) -> int:
    """Memory that a step takes beyond what was there before, once AdamW has its state."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before

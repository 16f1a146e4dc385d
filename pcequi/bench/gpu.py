"""The figures of ``pcequi bench --device cuda``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pcequi.bench.dgcnn import DGCNN
from pcequi.bench.figures import default_clouds, with_rotations
from pcequi.bench.measure import interleaved, summary
from pcequi.graph_device import DeviceGraphs
from pcequi.models import GroupConvClassifier, averaged_logits, preset
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.training.settings import FitSettings
from pcequi.training.state import TrainingState
from pcequi.training.step import BatchLoss, GraphedSteps, Totals, train_step

__all__ = ["GPU_EXPLANATIONS", "gpu_figures", "step_cost"]

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


def step_cost(model: GroupConvClassifier, graph: PoseGraph) -> tuple[float, float]:
    """FLOPs of a training step on a batch with ``blocks``, and bytes of a model of its traffic.

    Products forward and twice backward (A has no gradient of its own). Bytes, in bfloat16: what
    goes into a product and what comes out, written and read once each way (so twice where one
    product follows the other), blocks read twice. In single precision: weights, gradients and
    AdamW's two moments read and written. No lower bound: weights, and what was just written, may
    still lie in the cache of a large GPU.

    **Equivariance:** does not apply.
    """
    flops, moved = 0.0, 0.0
    clouds, lifted = len(graph.levels[0].count), graph.levels[0].num
    for part, rows in ((model.lift, lifted), (model.head, clouds)):
        for module in part.modules():
            if isinstance(module, torch.nn.Linear):
                flops += 6.0 * rows * module.in_features * module.out_features
                moved += 8.0 * rows * (module.in_features + module.out_features)
    for block, level in zip(model.blocks, graph.levels[1:]):
        blocks, conv = level.blocks, block.conv
        # Where blocks are taken apart, the constant channel could be the sums of their rows, as it
        # is on CPUs; a GPU multiplies it.
        channels = conv.in_channels - (level.characters is not None)
        flops += 4.0 * blocks.numel() * channels
        z = level.num * conv.weight.shape[0]
        flops += 6.0 * z * conv.out_channels
        out = level.num * conv.out_channels
        flops += (6.0 * conv.out_channels + 4.0) * out  # the pointwise layer, and the mean
        moved += 2.0 * (2 * blocks.numel() + 4 * z + 8 * out)
    moved += 7 * 4.0 * sum(p.numel() for p in model.parameters())
    return flops, moved


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
    tell = progress or (lambda part: None)
    clouds = default_clouds(128)
    many = [cloud.cuda() for cloud in clouds] * 8
    settings = preset(name)
    levels, channels = settings["levels"], settings["channels"]
    figures, kept = dict.fromkeys(GPU_EXPLANATIONS), {}

    def measure(steps: dict[str, Callable], rounds=rounds, warmup=5) -> dict[str, float]:
        timing = interleaved({k: _waiting(step) for k, step in steps.items()}, rounds, warmup)
        kept.update({key: summary(values) for key, values in timing.items()})
        return {key: kept[key]["median"] for key in steps}

    tell("ceilings")
    copy, product = _ceilings(measure)
    figures["copy_gb_per_s"], figures["matmul_tflop_per_s"] = copy / 1e9, product / 1e12
    tell("precompute")
    build = lambda: DeviceGraphs.build(many, levels, "cuda", torch.bfloat16)  # noqa: E731
    seconds = measure({"precompute": build}, rounds=5, warmup=1)["precompute"]
    figures["precompute_ms_per_shape"] = 1e3 * seconds / len(many)
    tell("train")
    graphs = DeviceGraphs.build(many[:128], levels, "cuda", torch.bfloat16)
    single = DeviceGraphs.build(many[:128], levels, "cuda", torch.float32)
    steps = {
        "train": _captured(graphs, levels, channels, 32, "bfloat16"),
        "train_512": _captured(graphs, levels, channels, 512, "bfloat16"),
        "train_float32": _captured(single, levels, channels, 32, "float32"),
        "train_eager": _one_by_one(graphs, levels, channels, 32),
    }
    medians = measure(steps)
    for key, size in (("train", 32), ("train_512", 512), ("train_float32", 32)):
        figures[f"{key}_ms_per_shape"] = 1e3 * medians[key] / size
        if f"{key}_share_of_model" in figures:
            model = GroupConvClassifier(levels, 40, channels=channels).cuda()
            flops, moved = step_cost(model, graphs.batch(_rows(size, clouds)))
            modelled = max(flops / product, moved / copy)
            figures[f"{key}_share_of_model"] = modelled / medians[key]
            kept[key] |= {"flops": flops, "bytes": moved, "modelled_seconds": modelled}
    figures["train_eager_ms_per_shape"] = 1e3 * medians["train_eager"] / 32
    tell("predict")
    model = GroupConvClassifier(levels, 40, channels=channels).cuda().eval()
    held, rows = graphs, _rows(512, clouds)

    @torch.no_grad()
    def predict():
        with torch.autocast("cuda", torch.bfloat16):
            return averaged_logits(model, held.batch(rows)).argmax(1)

    @torch.no_grad()
    def predict_raw():
        every = build().batch(torch.arange(len(many), device="cuda"))
        with torch.autocast("cuda", torch.bfloat16):
            return averaged_logits(model, every).argmax(1)

    figures["predict_shapes_per_s"] = 512 / measure({"predict": predict})["predict"]
    raw = measure({"predict_raw": predict_raw}, rounds=5, warmup=1)["predict_raw"]
    figures["predict_raw_shapes_per_s"] = len(many) / raw
    tell("dense")
    held = single = graphs = steps = None
    for label, own, size in (("dense", levels, 32), ("dense_24", with_rotations(levels, "O"), 4)):
        if not all(hasattr(level.poses, "rotations") for level in levels):
            continue
        pair = {f"{label}_compressed": own, label: [level.with_budget() for level in own]}
        made = {
            key: DeviceGraphs.collect([_on_cpu(clouds[:4], lv).to("cuda")], lv, 4, torch.bfloat16)
            for key, lv in pair.items()
        }
        memory = {
            key: _peak(_one_by_one(graphs, pair[key], channels, size))
            for key, graphs in made.items()
        }
        steps = {
            key: _captured(graphs, pair[key], channels, size, "bfloat16")
            for key, graphs in made.items()
        }
        medians = measure(steps)
        figures[f"{label}_time_ratio"] = medians[label] / medians[f"{label}_compressed"]
        figures[f"{label}_memory_ratio"] = memory[label] / memory[f"{label}_compressed"]
        kept[f"{label}_bytes"] = memory
        made = steps = None
    tell("rotations")
    if hasattr(levels[0].poses, "rotations"):
        steps = {}
        for count in (8, 64):
            own = with_rotations(levels, count)
            some = _on_cpu(clouds[:8], own).to("cuda")
            some = DeviceGraphs.collect([some], own, 8, torch.bfloat16)
            steps[f"rotations_{count}"] = _captured(some, own, channels, 8, "bfloat16")
        medians = measure(steps)
        figures["rotation_scaling_ratio"] = medians["rotations_64"] / medians["rotations_8"]
    tell("DGCNN")
    graphs = DeviceGraphs.build(many[:32], levels, "cuda", torch.bfloat16)
    theirs = _training(DGCNN(40).cuda(), torch.stack(clouds[:32]).cuda(), 32)
    steps = {"dgcnn_ours": _captured(graphs, levels, channels, 32, "bfloat16")}
    medians = measure(steps | {"dgcnn": _replayed(theirs)})
    figures["dgcnn_time_ratio"] = medians["dgcnn"] / medians["dgcnn_ours"]
    return {**figures, "preset": name, "gpu": torch.cuda.get_device_name(), "rounds": kept}


def _waiting(step: Callable) -> Callable:
    def call() -> None:
        step()
        torch.cuda.synchronize()

    return call


def _on_cpu(clouds, levels) -> PoseGraph:
    return PoseGraph.batch([build_pose_graph(c, levels, dtype=torch.float32) for c in clouds])


def _rows(size: int, clouds) -> Tensor:
    return torch.arange(size, device="cuda") % len(clouds)


def _ceilings(measure) -> tuple[float, float]:
    """Bytes a second (read and written) and bfloat16 FLOPs a second."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    medians = measure({"copy": lambda: target.copy_(source), "matmul": lambda: a @ b})
    return 2 * source.nbytes / medians["copy"], 2 * 8192**3 / medians["matmul"]


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

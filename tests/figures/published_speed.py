"""Figures of speed, as tables of (page, how the line begins, what follows in it)."""

from published import FIGURES, README, percent, result, times

speed, newer = result("speed"), result("speed-avx512")  # two kinds of processors


def train(found):
    return f"{found['train_ms_per_shape']:.1f} ms"


def rates(found):
    graphs, points = found["predict_shapes_per_s"], found["predict_raw_shapes_per_s"]
    return f"{graphs:,.0f} / {points:.0f} shapes"


def shares(found):
    return [percent(found[f"{key}_share_of_floor"], 0) for key in ("train", "predict")]


def ratios(*keys):
    return lambda found: [times(found[key]) for key in keys]


def memory(found):
    return [f"{found['memory_mib'][name]:,.0f}" for name in ("ours", "dgcnn", "pointnet2")]


def on_both(begins, figures):
    """A line of the table: what was found on one kind, then on the other."""
    each = [figures(found) for found in (speed, newer)]
    return FIGURES, begins, *(x for one in each for x in ([one] if isinstance(one, str) else one))


SPEED = [
    on_both("| precomputing a shape", lambda found: f"{found['precompute_ms_per_shape']:.1f} ms"),
    on_both("| training step, batch 32, float32", train),
    (FIGURES, "| the same with bfloat16 casts", f"{newer['train_bfloat16_ms_per_shape']:.1f} ms"),
    on_both("| inference from cached graphs", rates),
    on_both(
        "| training step, 64 rotations", lambda found: f"{found['rotation_scaling_ratio']:.2f}"
    ),
    on_both("| least time of its FLOPs and bytes", shares),
    on_both("| training step of DGCNN", ratios("dgcnn_time_ratio", "dgcnn_memory_ratio")),
    on_both(
        "| training step of PointNet++",
        ratios("pointnet2_time_ratio", "pointnet2_ready_time_ratio"),
    ),
    on_both("| peak memory of these three", memory),
    *(
        on_both(begins, ratios(f"{key}_time_ratio", f"{key}_memory_ratio"))
        for begins, key in (
            ("| the same network on all its poses", "dense"),
            ("| the same at 24 frames", "dense_24"),
            ("| the same at 64 frames", "dense_64"),
        )
    ),
    (
        README,
        "| a training step of PointNet++",
        f"{speed['pointnet2_time_ratio']:.0f} / {times(speed['pointnet2_ready_time_ratio'])}",
    ),
    (
        README,
        "| default network: a graph",
        f"{speed['precompute_ms_per_shape']:.1f} ms",
        train(speed),
        f"{newer['precompute_ms_per_shape']:.1f} and {train(newer)}",
    ),
    (README, "| from graphs / from points", rates(speed), rates(newer).removesuffix(" shapes")),
    (
        README,
        "| a training step of the same network",
        f"{speed['dense_time_ratio']:.1f} / {speed['dense_24_time_ratio']:.0f} / "
        f"{times(speed['dense_64_time_ratio'])}",
    ),
    (README, "| a training step of DGCNN", times(speed["dgcnn_time_ratio"])),
]

GPU, TRAINED = result("speed-gpu"), result("claim-1-gpu")["rows"]
(OWN,) = [one for one in TRAINED if one["representatives"] == [256, 128]]
WHOLE = f"{OWN['build_seconds']:.0f} s", f"{3 * OWN['train_seconds']:.0f} s"
ON_GPU = [
    (FIGURES, "| graphs, 1,024 shapes together", f"{GPU['precompute_ms_per_shape']:.2f} ms"),
    (
        FIGURES,
        "| captured step, bfloat16 casts",
        f"{GPU['train_ms_per_shape']:.3f} / {GPU['train_512_ms_per_shape']:.4f} ms",
    ),
    (
        FIGURES,
        "| time of its FLOPs",
        percent(GPU["train_share_of_model"], 0),
        percent(GPU["train_512_share_of_model"], 0),
    ),
    (
        FIGURES,
        "| step of 32 in float32",
        f"{GPU['train_float32_ms_per_shape']:.3f} / {GPU['train_eager_ms_per_shape']:.2f} ms",
    ),
    (
        FIGURES,
        "| predictions from graphs",
        f"{GPU['predict_shapes_per_s']:,.0f} / {GPU['predict_raw_shapes_per_s']:,.0f} shapes",
    ),
    *(
        (FIGURES, begins, times(GPU[f"{key}_time_ratio"]), times(GPU[f"{key}_memory_ratio"]))
        for begins, key in (
            ("| captured step on all poses, 4", "dense"),
            ("| captured step on all poses at 24", "dense_24"),
        )
    ),
    (FIGURES, "| captured step, 64 rotations", f"{GPU['rotation_scaling_ratio']:.2f}"),
    (FIGURES, "| captured step of DGCNN", times(GPU["dgcnn_time_ratio"])),
    (FIGURES, "memory limit it ([decisions](decisions.md#35-", *WHOLE, f"{OWN['accuracy']:.2f} %"),
    (
        README,
        "| on a GPU",
        f"{GPU['precompute_ms_per_shape']:.2f} / {GPU['train_ms_per_shape']:.3f} ms",
        *WHOLE,
    ),
]

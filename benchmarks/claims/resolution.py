"""Claim 5: does a finer resolution cost anything, and does it help? (default shapes)

    python benchmarks/claims/resolution.py --seeds 0 1 2

The same number of representatives on clouds of more points (data-driven frames)
and on more rotations a point (grids fixed in the world), under SO3/SO3. Each
point is moved by Gaussian noise, and a class has few shapes to train on.
"""

from __future__ import annotations

from dataclasses import replace

import results
import study
import torch

from pcequi.poses import CentroidPoses, GridPoses

POINTS, ROTATIONS = (256, 1024, 4096), (4, 16, 64)
NOISE, NUM = 0.03, 64


def levels_of(points: int | None, rotations: int | None) -> list:
    """The small network with this many points of level 1, or rotations a point."""
    first, second, last = study.budget_levels(NUM)
    if points:
        return [replace(first, num_points=points), replace(second, num_points=points // 2), last]
    grid = GridPoses(rotations)
    few = replace(first.sampling, num=8)  # frames of the last level that are kept
    return [
        replace(first, poses=grid),
        replace(second, poses=grid),
        replace(last, poses=CentroidPoses(rotations, align="none"), sampling=few),
    ]


def noisy(split):
    """The same clouds with noise, in place."""
    generator = torch.Generator().manual_seed(7 + split.train)
    split.clouds = [
        cloud + NOISE * torch.randn(cloud.shape, generator=generator) for cloud in split.clouds
    ]
    return split


def row_of(args, points: int | None, rotations: int | None) -> dict:
    size = (points or 1024, 64 if args.quick else 320)
    train, test = map(noisy, study.load(args, "shapes", 12, size[1], size[0]))
    levels = levels_of(points, rotations)
    (graphs,) = study.stores(args, train, {0: levels}).values()
    (tests,) = study.stores(args, test, {0: levels}).values()
    models = [study.trained(args, graphs, train, seed, epochs=25)[0] for seed in args.seeds]
    row = {
        "points": points or 256,
        "rotations": rotations or 4,
        "frames": "fixed in the world" if rotations else "of the cloud",
        **results.summary([study.hits(model, tests, test) for model in models]),
        "build_ms": study.build_cost(test, levels, 12),
        "kilobytes": study.kilobytes(graphs),
    }
    row["step_ms"], row["step_mib"] = study.step_cost(models[0], graphs, train)
    print(row["points"], row["rotations"], results.percent(row), flush=True)
    return row


def main() -> None:
    args = study.arguments(__doc__)
    by_points = [row_of(args, points, None) for points in (POINTS[:2] if args.quick else POINTS)]
    turns = ROTATIONS[:2] if args.quick else ROTATIONS
    by_rotations = [row_of(args, None, rotations) for rotations in turns]
    keys = ("points", "rotations", "frames")
    costs = ("step_ms", "step_mib", "build_ms", "kilobytes")
    digits = (2, 0, 0, 0)
    rows = [
        [*(row[k] for k in keys), f"{row['points'] * row['rotations']:,}", results.percent(row)]
        + [f"{row[k]:.{d}f}" for k, d in zip(costs, digits, strict=True)]
        for row in by_points + by_rotations
    ]
    head = ["points", "rotations", "frames", "poses of level 1", "accuracy, %"]
    head += ["training, ms a shape", "its peak, MiB", "graph, ms a shape", "kB a shape"]
    figure, axes = results.axes(3, 9.6, 3.1)
    for color, found, x in (
        (results.COLORS[0], by_points, "points"),
        (results.COLORS[1], by_rotations, "rotations"),
    ):
        poses = [row["points"] * row["rotations"] for row in found]
        results.curve(axes[0], poses, found, f"more {x}", color)
        axes[1].plot(poses, [row["step_ms"] for row in found], "o-", ms=4, color=color)
        axes[2].plot(poses, [row["build_ms"] for row in found], "o-", ms=4, color=color)
    labels = ("accuracy, %", "training, CPU ms a shape", "graph, CPU ms a shape (once)")
    for one, label in zip(axes, labels, strict=True):
        results.ticks(
            one, sorted({row["points"] * row["rotations"] for row in by_points + by_rotations})
        )
        one.set(xlabel="poses of level 1", ylabel=label)
        one.set_ylim(0 if one is not axes[0] else None)
    axes[0].legend(frameon=False, fontsize=8)
    figures = {"noise": NOISE, "representatives": [NUM, NUM // 2], "rows": by_points + by_rotations}
    results.finish(args, "5-resolution", figures, results.table(head, rows), figure)


if __name__ == "__main__":
    main()

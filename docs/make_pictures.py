"""Make the pictures of the documentation, from shapes of the default set.

    python docs/make_pictures.py [NAME ...]

Every picture of a shape is a ``pcequi view`` command, which is printed. All of
them together take about half a minute of one core; a third of that trains a small
network, whose evidence is shown.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import trimesh

from pcequi.cli import main as pcequi
from pcequi.datasets import make_shape
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.sampling import FeatureSampler

PICTURES = Path(__file__).resolve().parent / "pictures"
SEEDS = {"chair": 2, "table": 3, "stool": 7}

VIEWS = {
    "chair-representatives": "chair.off --rotated --budget 24 --preset small --size 420",
    "furniture-representatives": "chair.off table.off stool.off --budget 24 --preset small "
    "--size 320",
    "furniture-highlight": "chair.off table.off stool.off --budget 24 --preset small "
    "--highlight 4 --size 320",
    "chair-frames": "chair.off --rotated --budget 24 --preset small --highlight 3 --frames "
    "--size 420",
    "chair-distance": "chair.off --budget 24 --preset small --color distance --size 420",
    "chair-feature": "chair.off --rotated --preset small --color feature --size 420",
    "chair-evidence": "chair.off table.off --rotated --run runs/shapes --color evidence "
    "--class chair --level 1 --size 320",
}
TRAIN = "train --preset small --limit 12 --epochs 10 --workers 1 --root data --cache cache"
BUDGETS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


def run(command: str) -> None:
    """A ``pcequi`` command, printed first."""
    print(f"pcequi {command}", flush=True)
    try:
        pcequi(command.split())
    except SystemExit as end:
        if end.code:
            raise


def budget_curve(path: Path) -> None:
    """Covering radius, mean distance and error of the logits, by budget."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    vertices, faces = make_shape("chair", np.random.default_rng(SEEDS["chair"]))
    pos, _ = trimesh.sample.sample_surface(trimesh.Trimesh(vertices, faces), 400, seed=0)
    pos = torch.as_tensor(np.asarray(pos) - pos.mean(0))
    pos = pos / pos.norm(dim=1).max()
    grid = GridPoses("O", align="principal")

    def levels(num):
        sampling = FeatureSampler(num=num, refine=2)
        return [
            Level(0.25, grid, sampling, num_points=96),
            Level(0.5, grid, sampling, num_points=64),
            Level(1.4, CentroidPoses("O")),
        ]

    torch.manual_seed(0)
    channels = preset("small")["channels"]
    model = GroupConvClassifier(levels(None), 16, channels=channels).double().eval()
    radius, mean, error = [], [], []
    with torch.no_grad():
        dense = model(build_pose_graph(pos, levels(None)))
        for num in BUDGETS:
            graph, sampled = build_pose_graph(pos, levels(num), embeddings=True)
            radius.append(float(sampled[0].chosen.covering_radius[0]))
            mean.append(float(sampled[0].chosen.distance.mean()))
            error.append(float((model(graph) - dense).norm() / dense.norm()))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.2, 3.0), layout="constrained")
    left.plot(BUDGETS, radius, "o-", label="covering radius", color="#b5261e")
    left.plot(BUDGETS, mean, "o-", label="mean distance", color="#2563a8")
    left.set(ylabel="embedding distance, level 1", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(BUDGETS, error, "o-", color="#3b7d3a")
    right.set(ylabel="relative error of the logits", yscale="log")
    for axes in (left, right):
        axes.set(xlabel="representatives a level (of 2,304 and 1,536 poses)", xscale="log")
        axes.set_xticks(BUDGETS, [str(num) for num in BUDGETS], fontsize=8)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in (*VIEWS, "budget")]
    if unknown:
        sys.exit(f"no picture is called {unknown[0]}: {', '.join((*VIEWS, 'budget'))}")
    wanted = names or [*VIEWS, "budget"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, seed in SEEDS.items():
            vertices, faces = make_shape(name, np.random.default_rng(seed))
            trimesh.Trimesh(vertices, faces, process=False).export(f"{name}.off")
        if any("--run" in VIEWS.get(name, "") for name in wanted):
            run(f"{TRAIN} --run runs/shapes")
        for name in wanted:
            if name == "budget":
                budget_curve(PICTURES / "budget.png")
            else:
                run(f"view {VIEWS[name]} --save {PICTURES / name}.png")
        os.chdir(PICTURES)


if __name__ == "__main__":
    main(sys.argv[1:])

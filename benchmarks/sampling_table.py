"""How much of the embeddings' variance each way of sampling loses.

    python benchmarks/sampling_table.py --source FILE [--shapes 16]

For each budget and method: the share of the variance of the level-1 geometric
embeddings that is lost when every pose takes its representative's embedding, or a mean of
six (mean over test shapes of ModelNet40; lower is better), and the covering radius
in units of the spread. ``mean``: representatives stand for the rows that lose least, with
the nearest alone the means of their clusters.
"""

from __future__ import annotations

import argparse

import torch
from common import write
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pcequi.centers import center_rows
from pcequi.datasets import ModelNet
from pcequi.embedding import geometric_embedding
from pcequi.normals import estimate_normals
from pcequi.poses import GridPoses, TangentPoses
from pcequi.sampling import FeatureSampler

BUDGETS = (64, 256, 1024)
POSES = {
    # The setting of the first experiments: 8 angles about estimated normals.
    "tangent": (TangentPoses(8), 0.25, 15, True),
    # The default network of then, level 1: 24 principal-axes rotations.
    "principal": (GridPoses("O", align="principal"), 0.2, 27, False),
}


def methods(num: int) -> dict[str, FeatureSampler]:
    return {
        "spatial FPS": FeatureSampler(num=num, method="spatial"),
        "random poses": FeatureSampler(num=num, method="random"),
        "FPS": FeatureSampler(num=num),
        "FPS, 3 Lloyd steps, medoid": FeatureSampler(num=num, refine=3),
        "FPS, 3 Lloyd steps, mean": FeatureSampler(num=num, refine=3, center="mean"),
        "FPS, 3 Lloyd steps, six blended, medoid": FeatureSampler(num=num, refine=3, blend=6),
        "FPS, 3 Lloyd steps, six blended, mean": FeatureSampler(
            num=num, refine=3, blend=6, center="mean"
        ),
        "FPS and 2 Lloyd steps on 64 random points, medoid": FeatureSampler(
            num=num, refine=2, seeds=64
        ),
    }


def measure(pos: torch.Tensor, kind: str, generator: torch.Generator) -> dict:
    sampler, radius, points, with_normals = POSES[kind]
    normal = estimate_normals(pos) if with_normals else None
    poses = sampler(pos, normal)
    z = geometric_embedding(poses, pos, radius, points, normal).flatten(0, 1)
    spread = (z - z.mean(0)).square().sum(1).mean()
    k = poses.num_rotations
    seeds = (
        torch.randperm(len(pos), generator=generator)[:64, None] * k + torch.arange(k)
    ).flatten()
    out = {}
    for num in BUDGETS:
        for name, method in methods(num).items():
            chosen = method(
                z,
                pos=poses.pos.repeat_interleave(k, 0),
                num_rotations=k,
                seed_rows=seeds if method.seeds else None,
                generator=generator,
            )
            rows = center_rows(chosen, z) if method.center == "mean" else z[chosen.index]
            out[name, num] = (
                float((z - chosen.spread(rows)).square().sum(1).mean() / spread),
                float(chosen.covering_radius[0] / spread.sqrt()),
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", help="packed file or folder of ModelNet40")
    parser.add_argument("--root", help="where data sets are kept")
    parser.add_argument("--shapes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = ModelNet(args.root, name="40", train=False, source=args.source)
    generator = torch.Generator().manual_seed(args.seed)
    rows = torch.randperm(len(data), generator=generator)[: args.shapes].tolist()
    figures = {
        "command": "python benchmarks/sampling_table.py --source FILE",
        "seed": args.seed,
        "shapes": args.shapes,
        "data": "ModelNet40 test split, 1,024 points",
    }
    for kind in POSES:
        found = [
            measure(data[row].pos.double(), kind, generator)
            for row in track(rows, description=f"{kind} poses")
        ]
        table = Table(title=f"{kind} poses: variance lost (covering radius)")
        table.add_column("method")
        for num in BUDGETS:
            table.add_column(str(num), justify="right")
        figures[kind] = {}
        for name in methods(1):
            mean = {
                num: torch.tensor([f[name, num] for f in found]).mean(0).tolist() for num in BUDGETS
            }
            figures[kind][name] = {
                str(num): {"lost": round(a, 4), "covering_radius": round(b, 4)}
                for num, (a, b) in mean.items()
            }
            table.add_row(name, *(f"{a:.2f} ({b:.2f})" for a, b in mean.values()))
        Console().print(table)
    print("written:", write("sampling-table", figures).name)


if __name__ == "__main__":
    main()

"""How fast is a network on this machine, beside what would be used instead?

What ``pcequi bench`` measures, kept with machine, versions and commit:

    python benchmarks/speed.py [--preset NAME] [--threads N]

and what a shape costs the networks that come with pcequi, from its points to its class,
in CPU time of one thread:

    python benchmarks/speed.py --networks

On a GPU, ``pcequi bench --device cuda`` is kept:

    python benchmarks/speed.py --gpu

With ``--quick`` the figures are printed only.
"""

import argparse
import json
import time

import torch
from common import TEAMS, write

from pcequi.bench import bench_figures, gpu_figures
from pcequi.bench.figures import default_clouds
from pcequi.bench.measure import summary
from pcequi.networks import load_network, network_names
from pcequi.training.predict import predict_cloud
from pcequi.training.threads import set_threads


def network_figures(clouds: list[torch.Tensor]) -> dict:
    """Milliseconds of CPU a shape for each network, and for those that are asked together: median,
    least, largest.

    Every cloud is given to all in turn, so that what disturbs the machine disturbs all alike.
    """
    asked = {name: [load_network(name)] for name in network_names()}
    for team in TEAMS:
        asked[" and ".join(team)] = [asked[name][0] for name in team]
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for number, cloud in enumerate([*clouds[:2], *clouds]):
        for name, networks in asked.items():
            start = time.process_time()
            predict_cloud(networks, cloud)
            if number >= 2:  # the first two compile and warm up
                seconds[name].append(time.process_time() - start)
    return {
        "command": "python benchmarks/speed.py --networks",
        "measured": "CPU ms of one thread, from points to probabilities",
        "shapes": f"{len(clouds)} of the default shapes, 1,024 points",
        "cpu_ms_per_shape": {name: summary(values, 1e3) for name, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="default")
    parser.add_argument("--networks", action="store_true", help="those that come with pcequi")
    parser.add_argument("--gpu", action="store_true", help="of this machine, in place of its cores")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing kept")
    parser.add_argument("--threads", type=int, help="by default one a core")
    args = parser.parse_args()
    if args.networks:
        set_threads(1)
        name = "speed-networks"
        figures = network_figures(default_clouds(4 if args.quick else 64))
    elif args.gpu:
        set_threads(args.threads)
        name = "speed-gpu" if args.preset == "default" else f"speed-gpu-{args.preset}"
        figures = gpu_figures(args.preset, 5 if args.quick else 20, progress=print)
    else:
        threads = set_threads(args.threads)
        name = "speed" if args.preset == "default" else f"speed-{args.preset}"
        figures = bench_figures(args.preset, args.quick, workers=threads, progress=print)
    if args.quick:
        print(json.dumps(figures, indent=1))
    else:
        print(write(name, figures))


if __name__ == "__main__":
    main()

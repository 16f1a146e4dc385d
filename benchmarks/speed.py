"""How fast is a network on this machine, beside what would be used instead?

What ``pcequi bench`` measures, kept with machine, versions and commit:

    python benchmarks/speed.py [--preset NAME] [--threads N]

With ``--quick`` the figures are printed only.
"""

import argparse
import json

from common import write

from pcequi.bench import bench_figures
from pcequi.training.threads import set_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing kept")
    parser.add_argument("--threads", type=int, help="by default one a core")
    args = parser.parse_args()
    threads = set_threads(args.threads)
    figures = bench_figures(args.preset, args.quick, workers=threads, progress=print)
    if args.quick:
        print(json.dumps(figures, indent=1))
    else:
        print(write("speed" if args.preset == "default" else f"speed-{args.preset}", figures))


if __name__ == "__main__":
    main()

"""How fast is a network on this machine, beside what would be used instead?

What ``pcequi bench`` measures, kept with machine, versions and commit:

    python benchmarks/speed.py [--preset NAME] [--quick] [--threads N]
"""

import argparse

from common import write

from pcequi.bench import bench_figures
from pcequi.training.threads import set_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, help="by default one a core")
    args = parser.parse_args()
    threads = set_threads(args.threads)
    name = "speed" if args.preset == "default" else f"speed-{args.preset}"
    print(write(name, bench_figures(args.preset, args.quick, workers=threads, progress=print)))


if __name__ == "__main__":
    main()

"""Accuracy of several trained networks together on rotated ModelNet40.

    python benchmarks/modelnet40_together.py RUN RUN --source FILE

Takes the runs of ``modelnet40_accuracy.py`` (same protocol and seed), classifies
the test split by the mean of their probabilities, and keeps the figure under
``together`` in ``results/modelnet40-accuracy.json``. From the second on a network that
comes with pcequi may be named instead of a run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from common import RESULTS, add_machine, circumstances, decisive

from pcequi.networks import find_network, network_names
from pcequi.training.evaluate import agreement, evaluate_together
from pcequi.training.run_settings import load_run_settings, load_run_split
from pcequi.training.threads import set_threads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="folders of the runs")
    parser.add_argument("--source", required=True, help="packed file or folder of ModelNet40")
    add_machine(parser)
    args = parser.parse_args()
    set_threads(args.threads)
    named = [run for run in args.runs[1:] if run in network_names()]
    runs = [run for run in args.runs if run not in named]
    settings = [load_run_settings(run) for run in runs]
    first = settings[0]
    for run, other in zip(runs, settings):
        if (other.protocol, other.fit.seed, other.data) != (
            first.protocol,
            first.fit.seed,
            first.data,
        ):
            parser.error(f"{run} has another protocol, seed or data set than {args.runs[0]}")
    for name in named:
        extra = find_network(name).extra
        if (extra["protocol"], extra["seed"]) != (first.protocol, first.fit.seed):
            parser.error(f"{name} was trained under another protocol or seed than {args.runs[0]}")
    test = load_run_split(replace(first, source=args.source, root=None), train=False)
    models = [find_network(place).model for place in (*runs, *named)]
    versions = [[other.resamplings, other.resample_as] for other in settings]
    about = [find_network(name).extra for name in named]
    versions += [[extra["resamplings"], extra["resample_as"]] for extra in about]
    trained = [*(decisive(other.to_dict()) for other in settings), *about]
    seed, logits = first.fit.seed, {}
    for protocol in first.protocols:
        report, logits[protocol] = evaluate_together(
            models, test, protocol, seed=seed, cache=args.cache, workers=args.workers
        )
        row = {
            "protocol": protocol,
            "presets": [*(other.preset for other in settings), *named],
            "versions": versions,
            "trained": trained,
            "seed": seed,
            "accuracy": report["accuracy"],
            "mean_class_accuracy": report["mean_class_accuracy"],
            "alone": report["alone"],
            "agreement": agreement(logits[first.protocol], logits[protocol]),
            "shapes": report["shapes"],
            "circumstances": circumstances(),
        }
        merge(row)
        alone = ", ".join(f"{share:.2%}" for share in row["alone"])
        print(
            f"{protocol} seed {seed}: {row['accuracy']:.2%} together; alone {alone}; "
            f"{row['agreement']:.2%} as under {first.protocol}"
        )


def merge(row: dict) -> None:
    """Add a figure to the results, in place of the same one."""
    path = RESULTS / "modelnet40-accuracy.json"
    results = json.loads(path.read_text()) if path.exists() else {"runs": []}
    same = ("protocol", "presets", "trained")
    others = [r for r in results.get("together", []) if any(r[key] != row[key] for key in same)]
    results["together"] = [*others, row]
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Accuracy on rotated ModelNet40, trained on one GPU: several seeds side by side.

    python benchmarks/modelnet40_gpu.py --source FILE --preset default --protocol z/SO3

Graphs are precomputed on the GPU and stay there: the training clouds and some resampled
versions of them, which the seeds share (their rotations and resamplings are drawn with the
first seed; weights, batches, mixing and dropout with each one's own). Each run is left in
a folder as ``pcequi train`` leaves it, with a report of the last epoch. With ``--held-out``
so many of the training clouds are kept out and reported instead of the test split.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from common import circumstances
from modelnet40_accuracy import add_runs, add_training, run_settings
from torch import Tensor

from pcequi.graph_device import DeviceGraphs
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level
from pcequi.ranks import local_cores
from pcequi.report import code_commit, peak_memory, save_hardest
from pcequi.training.checkpoints import save_checkpoint
from pcequi.training.evaluate import classification_report
from pcequi.training.files import write_json
from pcequi.training.fit import predict_logits, store_of_epoch
from pcequi.training.mixing import draw_mixing
from pcequi.training.protocols import parse_protocol, protocol_rotations
from pcequi.training.resample import resampled_clouds
from pcequi.training.run_report import about_run, run_report
from pcequi.training.run_settings import RunSettings, load_run_split
from pcequi.training.schedule import epoch_batches, number_of_batches, one_cycle
from pcequi.training.settings import FitSettings
from pcequi.training.state import TrainingState
from pcequi.training.step import BatchLoss, GraphedSteps, Totals, set_rate

# Clouds that a process resamples together.
TOGETHER = 512


def turned_clouds(
    clouds: Sequence[Tensor], turns: Tensor, number: int, seed: int, first: int, kind: str
) -> tuple[Tensor, list[int]]:
    """Some clouds in their ``number``-th version (0: as they are), turned: one after the
    other [sum of N, 3], and how many points each has."""
    if number:
        clouds = resampled_clouds(clouds, number, seed, first=first, kind=kind)
    turned = [cloud.double() @ turn.T for cloud, turn in zip(clouds, turns)]
    return torch.cat(turned), [len(cloud) for cloud in clouds]


def ask(
    pool,
    clouds: Sequence[Tensor],
    kind: str,
    train: bool,
    seed: int,
    numbers: range,
    resample_as: str = "shape",
):
    """``turned_clouds`` of each version, begun by a pool: lists of its answers, in parts."""
    asked = []
    for number in numbers:
        turns = protocol_rotations(kind, len(clouds), train=train, seed=seed + number)
        starts = range(0, len(clouds), TOGETHER)
        asked.append(
            [
                pool.submit(
                    turned_clouds,
                    clouds[start : start + TOGETHER],
                    turns[start : start + TOGETHER],
                    number,
                    seed,
                    start,
                    resample_as,
                )
                for start in starts
            ]
        )
    return asked


def make_graphs(parts, levels: Sequence[Level], dtype: torch.dtype) -> DeviceGraphs:
    """Graphs of what ``ask`` was answered, made on the GPU."""
    clouds = []
    for part in parts:
        flat, sizes = part.result()
        clouds += flat.cuda().split(sizes)
    return DeviceGraphs.build(clouds, levels, "cuda", dtype)


@dataclass
class Run:
    """A network in training."""

    model: torch.nn.Module
    settings: FitSettings
    history: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.model.cuda().train()
        self.stream = torch.cuda.Stream()
        self.optimizer = TrainingState(self.model, self.settings, None).optimizer
        self.totals = Totals("cuda")
        loss = BatchLoss(self.model, self.settings)
        self.steps = GraphedSteps(loss, self.optimizer, self.totals, self.settings.clip)

    def epoch(self, graphs: DeviceGraphs, labels: Tensor, rows: Tensor, epoch: int):
        """Yields after each step of an epoch, so that others can take theirs meanwhile."""
        settings = self.settings
        num = number_of_batches(len(rows), settings.batch_size)
        order = epoch_batches(rows, num, settings.seed, epoch)
        sizes = [len(part) for part in order]
        with torch.cuda.stream(self.stream):  # which does not wait for what others queue
            order = torch.cat(order).cuda()
            targets = labels[order]
            self.totals.clear()
        for step, (own, target) in enumerate(zip(order.split(sizes), targets.split(sizes))):
            rate = one_cycle(
                epoch * num + step, num * settings.epochs, settings.lr, settings.warmup
            )
            with torch.cuda.stream(self.stream):
                set_rate(self.optimizer, rate)
                self.steps(graphs, own, target, draw_mixing(settings.mixup, len(own), "cuda"))
            yield

    def finish(self, epoch: int, start: float) -> None:
        """Note the metrics of an epoch; waits for the GPU."""
        self.stream.synchronize()
        loss, accuracy, finite = self.totals.read()
        if not finite:
            raise SystemExit(f"the gradient is not finite at epoch {epoch + 1}; lower the rate")
        seconds = round(time.perf_counter() - start, 3)
        self.history.append(
            {"epoch": epoch + 1, "loss": loss, "accuracy": accuracy, "seconds": seconds}
        )


def train(runs: Sequence[Run], versions: Sequence[DeviceGraphs], labels, rows):
    """Train networks side by side, each step of one while the others take theirs."""
    labels = labels.cuda()
    torch.cuda.synchronize()
    for epoch in range(max(run.settings.epochs for run in runs)):
        start = time.perf_counter()
        active = [run for run in runs if epoch < run.settings.epochs]
        graphs = versions[store_of_epoch(epoch, active[0].settings.epochs, len(versions))]
        for _ in zip(*(run.epoch(graphs, labels, rows, epoch) for run in active), strict=True):
            pass
        for run in active:
            run.finish(epoch, start)
        if (epoch + 1) % 10 == 0 or epoch < 2:
            losses = " ".join(f"{run.history[-1]['accuracy']:.3f}" for run in active)
            seconds = time.perf_counter() - start
            print(f"epoch {epoch + 1}: {losses}, {seconds:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_training(parser)
    add_runs(parser)
    parser.add_argument("--preset", nargs="+", default=["default"])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held-out", type=int, default=0, help="training clouds not trained on")
    args = parser.parse_args()
    pool = ProcessPoolExecutor(local_cores(), mp_context=get_context("spawn"))
    for protocol in args.protocol:
        for preset in args.preset:
            _together(args, protocol, preset, pool)


def _together(args, protocol: str, preset: str, pool) -> None:
    settings = [run_settings(args, protocol, preset, seed, "bfloat16") for seed in args.seed]
    data, test = (load_run_split(settings[0], part) for part in (True, False))
    runs = []
    for one in settings:
        torch.manual_seed(one.fit.seed)
        model = GroupConvClassifier.from_preset(preset, len(data.classes))
        runs.append(Run(model, one.fit))
    levels, kind, seed = runs[0].model.levels, parse_protocol(protocol).train, args.seed[0]
    start = time.perf_counter()
    numbers = range(args.resamplings + 1)
    asked = ask(pool, data.clouds, kind, True, seed, numbers, args.resample_as)
    versions = []
    for parts in asked:
        before = torch.cuda.memory_allocated()
        versions.append(make_graphs(parts, levels, torch.bfloat16))
        torch.cuda.empty_cache()  # of what graphs are made from
        need = (len(asked) - 1) * (torch.cuda.memory_allocated() - before)
        if len(versions) == 1 and need > 0.8 * torch.cuda.mem_get_info()[0]:
            raise SystemExit(
                f"{need / 1e9:.0f} GB more of graphs do not fit into the GPU's memory; "
                "lower --resamplings"
            )
    torch.cuda.synchronize()
    built = time.perf_counter()
    print(f"{preset} {protocol}: {len(versions)} versions in {built - start:.1f} s", flush=True)
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    rows, held = rows[args.held_out :].sort().values, rows[: args.held_out].sort().values
    train(runs, versions, data.labels, rows)
    trained = time.perf_counter()
    seconds = {"precompute_train": round(built - start, 2), "train": round(trained - built, 2)}
    print(f"{seconds} for {len(runs)} seeds", flush=True)
    if args.held_out:
        for run in runs:
            logits = predict_logits(run.model, versions[0], held, device="cuda")
            share = float((logits.argmax(1) == data.labels[held]).double().mean())
            print(f"held out, seed {run.settings.seed}: {share:.2%}", flush=True)
        return
    del versions
    for one, run in zip(settings, runs):
        _report(args, one, run, data, test, seconds, pool)


def _report(args, settings: RunSettings, run: Run, data, test, seconds: dict, pool) -> None:
    seed, found, logits = settings.fit.seed, {}, {}
    run.model.half().float()  # what is saved
    made, asked = {}, {}
    for name in settings.protocols:
        start = time.perf_counter()
        parts = ask(pool, test.clouds, parse_protocol(name).test, False, seed, range(1))[0]
        graphs = make_graphs(parts, run.model.levels, torch.float32)
        torch.cuda.synchronize()
        made[name], start = round(time.perf_counter() - start, 3), time.perf_counter()
        logits[name] = predict_logits(run.model, graphs, device="cuda")
        asked[name] = round(time.perf_counter() - start, 3)
        found[name] = classification_report(logits[name], test.labels, test.classes)
    first, about = settings.protocols[0], about_run(settings, data.clouds)
    report = run_report(
        about,
        settings,
        run.model,
        found,
        logits,
        run.history,
        seconds | {"precompute_test": made, "evaluate": asked, "seeds": len(args.seed)},
        shapes={"train": len(data), "held_out": 0, "test": len(test)},
        commit=code_commit(),
        device="cuda",
        peak_memory_mb=peak_memory("cuda"),
        circumstances=circumstances(),
    )
    report["settings"] |= {"source": None}
    kind = "" if settings.resample_as == "shape" else f"{settings.resample_as}-"
    name = f"gpu-{kind}{settings.preset}-{settings.protocol.replace('/', '-')}-{seed}"
    folder = Path(args.runs) / name
    save_checkpoint(folder, run.model.half(), data.classes, about)
    write_json(folder / "settings.json", settings.to_dict() | {"source": None})
    write_json(folder / "report.json", report)
    save_hardest(folder, first, logits[first], test)
    lines = [json.dumps(metrics) + "\n" for metrics in run.history]
    (folder / "metrics.jsonl").write_text("".join(lines))
    shown = ", ".join(f"{name} {share:.2%}" for name, share in report["accuracy"].items())
    print(f"{settings.preset} seed {seed}: {shown}", flush=True)


if __name__ == "__main__":
    main()

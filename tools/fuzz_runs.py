"""Checkpoints, states, reports, configuration and caches of graphs; for ``fuzz_readers``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.report import write_report
from pcequi.sampling import FeatureSampler
from pcequi.training import FitSettings, RunSettings, fit, load_checkpoint, save_checkpoint
from pcequi.training.files import read_tensors
from pcequi.training.predict import predict_files
from pcequi.training.run_settings import load_run_settings

#: What an error may call the file of a target.
RUN_NAMES = {
    "model.safetensors": ("model.",),
    "model.json": ("model.", "`num_points`"),
    "pretrained.safetensors": ("pretrained-",),
    "config.json": ("pretrained-",),
    "tensors": ("tensors.safetensors",),
    "state": ("state.safetensors",),
    "settings.json": ("settings.json",),
    "report.json": ("report.json",),
    "metrics.jsonl": ("metrics.jsonl", "report.json"),
    "hardest.json": ("hardest.json", "report.json"),
    "store.json": ("store.json", "chunk-"),
    "chunk": ("chunk-",),
    "chunk-unchecked": ("chunk-",),
}


def _network() -> GroupConvClassifier:
    levels = [
        Level(0.6, GridPoses("T", "principal"), FeatureSampler(num=4), kernel_points=7),
        Level(1.5, CentroidPoses("T"), kernel_points=7),
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GroupConvClassifier(levels, 3, [4, 4], head_channels=4)


def _report() -> dict:
    one, settings = {"z/SO3": 0.5}, RunSettings(fit=FitSettings()).to_dict()
    seconds = {"precompute_train": 1.0, "precompute_test": one, "train": 2.0, "evaluate": one}
    return {
        "data": "shapes", "accuracy": one, "mean_class_accuracy": one, "agreement": {},
        "per_class": {"z/SO3": {"ball": 0.5, "rod": 0.5}}, "settings": settings,
        "confusion": {"z/SO3": [[1, 1], [1, 1]]}, "parameters": 9, "seconds": seconds,
        "shapes": {"train": 4, "held_out": 0, "test": 4}, "epochs": 2, "device": "cpu",
        "threads": 1, "torch": "2", "pcequi": "0", "commit": None,
        "peak_memory_mb": {"process": 1.0},
    }  # fmt: skip


def _hardest() -> dict:
    shape = {
        "shape": 1, "name": None, "true": "ball", "guess": "rod", "right": False,
        "probability_true": 0.1, "probability_guess": 0.9, "points": "AAAA",
    }  # fmt: skip
    return {"protocol": "z/SO3", "shapes": [shape]}


def run_targets(folder: Path, into: Callable) -> dict[str, tuple[list[bytes], Callable]]:
    """For each kind of file valid examples, and what reads one given its bytes."""
    targets: dict[str, tuple[list[bytes], Callable]] = {}
    made, model = folder / "valid", _network()
    cloud = folder / "cloud.npy"
    np.save(cloud, np.random.default_rng(0).normal(size=(9, 3)))

    def each(kind: str, source: Path, name: str, read: Callable, examples: list[bytes]) -> None:
        """A copy of a folder in which one file changes."""
        copy = folder / f"{source.name}-{kind.replace('.', '-')}"
        shutil.copytree(source, copy)
        targets[kind] = (examples, into(f"{copy.name}/{name}", read))

    # Checkpoints.
    save_checkpoint(made, model, ["a", "b", "c"], {"seed": 1, "num_points": 8})
    weights, about = made / "model.safetensors", made / "model.json"

    def predict(path: Path) -> None:
        result = predict_files(load_checkpoint(path.parent), [cloud])
        assert "predictions" in result[0] or "num_points" in result[0]["error"], result

    def belonging(path: Path) -> None:
        header = json.loads(about.read_text())
        header["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(header))
        predict(path)

    each("model.safetensors", made, weights.name, belonging, [weights.read_bytes()])
    each("model.json", made, about.name, predict, [about.read_bytes()])
    tensors = into("tensors.safetensors", lambda path: read_tensors(path, "delete it"))
    targets["tensors"] = ([weights.read_bytes()], tensors)
    hub = folder / "pretrained"
    model.save_pretrained(hub)

    def pretrained(path: Path) -> None:
        GroupConvClassifier.from_pretrained(path.parent)

    each("config.json", hub, "config.json", pretrained, [(hub / "config.json").read_bytes()])
    # A second example without a checksum lets changes reach what comes after it.
    contents = [(hub / "model.safetensors").read_bytes(), save(load_file(weights))]
    each("pretrained.safetensors", hub, "model.safetensors", pretrained, contents)
    # Caches of graphs.
    clouds = [torch.from_numpy(np.load(cloud))] * 3
    store = GraphStore.build(made, clouds, model.levels, workers=1)

    def whole(path: Path) -> None:
        opened = GraphStore(path.parent)
        opened.verify()
        # What passes the checksums must be usable.
        opened.batch([2, 0])

    def unchecked(path: Path) -> None:
        GraphStore(path.parent).batch([2, 0])

    header = (store.folder / "store.json").read_bytes()
    chunk = store.folder / "chunk-00000.safetensors"
    each("store.json", store.folder, "store.json", whole, [header])
    each("chunk", store.folder, chunk.name, whole, [chunk.read_bytes()])
    each("chunk-unchecked", store.folder, chunk.name, unchecked, [chunk.read_bytes()])
    # Runs.
    run, labels = folder / "run", torch.tensor([0, 1, 2])
    settings = FitSettings(epochs=1, batch_size=3)
    fit(model, store, labels, settings, folder=run, quiet=True)

    def resume(path: Path) -> None:
        fit(_network(), store, labels, settings, folder=path.parent, resume=True, quiet=True)

    each("state", run, "state.safetensors", resume, [(run / "state.safetensors").read_bytes()])
    content = json.dumps(RunSettings(fit=FitSettings()).to_dict(), indent=1).encode()
    read = into("settings.json", lambda path: load_run_settings(path.parent))
    targets["settings.json"] = ([content], read)
    (run / "report.json").write_text(json.dumps(_report()))
    (run / "hardest.json").write_text(json.dumps(_hardest()))
    for name in ("report.json", "metrics.jsonl", "hardest.json"):
        contents = [(run / name).read_bytes()]
        each(name, run, name, lambda path: write_report(path.parent), contents)
    return targets

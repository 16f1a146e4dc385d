"""A finished run of three classes, written by hand: no training is needed to report it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from pcequi.report import save_hardest
from pcequi.training.evaluate import classification_report
from pcequi.training.files import write_json
from pcequi.training.run_settings import RunSettings
from pcequi.training.splits import Split

# What must not be read as HTML or end the script.
NASTY = '<b>"cup" & </script>'


@pytest.fixture(scope="session")
def browser():
    """The module ``browser.py``."""
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["browser"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nasty():
    return NASTY


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(0)
    stretch = torch.tensor([1.0, 0.5, 0.2])
    clouds = [torch.randn(900 + n, 3, generator=generator) * stretch for n in range(9)]
    labels = torch.arange(9) % 3
    names = [f"scans/{n}.ply" for n in range(9)]
    return Split("folder", False, clouds, labels, ["ball", NASTY, "rod"], names)


@pytest.fixture
def logits(split):
    """All right but shapes 1 and 5; 5 is the surer mistake."""
    logits = torch.nn.functional.one_hot(split.labels, 3) * 2.0
    logits[1] = torch.tensor([1.0, 0.0, 0.0])
    logits[5] = torch.tensor([0.0, 6.0, 0.0])
    return logits


@pytest.fixture
def finished(tmp_path, split, logits):
    """Folder of the run."""
    folder = tmp_path / "run"
    folder.mkdir()
    found = classification_report(logits, split.labels, split.classes)
    protocols = ("z/SO3", "z/z")
    settings = RunSettings(data="folder", root="/home/somebody/scans", also=("z/z",)).to_dict()
    report = {
        "data": "folder", "agreement": {"z/SO3, z/z": 1.0}, "settings": settings, "epochs": 10,
        "shapes": {"train": 30, "held_out": 0, "test": 9}, "parameters": 1234567,
        "seconds": {
            "precompute_train": 3.0, "precompute_test": {"z/SO3": 0.9, "z/z": 0.8},
            "train": 12.5, "evaluate": {"z/SO3": 0.09, "z/z": 0.08},
        },
        "device": "cpu", "threads": 1, "torch": "2.13", "pcequi": "0.1.0",
        "commit": "f" * 40, "peak_memory_mb": {"process": 512.3}, "run": "runs/one",
        **{
            name: dict.fromkeys(protocols, found[name])
            for name in ("accuracy", "mean_class_accuracy", "per_class", "confusion")
        },
    }  # fmt: skip
    write_json(folder / "report.json", report)
    history = [
        {"epoch": n, "loss": 1 / n, "accuracy": 1 - 0.5 / n, "val_accuracy": 0.4, "seconds": 0.1}
        for n in range(1, 11)
    ]
    lines = [json.dumps(metrics) + "\n" for metrics in history]
    (folder / "metrics.jsonl").write_text("".join(lines))
    save_hardest(folder, "z/SO3", logits, split)
    return folder

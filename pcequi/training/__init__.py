"""Training, evaluation, protocols and checkpoints."""

from pcequi.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from pcequi.training.evaluate import (
    classification_report,
    compare_modes,
    evaluate_protocol,
    evaluate_together,
)
from pcequi.training.fit import fit, predict_logits
from pcequi.training.predict import predict_cloud, predict_each, predict_files
from pcequi.training.protocols import PROTOCOLS, parse_protocol, protocol_rotations
from pcequi.training.run_settings import RunSettings
from pcequi.training.runs import train_run
from pcequi.training.settings import FitSettings
from pcequi.training.splits import DATA, Split, load_split, precompute

__all__ = [
    "DATA",
    "PROTOCOLS",
    "Checkpoint",
    "FitSettings",
    "RunSettings",
    "Split",
    "classification_report",
    "compare_modes",
    "evaluate_protocol",
    "evaluate_together",
    "fit",
    "load_checkpoint",
    "load_split",
    "parse_protocol",
    "precompute",
    "predict_cloud",
    "predict_each",
    "predict_files",
    "predict_logits",
    "protocol_rotations",
    "save_checkpoint",
    "train_run",
]

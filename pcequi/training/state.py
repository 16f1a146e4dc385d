"""The state of a training on disk: weights, optimizer, settings and metrics."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from pcequi.errors import ArgumentError, FileError
from pcequi.files import make_folder
from pcequi.ranks import ALONE, Ranks
from pcequi.training.files import read_tensors, write_tensors, write_text
from pcequi.training.settings import FitSettings

__all__ = ["TrainingState"]

_STATE = "state.safetensors"
_METRICS = "metrics.jsonl"
_REMEDY = "delete it to start again"


class TrainingState:
    """A network and its optimizer, kept in a folder after each epoch.

    Args:
        model: a ``GroupConvClassifier``.
        settings: of the training; another one's state is not taken up.
        folder: where the files go; None: nowhere.
        ranks: all read the state, process 0 writes it.

    **Equivariance:** does not apply.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: FitSettings,
        folder: str | Path | None,
        ranks: Ranks = ALONE,
    ):
        self.model, self.settings, self.ranks = model, settings, ranks
        self.folder = None if folder is None else Path(folder)
        matrices = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() <= 1]
        rate, options = settings.lr, {"fused": True}  # one pass over the weights instead of many
        if matrices[0].is_cuda:  # for steps in CUDA graphs
            rate = torch.tensor(rate, device=matrices[0].device)
            options["capturable"] = True
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": rest, "weight_decay": 0.0}],
            lr=rate,
            weight_decay=settings.weight_decay,
            **options,
        )
        if self.folder is not None:
            make_folder(self.folder)

    def save(self, history: list[dict]) -> None:
        """Keep the state of this epoch: one file, moved into place whole."""
        if self.folder is None or not self.ranks.first:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        note = {"settings": asdict(self.settings), "model": self.model.settings, "history": history}
        write_tensors(self.folder / _STATE, tensors, note)
        self._write_metrics(history)

    def load(self) -> list[dict]:
        """Take up the state on disk; nothing there: start from the beginning.

        Returns:
            The metrics of the epochs that are done.

        Raises:
            ArgumentError: there is no folder, or the state is of other settings.
            FileError: the state is damaged, or not the same for all processes.
        """
        if self.folder is None:
            raise ArgumentError("`resume` (=True) needs a `folder` to resume from")
        path = self.folder / _STATE
        history = self._take_up(path) if os.path.exists(path) else []
        found = self.ranks.gather(torch.tensor([len(history)]), even=True)
        if (found != found[0]).any():
            raise FileError(
                f"{path} has {len(history)} epochs for process {self.ranks.rank}, and "
                f"{found.tolist()} for all of them; give a folder that all machines share"
            )
        if history and self.ranks.first:
            # A process that was killed between the two files left the metrics an epoch behind.
            self._write_metrics(history)
        return history

    def _write_metrics(self, history: list[dict]) -> None:
        lines = [json.dumps(metrics) + "\n" for metrics in history]
        write_text(self.folder / _METRICS, "".join(lines))

    def _take_up(self, path: Path) -> list[dict]:
        tensors, note = read_tensors(path, _REMEDY)
        if not all(isinstance(note.get(name), dict) for name in ("settings", "model")):
            raise FileError(f"{path} is no state of a training; {_REMEDY}")
        for name, own in (("settings", asdict(self.settings)), ("model", self.model.settings)):
            kept = note[name]
            changed = [key for key in own if kept.get(key) != json.loads(json.dumps(own[key]))]
            if changed:
                raise ArgumentError(
                    f"`resume` (=True) cannot go on with other settings than those in {path}: "
                    f"{', '.join(changed)}; give the same ones, or {_REMEDY}"
                )
        try:
            weights, state = {}, {}
            for key, value in tensors.items():
                kind, name = key.split(".", 1)
                if kind == "model":
                    weights[name] = value
                else:
                    number, name = name.split(".", 1)
                    state.setdefault(int(number), {})[name] = value
            self.model.load_state_dict(weights)
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            return list(note["history"])
        except (RuntimeError, ValueError, LookupError) as error:
            raise FileError(f"{path} does not fit this network ({error}); {_REMEDY}") from error

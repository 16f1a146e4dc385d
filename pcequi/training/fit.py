"""Training on precomputed graphs."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcequi.errors import ArgumentError, DataError, FileError, PcequiError
from pcequi.files import make_folder
from pcequi.graph_store import GraphStore
from pcequi.training.augment import augment, mix
from pcequi.training.files import read_tensors, write_tensors, write_text
from pcequi.training.norms import FEW_STEPS, refresh_norms
from pcequi.training.progress import progress_bar
from pcequi.training.splits import check_labels

__all__ = ["FitSettings", "fit", "one_cycle", "predict_logits", "prefetch", "split_rows"]

PRECISIONS = ("float32", "bfloat16")
_STATE = "state.safetensors"
_METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class FitSettings:
    """How a network is trained: AdamW, one cycle of the learning rate.

    Args:
        epochs: passes over the training clouds.
        batch_size: clouds of a step; batches of an epoch differ by one at most.
        lr: largest learning rate.
        warmup: share of the steps during which the learning rate rises.
        weight_decay: of AdamW, on matrices only.
        label_smoothing: of the cross-entropy.
        clip: largest norm of the gradient.
        mixup: 0, or the parameter a of Beta(a, a), from which each step draws how
            its clouds are mixed in pairs, see ``augment.mix``.
        entry_dropout: share of the graph's entries dropped, see ``augment``.
        keep_frames: poses of the last level that a training step sees; None: all.
        seed: of the weights, batches, dropout and the validation share.
        precision: ``"float32"``, or ``"bfloat16"`` for automatic casts.

    Raises:
        ArgumentError: a value outside its range.
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 3e-3
    warmup: float = 0.15
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip: float = 1.0
    mixup: float = 0.0
    entry_dropout: float = 0.0
    keep_frames: int | None = None
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self):
        if self.epochs < 1:
            raise ArgumentError(f"`epochs` (={self.epochs}) must be at least 1")
        if self.batch_size < 2:
            raise ArgumentError(
                f"`batch_size` (={self.batch_size}) must be at least 2: batch norm needs two clouds"
            )
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"`{name}` (={getattr(self, name)}) must be positive")
        if self.keep_frames is not None and self.keep_frames < 1:
            raise ArgumentError(f"`keep_frames` (={self.keep_frames}) must be at least 1, or None")
        for name in ("warmup", "label_smoothing", "entry_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"`{name}` (={getattr(self, name)}) must be in [0, 1)")
        for name in ("weight_decay", "mixup", "seed"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"`{name}` (={getattr(self, name)}) must be 0 or more")
        if self.precision not in PRECISIONS:
            raise ArgumentError(f"`precision` (={self.precision!r}) must be one of {PRECISIONS}")


def one_cycle(step: int, total: int, peak: float, warmup: float) -> float:
    """Learning rate of a step: a cosine up to ``peak``, then one down to zero.

    Smith and Topin, "Super-convergence", 2018; starts at peak / 25.

    **Equivariance:** does not apply.
    """
    rise = warmup * total
    if step < rise:
        return peak * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / rise)) / 2)
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise))) / 2


def prefetch(function: Callable, items: Iterable, depth: int = 2) -> Iterator:
    """Results of ``function`` over ``items``, made ahead of use by one thread.

    **Equivariance:** does not apply.
    """
    with ThreadPoolExecutor(1) as pool:
        pending: deque = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def split_rows(labels: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Hold out a share of each class.

    Args:
        labels: [n].
        share: in [0, 1); each class keeps at least one cloud to train on.
        seed: of the choice.

    Returns:
        Rows to train on and rows held out, both sorted.

    Raises:
        ArgumentError: ``share`` is outside its range.

    **Equivariance:** does not apply.
    """
    if not 0 <= share < 1:
        raise ArgumentError(f"`val_share` (={share}) must be in [0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=generator)]
        held[order[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    store: GraphStore,
    rows: Sequence[int] | Tensor | None = None,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Logits [n, num_classes], float32, of precomputed clouds; all by default.

    **Equivariance:** as the network.
    """
    rows = torch.arange(len(store)) if rows is None else torch.as_tensor(rows)
    was_training = model.training
    model.eval()
    out, done = [], 0
    for graph in prefetch(store.batch, rows.split(batch_size)):
        out.append(model(graph.to(device)).float().cpu())
        done += len(out[-1])
        if progress:
            progress(done, len(rows))
    model.train(was_training)
    return torch.cat(out) if out else torch.zeros(0, model.settings["num_classes"])


def fit(
    model: nn.Module,
    stores: GraphStore | Sequence[GraphStore],
    labels: Tensor,
    settings: FitSettings | None = None,
    *,
    rows: Tensor | None = None,
    val_rows: Tensor | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    quiet: bool = False,
    on_epoch: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train a classifier in place.

    An epoch's batches and dropout depend on the seed and the epoch alone, so a
    resumed training goes on exactly as it would have. The network is left in
    ``eval()`` mode with the weights of the last epoch; none is picked. After few
    steps the statistics of its batch norms are measured anew (``norms``).

    Args:
        model: a ``GroupConvClassifier``.
        stores: graphs of the training clouds; several are resamplings of the
            same clouds, epoch ``e`` reads store ``e % len(stores)``.
        labels: of the clouds [n].
        settings: see ``FitSettings``.
        rows: clouds to train on; by default all but ``val_rows``.
        val_rows: clouds on which each epoch is measured, and not trained.
        folder: where ``metrics.jsonl`` and the state of each epoch are kept.
        resume: go on from the state in ``folder``, if there is one.
        device: where the network runs.
        quiet: no progress on standard error.
        on_epoch: called with the metrics of each epoch.

    Returns:
        The metrics of all epochs: ``epoch`` (from 1), ``loss``, ``accuracy``
        (while training, with dropout), ``lr``, ``seconds``, and
        ``val_accuracy`` where rows are held out.

    Raises:
        DataError: a label outside the classes; fewer than two clouds.
        ArgumentError: ``labels`` do not fit the stores; another ``resume``.
        FileError: the state is damaged.
        PcequiError: the loss is not finite.

    **Equivariance:** leaves the network's own in place.
    """
    settings = settings or FitSettings()
    stores = [stores] if isinstance(stores, GraphStore) else list(stores)
    labels = check_labels(labels, model.settings["num_classes"])
    for store in stores:
        if len(store) != len(labels):
            raise ArgumentError(
                f"`labels` (={len(labels)}) must be as many as the clouds (={len(store)})"
            )
    val_rows = torch.zeros(0, dtype=torch.long) if val_rows is None else torch.as_tensor(val_rows)
    if rows is None:
        kept = torch.ones(len(labels), dtype=torch.bool)
        kept[val_rows] = False
        rows = kept.nonzero()[:, 0]
    if len(rows) < 2:
        raise DataError(f"`rows` (={len(rows)} clouds) must be at least two to train on")
    run = _Run(model.to(device), settings, None if folder is None else Path(folder), device)
    history = run.load() if resume else []
    num_batches = -(-len(rows) // settings.batch_size)
    if num_batches > 1 and len(rows) // num_batches < 2:
        num_batches -= 1
    total = num_batches * settings.epochs
    with progress_bar("training", total, quiet=quiet) as bar:
        for epoch in range(len(history), settings.epochs):
            order = rows[_seeded_order(len(rows), settings.seed, epoch)]
            batches = order.tensor_split(num_batches)
            metrics = run.epoch(stores[epoch % len(stores)], labels, batches, epoch, total, bar)
            if total < FEW_STEPS and (len(val_rows) or epoch == settings.epochs - 1):
                refresh_norms(model, stores[0], rows.tensor_split(num_batches), device)
            if len(val_rows):
                store = stores[0]
                logits = predict_logits(model, store, val_rows, device=device)
                hits = logits.argmax(1) == labels[val_rows]
                metrics["val_accuracy"] = float(hits.double().mean())
            history.append(metrics)
            run.save(history)
            bar.line(_line(metrics, settings.epochs))
            if on_epoch:
                on_epoch(metrics)
    model.eval()
    return history


def _seeded_order(num: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(_mix(seed, epoch, 1))
    return torch.randperm(num, generator=generator)


def _mix(seed: int, epoch: int, stream: int) -> int:
    """A seed of its own for each use in each epoch."""
    return (seed * 1_000_003 + epoch) * 4 + stream


def _line(metrics: dict, epochs: int) -> str:
    text = (
        f"epoch {metrics['epoch']}/{epochs}  loss {metrics['loss']:.3f}  "
        f"accuracy {metrics['accuracy']:.1%}  "
    )
    if "val_accuracy" in metrics:
        text += f"held out {metrics['val_accuracy']:.1%}  "
    return text + f"{metrics['seconds']:.1f} s"


@contextmanager
def _seeded(seed: int, device: torch.device | str):
    """Torch's global randomness, seeded inside and left as it was outside."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class _Run:
    """The optimizer, its state on disk, and one epoch of it."""

    def __init__(self, model, settings: FitSettings, folder: Path | None, device):
        self.model, self.settings, self.folder, self.device = model, settings, folder, device
        matrices = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": rest, "weight_decay": 0.0}],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )
        if folder is not None:
            make_folder(folder)

    def epoch(self, store, labels, batches, epoch: int, total: int, bar) -> dict:
        settings, start = self.settings, time.perf_counter()
        cast = settings.precision == "bfloat16"
        kind = torch.device(self.device).type
        loss_sum = torch.zeros((), device=self.device)
        hit_sum = torch.zeros((), device=self.device)
        seen, step = 0, epoch * len(batches)
        smoothing = settings.label_smoothing
        self.model.train()
        with _seeded(_mix(settings.seed, epoch, 2), self.device):
            load = lambda rows: (store.batch(rows).to(self.device), labels[rows].to(self.device))  # noqa: E731
            for graph, target in prefetch(load, batches):
                graph = augment(graph, settings.entry_dropout, settings.keep_frames)
                rate = one_cycle(step, total, settings.lr, settings.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                with torch.autocast(kind, torch.bfloat16, enabled=cast):
                    pooled, other, share = mix(self.model.pooled(graph), settings.mixup)
                    logits = self.model.head(pooled)
                logits = logits.float()
                loss = share * F.cross_entropy(logits, target, label_smoothing=smoothing)
                if share < 1:
                    second = F.cross_entropy(logits, target[other], label_smoothing=smoothing)
                    loss = loss + (1 - share) * second
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
                if not torch.isfinite(norm):
                    raise PcequiError(
                        f"the gradient is not finite at epoch {epoch + 1}, step {step + 1} of "
                        f"{total} (loss {float(loss.detach()):.3g}); lower `lr` (={settings.lr})"
                    )
                self.optimizer.step()
                loss_sum += loss.detach() * len(target)
                hit_sum += (logits.argmax(1) == target).sum()
                seen += len(target)
                step += 1
                mean, hits = float(loss_sum) / seen, float(hit_sum) / seen
                bar(step, total, f"epoch {epoch + 1}  loss {mean:.3f}  accuracy {hits:.1%}")
        return {
            "epoch": epoch + 1,
            "loss": mean,
            "accuracy": hits,
            "lr": rate,
            "seconds": round(time.perf_counter() - start, 3),
        }

    def save(self, history: list[dict]) -> None:
        """Keep the state of this epoch: one file, moved into place whole."""
        if self.folder is None:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        note = {"settings": asdict(self.settings), "model": self.model.settings, "history": history}
        write_tensors(self.folder / _STATE, tensors, note)
        self.write_metrics(history)

    def write_metrics(self, history: list[dict]) -> None:
        lines = [json.dumps(metrics) + "\n" for metrics in history]
        write_text(self.folder / _METRICS, "".join(lines))

    def load(self) -> list[dict]:
        """Take up the state on disk; nothing there: start from the beginning."""
        if self.folder is None:
            raise ArgumentError("`resume` (=True) needs a `folder` to resume from")
        path = self.folder / _STATE
        if not os.path.exists(path):
            return []
        remedy = "delete it to start again"
        tensors, note = read_tensors(path, remedy)
        if not all(isinstance(note.get(name), dict) for name in ("settings", "model")):
            raise FileError(f"{path} is no state of a training; {remedy}")
        for name, own in (("settings", asdict(self.settings)), ("model", self.model.settings)):
            kept = note[name]
            changed = [key for key in own if kept.get(key) != json.loads(json.dumps(own[key]))]
            if changed:
                raise ArgumentError(
                    f"`resume` (=True) cannot go on with other settings than those in {path}: "
                    f"{', '.join(changed)}; give the same ones, or {remedy}"
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
            history = list(note["history"])
        except (RuntimeError, ValueError, LookupError) as error:
            raise FileError(f"{path} does not fit this network ({error}); {remedy}") from error
        # A process that was killed between the two files left the metrics an epoch behind.
        self.write_metrics(history)
        return history

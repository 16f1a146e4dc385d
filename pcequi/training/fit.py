"""Training on precomputed graphs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pcequi.errors import ArgumentError, DataError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.models.classifier import check_head
from pcequi.models.orders import averaged_logits
from pcequi.progress import progress_bar
from pcequi.ranks import ALONE, Ranks
from pcequi.training.epoch import EpochRunner
from pcequi.training.norms import FEW_STEPS, refresh_norms
from pcequi.training.rows import device_graphs, fast_blocks, load_batch, prefetch
from pcequi.training.schedule import epoch_batches, number_of_batches
from pcequi.training.settings import FitSettings
from pcequi.training.splits import check_labels
from pcequi.training.state import TrainingState
from pcequi.training.step import BatchLoss
from pcequi.training.sync_norm import synchronized_norms

__all__ = [
    "LazyStore",
    "fit",
    "predict_logits",
    "store_of_epoch",
]


@dataclass(frozen=True)
class LazyStore:
    """Graphs of the training clouds that are made when an epoch comes that reads them.

    Attributes:
        make: called once, by every process, before the first epoch that reads them.
        done: called by every process after the last one.

    **Equivariance:** as the graphs that are made.
    """

    make: Callable[[], GraphStore]
    done: Callable[[], None] = lambda: None


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    store: GraphStore | DeviceGraphs,
    rows: Sequence[int] | Tensor | None = None,
    *,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Logits of precomputed clouds, averaged over the orders of their axes (``models.orders``).
    Several processes share them, and each returns all.

    Args:
        model: a ``GroupConvClassifier``.
        store: the graphs.
        rows: which clouds [n]; all by default.
        batch_size: clouds that run together; by default 64, and 256 on a GPU, where a batch takes
            as long however small it is.
        device: where they run.
        progress: called with (clouds done, clouds in all).
        ranks: the processes.

    Returns:
        Logits [n, num_classes], float32, on the CPU.

    Raises:
        FileError: graphs that cannot be read.
        ArgumentError: the network has no head.

    **Equivariance:** as the network.
    """
    check_head(model)
    rows = torch.arange(len(store)) if rows is None else torch.as_tensor(rows)
    own = ranks.share(rows)
    if batch_size is None:
        batch_size = 256 if torch.device(device).type == "cuda" else 64
    was_training = model.training
    model.eval()
    out, done = [torch.zeros(0, model.settings["num_classes"])], 0
    blocks = fast_blocks("float32", device)
    load = functools.partial(load_batch, model, store, device=device, blocks=blocks)
    for graph in prefetch(load, own.split(batch_size) if len(own) else ()):
        out.append(averaged_logits(model, graph).float().cpu())
        done += len(out[-1])
        if progress:
            progress(done, len(own))
    model.train(was_training)
    return ranks.gather(torch.cat(out))


def fit(
    model: nn.Module,
    stores: GraphStore | DeviceGraphs | Sequence[GraphStore | DeviceGraphs | LazyStore],
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
    ranks: Ranks = ALONE,
) -> list[dict]:
    """Train a classifier in place.

    An epoch's batches and dropout depend on the seed and the epoch alone, so a
    resumed training goes on exactly as it would have. The network is left in
    ``eval()`` mode with the weights of the last epoch; none is picked. After few
    steps the statistics of its batch norms are measured anew (``norms``).

    Several processes (``ranks``) share every batch and end with the weights of
    one process, to rounding: gradients, clipping, batch norms, mixing and all
    random draws are those of the whole batch.

    Args:
        model: a ``GroupConvClassifier``.
        stores: graphs of the training clouds; several are resamplings of the
            same clouds: epochs take turns with them, so that the last one reads the first
            store. Among several there may be ``LazyStore``. On a GPU graphs are copied into
            its memory where they fit, see ``graph_device``, and steps are replayed as CUDA
            graphs.
        labels: of the clouds [n].
        settings: see ``FitSettings``.
        rows: clouds to train on; by default all but ``val_rows``.
        val_rows: clouds on which each epoch is measured, and not trained.
        folder: where ``metrics.jsonl`` and the state of each epoch are kept.
        resume: go on from the state in ``folder``, if there is one.
        device: where the network runs.
        quiet: no progress on standard error.
        on_epoch: called with the metrics of each epoch, on every process.
        ranks: processes that call ``fit`` together, see ``launch.launched``.

    Returns:
        The metrics of all epochs: ``epoch`` (from 1), ``loss``, ``accuracy``
        (while training, with dropout), ``lr``, ``seconds``, and
        ``val_accuracy`` where rows are held out, and ``precompute_seconds`` where
        graphs were made.

    Raises:
        DataError: a label outside the classes; fewer than two clouds.
        ArgumentError: a network without a head; ``labels`` that do not fit the stores;
            ``resume`` of a state of other settings, or without ``folder``; a batch with fewer
            clouds than processes.
        FileError: the state is damaged.
        PcequiError: the gradient is not finite.

    **Equivariance:** leaves the network's own in place.
    """
    check_head(model)
    settings = settings or FitSettings()
    stores = [stores] if isinstance(stores, (GraphStore, DeviceGraphs)) else list(stores)
    labels = check_labels(labels, model.settings["num_classes"])
    for store in stores:
        if not isinstance(store, LazyStore):
            _check_size(store, labels)
    val_rows = torch.zeros(0, dtype=torch.long) if val_rows is None else torch.as_tensor(val_rows)
    if rows is None:
        kept = torch.ones(len(labels), dtype=torch.bool)
        kept[val_rows] = False
        rows = kept.nonzero()[:, 0]
    if len(rows) < 2:
        raise DataError(
            f"`rows` (={len(rows)} clouds) must be at least two to train on; give more clouds, "
            "or hold out fewer"
        )
    num_batches = number_of_batches(len(rows), settings.batch_size)
    total = num_batches * settings.epochs
    if len(rows) // num_batches < ranks.size:
        raise ArgumentError(
            f"`batch_size` (={settings.batch_size}) makes batches of {len(rows) // num_batches} "
            f"clouds for {ranks.size} processes; each needs one: give a larger one, or launch "
            "fewer processes"
        )
    state = TrainingState(model.to(device), settings, folder, ranks)
    history = state.load() if resume else []
    quiet = quiet or not ranks.first
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    if settings.precision == "bfloat16":
        dtype = torch.bfloat16
    with synchronized_norms(model, ranks), progress_bar("training", total, quiet=quiet) as bar:
        batch_loss = ranks.setup(BatchLoss(model, settings, ranks))
        run = EpochRunner(batch_loss, state.optimizer, labels, settings, ranks=ranks, device=device)

        lazy = {n: store for n, store in enumerate(stores) if isinstance(store, LazyStore)}
        placed: set[int] = set()  # What does not fit on a GPU at first is not tried again.
        made = 0.0

        def read(number: int) -> GraphStore | DeviceGraphs:
            """The graphs of a version, made if they were not."""
            nonlocal made
            if isinstance(stores[number], LazyStore):
                start = time.perf_counter()
                with bar.paused():
                    stores[number] = stores[number].make()
                _check_size(stores[number], labels)
                made += time.perf_counter() - start
            if number not in placed:
                placed.add(number)
                stores[number] = device_graphs(stores[number], device, dtype)
            return stores[number]

        for epoch in range(len(history), settings.epochs):
            batches = epoch_batches(rows, num_batches, settings.seed, epoch)
            number = store_of_epoch(epoch, settings.epochs, len(stores))
            metrics = run(read(number), batches, epoch, progress=bar)
            if number and epoch + len(stores) >= settings.epochs:
                stores[number] = None  # No epoch reads it again: its memory is free,
                if number in lazy:  # and so is the disk, before the state needs room there.
                    lazy[number].done()
            if total < FEW_STEPS and (len(val_rows) or epoch == settings.epochs - 1):
                refresh_norms(model, read(0), batches, device, ranks)
            if len(val_rows):
                logits = predict_logits(model, read(0), val_rows, device=device, ranks=ranks)
                hits = logits.argmax(1) == labels[val_rows]
                metrics["val_accuracy"] = float(hits.double().mean())
            if made:
                metrics["precompute_seconds"], made = round(made, 3), 0.0
            history.append(metrics)
            state.save(history)
            bar.line(_line(metrics, settings.epochs))
            if on_epoch:
                on_epoch(metrics)
    model.eval()
    return history


def store_of_epoch(epoch: int, epochs: int, stores: int) -> int:
    """Which store an epoch, counted from 0, reads: they take turns, and the last epoch
    reads the first store, since networks are used on clouds as they are.

    **Equivariance:** does not apply.
    """
    return (epoch + 1 - epochs) % stores


def _check_size(store: GraphStore | DeviceGraphs, labels: Tensor) -> None:
    if len(store) != len(labels):
        raise ArgumentError(
            f"`labels` (={len(labels)}) must be as many as the clouds (={len(store)}) of "
            f"the store; give the labels of the clouds that were precomputed"
        )


def _line(metrics: dict, epochs: int) -> str:
    text = (
        f"epoch {metrics['epoch']}/{epochs}  loss {metrics['loss']:.3f}  "
        f"accuracy {metrics['accuracy']:.1%}  "
    )
    if "val_accuracy" in metrics:
        text += f"held out {metrics['val_accuracy']:.1%}  "
    return text + f"{metrics['seconds']:.1f} s"

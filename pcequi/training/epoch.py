"""One epoch of training, by one process or by several that share each batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pcequi.errors import PcequiError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.pose_graph import PoseGraph
from pcequi.ranks import ALONE, Ranks
from pcequi.training.mixing import draw_mixing
from pcequi.training.rows import fast_blocks, load_batch, prefetch
from pcequi.training.schedule import one_cycle, seeded
from pcequi.training.settings import FitSettings
from pcequi.training.step import GraphedSteps, Totals, set_rate, train_step

__all__ = ["EpochRunner"]

# Steps on a GPU between two looks at what they add up: each look waits for it.
_LOOK = 64


class EpochRunner:
    """Trains epoch by epoch.

    Args:
        batch_loss: a ``BatchLoss``, set up by ``ranks``.
        optimizer: of its parameters.
        labels: of the clouds [n].
        settings: of the training.
        ranks: the processes.
        device: where the network runs.

    **Equivariance:** leaves the network's own in place.
    """

    def __init__(
        self,
        batch_loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        labels: Tensor,
        settings: FitSettings,
        *,
        ranks: Ranks = ALONE,
        device: torch.device | str = "cpu",
    ):
        self.batch_loss, self.optimizer, self.settings = batch_loss, optimizer, settings
        self.labels, self.ranks, self.device = labels.to(device), ranks, torch.device(device)
        self.totals = Totals(self.device)
        self.graphed: GraphedSteps | None = None
        wanted = os.environ.get("PCEQUI_NO_CUDA_GRAPHS", "") in ("", "0")
        if self.device.type == "cuda" and ranks.size == 1 and wanted:
            self.graphed = GraphedSteps(batch_loss, optimizer, self.totals, settings.clip)

    def __call__(
        self,
        store: GraphStore | DeviceGraphs,
        batches: Sequence[Tensor],
        epoch: int,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> dict:
        """Train for one epoch.

        Args:
            store: graphs of the clouds.
            batches: rows of each batch, of all processes together.
            epoch: number, from 0.
            progress: called with (steps done, steps in all, a remark).

        Returns:
            ``epoch`` (from 1), ``loss``, ``accuracy``, ``lr`` and ``seconds``, the same
            on each process but for the seconds.

        Raises:
            PcequiError: the gradient is not finite.
        """
        start, settings = time.perf_counter(), self.settings
        total, step = len(batches) * settings.epochs, epoch * len(batches)
        self.totals.clear()
        self.batch_loss.train()
        every = _LOOK if self.device.type == "cuda" else 1
        with seeded(settings.seed, epoch, self.device):
            for done, take in enumerate(self._steps(store, batches), step + 1):
                rate = one_cycle(done - 1, total, settings.lr, settings.warmup)
                set_rate(self.optimizer, rate)
                take()
                if done % every and done < step + len(batches):
                    continue
                loss, hits, finite = self.totals.read()
                if not finite:
                    raise PcequiError(
                        f"the gradient is not finite at epoch {epoch + 1}, step {done} of "
                        f"{total} (loss {loss:.3g}); lower `lr` (={settings.lr})"
                    )
                if progress:
                    note = f"epoch {epoch + 1}  loss {loss:.3f}  accuracy {hits:.1%}"
                    progress(done, total, note)
        return {
            "epoch": epoch + 1,
            "loss": loss,
            "accuracy": hits,
            "lr": rate,
            "seconds": round(time.perf_counter() - start, 3),
        }

    def _steps(self, store, batches):
        """A function for each step, which takes it."""
        if isinstance(store, DeviceGraphs):
            sizes = [len(rows) for rows in batches]
            rows = torch.cat(list(batches)).to(self.device)
            for own, target in zip(rows.split(sizes), self.labels[rows].split(sizes)):
                yield self._on_device(store, own, target)
            return

        blocks = fast_blocks(self.settings.precision, self.device)

        def load(rows: Tensor) -> tuple[PoseGraph, Tensor]:
            own = self.ranks.share(rows)
            graph = load_batch(self.batch_loss, store, own, self.device, blocks)
            return graph, self.labels[rows.to(self.device)]

        for graph, target in prefetch(load, batches):
            yield self._taking(graph, target)

    def _on_device(self, store, rows, target) -> Callable[[], None]:
        if self.graphed is None:
            return self._taking(store.batch(self.ranks.share(rows)), target)
        return lambda: self.graphed(store, rows, target, self._mixing(target))

    def _taking(self, graph: PoseGraph, target: Tensor) -> Callable[[], None]:
        settings, ranks = self.settings, self.ranks

        def take() -> None:
            parts = (self.batch_loss, self.optimizer, graph, target, self._mixing(target))
            self.totals.seen += len(target)
            train_step(*parts, self.totals, clip=settings.clip, ranks=ranks)

        return take

    def _mixing(self, target: Tensor):
        return draw_mixing(self.settings.mixup, len(target), self.device)

"""One epoch of training, by one process or by several that share each batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcequi.errors import PcequiError
from pcequi.graph_store import GraphStore
from pcequi.pose_graph import PoseGraph
from pcequi.ranks import ALONE, Ranks
from pcequi.training.augment import augment, mix
from pcequi.training.rows import load_batch, prefetch
from pcequi.training.schedule import one_cycle, seeded
from pcequi.training.settings import FitSettings

__all__ = ["BatchLoss", "train_epoch"]


class BatchLoss(nn.Module):
    """Loss and logits of a batch that several processes share.

    Each process computes the pooled features of its own clouds; they are
    gathered, and every process runs the head on all of them. So mixing,
    dropout and batch norm of the head are those of one process.

    Args:
        model: a ``GroupConvClassifier``.
        settings: of the training.
        ranks: the processes.

    Shapes:
        graph of this process's clouds, target [G] of the clouds of all
        -> loss [], logits [G, num_classes].

    **Equivariance:** as the network.
    """

    def __init__(self, model: nn.Module, settings: FitSettings, ranks: Ranks = ALONE):
        super().__init__()
        self.model, self.settings, self.ranks = model, settings, ranks

    def forward(self, graph: PoseGraph, target: Tensor) -> tuple[Tensor, Tensor]:
        settings = self.settings
        cast = settings.precision == "bfloat16"
        with torch.autocast(target.device.type, torch.bfloat16, enabled=cast):
            pooled = self.ranks.gather(self.model.pooled(graph))
            pooled, other, share = mix(pooled, settings.mixup)
            logits = self.model.head(pooled)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        smoothing = settings.label_smoothing
        loss = share * F.cross_entropy(logits, target, label_smoothing=smoothing)
        if share < 1:
            second = F.cross_entropy(logits, target[other], label_smoothing=smoothing)
            loss = loss + (1 - share) * second
        return loss, logits


def train_epoch(
    batch_loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    store: GraphStore,
    labels: Tensor,
    batches: Sequence[Tensor],
    epoch: int,
    settings: FitSettings,
    *,
    ranks: Ranks = ALONE,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, str], None] | None = None,
) -> dict:
    """Train for one epoch.

    Args:
        batch_loss: a ``BatchLoss``, set up by ``ranks``.
        optimizer: of its parameters.
        store: graphs of the clouds.
        labels: of the clouds [n].
        batches: rows of each batch, of all processes together.
        epoch: number, from 0.
        settings: of the training.
        ranks: the processes.
        device: where the network runs.
        progress: called with (steps done, steps in all, a remark).

    Returns:
        ``epoch`` (from 1), ``loss``, ``accuracy``, ``lr`` and ``seconds``, the same
        on each process but for the seconds.

    Raises:
        PcequiError: the gradient is not finite.

    **Equivariance:** leaves the network's own in place.
    """
    start, total = time.perf_counter(), len(batches) * settings.epochs
    parameters = list(batch_loss.parameters())
    loss_sum = torch.zeros((), device=device)
    hit_sum = torch.zeros((), device=device)
    seen, step = 0, epoch * len(batches)

    def load(rows: Tensor) -> tuple[PoseGraph, Tensor]:
        graph = load_batch(batch_loss, store, ranks.share(rows), device)
        return graph, labels[rows].to(device)

    batch_loss.train()
    with seeded(settings.seed, epoch, device):
        for graph, target in prefetch(load, batches):
            graph = augment(graph, settings.entry_dropout, settings.keep_frames, ranks)
            rate = one_cycle(step, total, settings.lr, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, logits = batch_loss(graph, target)
            optimizer.zero_grad(set_to_none=True)
            ranks.backward(loss)
            norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
            if not torch.isfinite(norm):
                raise PcequiError(
                    f"the gradient is not finite at epoch {epoch + 1}, step {step + 1} of "
                    f"{total} (loss {float(loss.detach()):.3g}); lower `lr` (={settings.lr})"
                )
            optimizer.step()
            loss_sum += loss.detach() * len(target)
            hit_sum += (logits.argmax(1) == target).sum()
            seen += len(target)
            step += 1
            mean, hits = float(loss_sum) / seen, float(hit_sum) / seen
            if progress:
                progress(step, total, f"epoch {epoch + 1}  loss {mean:.3f}  accuracy {hits:.1%}")
    return {
        "epoch": epoch + 1,
        "loss": mean,
        "accuracy": hits,
        "lr": rate,
        "seconds": round(time.perf_counter() - start, 3),
    }

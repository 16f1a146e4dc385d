"""One step of training, and the same as a CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcequi.errors import PcequiError
from pcequi.graph_device import DeviceGraphs
from pcequi.pose_graph import PoseGraph
from pcequi.ranks import ALONE, Ranks
from pcequi.training.mixing import Mixing, mix
from pcequi.training.settings import FitSettings

__all__ = ["BatchLoss", "GraphedSteps", "Totals", "set_rate", "train_step"]

# Steps of a size that run before their graph is captured: lazy set-up happens in them.
_WARMUP = 3


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
        graph of this process's clouds, target [G] of the clouds of all, how they are mixed
        -> loss [], logits [G, num_classes].

    **Equivariance:** as the network.
    """

    def __init__(self, model: nn.Module, settings: FitSettings, ranks: Ranks = ALONE):
        super().__init__()
        self.model, self.settings, self.ranks = model, settings, ranks

    def forward(
        self, graph: PoseGraph, target: Tensor, mixing: Mixing | None = None
    ) -> tuple[Tensor, Tensor]:
        settings = self.settings
        cast = settings.precision == "bfloat16"
        with torch.autocast(target.device.type, torch.bfloat16, enabled=cast):
            pooled = self.ranks.gather(self.model.pooled(graph))
            logits = self.model.head(pooled if mixing is None else mix(pooled, mixing))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        smoothing = settings.label_smoothing
        loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
        if mixing is not None:
            second = F.cross_entropy(logits, target[mixing.other], label_smoothing=smoothing)
            loss = mixing.share * loss + (1 - mixing.share) * second
        return loss, logits


@dataclass
class Totals:
    """What an epoch adds up, on the device, so that no step waits for it.

    Attributes:
        device: where.
        sums: loss times clouds, clouds classified right, and steps whose gradient was
            not finite [3].
        seen: clouds.

    **Equivariance:** does not apply.
    """

    device: torch.device | str
    sums: Tensor = field(init=False)
    seen: int = 0

    def __post_init__(self):
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def clear(self) -> None:
        """Begin anew, in the same memory."""
        self.sums.zero_()
        self.seen = 0

    def add(self, loss: Tensor, logits: Tensor, target: Tensor, norm: Tensor) -> None:
        """Add a step's, but for the clouds seen."""
        hits = (logits.argmax(1) == target).sum()
        step = torch.stack([loss.detach() * len(target), hits, ~torch.isfinite(norm)])
        self.sums += step.to(self.sums.dtype)

    def read(self) -> tuple[float, float, bool]:
        """Mean loss, accuracy, and whether every gradient was finite; waits for the device."""
        loss, hits, bad = self.sums.tolist()
        return loss / self.seen, hits / self.seen, bad == 0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step.

    **Equivariance:** does not apply.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # read by captured steps
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def train_step(
    batch_loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    graph: PoseGraph,
    target: Tensor,
    mixing: Mixing | None,
    totals: Totals,
    *,
    clip: float,
    ranks: Ranks = ALONE,
) -> None:
    """Forward, backward, clipping and the optimizer's step; nothing waits for a GPU.

    A gradient that is not finite is counted in ``totals``; on a CPU, where that is known at
    once, the weights stay as they were.

    **Equivariance:** leaves the network's own in place.
    """
    loss, logits = batch_loss(graph, target, mixing)
    optimizer.zero_grad(set_to_none=True)
    ranks.backward(loss)
    norm = nn.utils.clip_grad_norm_(batch_loss.parameters(), clip)
    if norm.is_cuda or torch.isfinite(norm):
        optimizer.step()
    totals.add(loss, logits, target, norm)


class GraphedSteps:
    """``train_step`` on graphs that lie on a GPU, replayed as a CUDA graph.

    A step of 32 clouds is a few hundred short kernels; launching them one by one takes
    longer than they do. The first steps of each size of batch run as they are, and each size
    is captured once for each set of graphs.
    ``PCEQUI_NO_CUDA_GRAPHS=1`` keeps trainings from using this.

    Args:
        batch_loss, optimizer, clip: as ``train_step`` takes; the optimizer is
            ``capturable``, with its learning rate in a tensor.
        totals: what is added up.

    Raises:
        PcequiError: a step cannot be captured; the message says what to do.

    **Equivariance:** leaves the network's own in place.
    """

    def __init__(
        self, batch_loss: nn.Module, optimizer: torch.optim.Optimizer, totals: Totals, clip: float
    ):
        self.batch_loss, self.optimizer = batch_loss, optimizer
        self.totals, self.clip = totals, clip
        self._stream = torch.cuda.Stream(totals.device)
        self._ready: WeakKeyDictionary[DeviceGraphs, dict[int, _Captured]] = WeakKeyDictionary()
        self._count: dict[int, int] = {}

    def __call__(
        self, graphs: DeviceGraphs, rows: Tensor, target: Tensor, mixing: Mixing | None
    ) -> None:
        """A step on some clouds; ``rows`` and ``target`` [G] lie on the device."""
        size = len(rows)
        self.totals.seen += size
        ready = self._ready.setdefault(graphs, {})
        done = ready.get(size)
        if done is not None:
            done.fill(rows, target, mixing)
            done.graph.replay()
            return
        number = self._count[size] = self._count.get(size, 0) + 1
        if number <= _WARMUP:
            here = torch.cuda.current_stream(self.totals.device)
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                self._step(graphs, rows, target, mixing)
            here.wait_stream(self._stream)
            return
        captured = _Captured(torch.cuda.CUDAGraph(), rows.clone(), target.clone(), _copied(mixing))
        # A stream of its own says which GPU it is, and cuBLAS has one workspace a stream, which
        # graphs that are replayed side by side must not share.
        try:
            with torch.cuda.graph(captured.graph, pool=self._pool(), stream=self._stream):
                self._step(graphs, captured.rows, captured.target, captured.mixing)
        except RuntimeError as error:  # which leaves torch's generators unusable in this process
            first = error
            while isinstance(first.__context__, Exception):  # ending the capture fails as well
                first = first.__context__
            if isinstance(first, torch.OutOfMemoryError):
                raise first from error
            raise PcequiError(
                f"the step cannot be captured as a CUDA graph ({first}); set the environment "
                "variable PCEQUI_NO_CUDA_GRAPHS=1, with which steps run one by one, and resume"
            ) from error
        ready[size] = captured
        captured.graph.replay()  # capturing does not run it

    def _pool(self):
        """Memory of the steps captured before, which this one may write to as well: nothing in it
        outlives a replay. None where none is left, as with the last of them a pool ends."""
        every = (one for sizes in self._ready.values() for one in sizes.values())
        return next((one.graph.pool() for one in every), None)

    def _step(self, graphs, rows, target, mixing) -> None:
        parts = (self.batch_loss, self.optimizer, graphs.batch(rows), target, mixing)
        train_step(*parts, self.totals, clip=self.clip)


@dataclass
class _Captured:
    """A step that takes the graphs of ``rows`` itself: all that is copied for it are numbers."""

    graph: torch.cuda.CUDAGraph
    rows: Tensor
    target: Tensor
    mixing: Mixing | None

    def fill(self, rows: Tensor, target: Tensor, mixing: Mixing | None) -> None:
        """The next batch in the memory that the graph reads."""
        self.rows.copy_(rows)
        self.target.copy_(target)
        if mixing is not None:
            self.mixing.other.copy_(mixing.other)
            self.mixing.share.copy_(mixing.share)


def _copied(mixing: Mixing | None) -> Mixing | None:
    return None if mixing is None else Mixing(mixing.other.clone(), mixing.share.clone())

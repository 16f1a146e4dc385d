"""Statistics of batch norms after few steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcequi.graph_store import GraphStore
from pcequi.ranks import ALONE, Ranks
from pcequi.training.rows import fast_blocks, load_batch

__all__ = ["FEW_STEPS", "refresh_norms"]

#: With fewer steps than this, ``fit`` measures the statistics anew at its end, and before each
#: look at rows that are held out. A running average keeps 0.9 of itself a step, so 3e-5 of its
#: start after as many.
FEW_STEPS = 100


@torch.no_grad()
def refresh_norms(
    model: nn.Module,
    store: GraphStore,
    batches: Sequence[Tensor],
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
) -> None:
    """Replace the running averages of all batch norms by means over some batches.

    A running average forgets a tenth at each step, so after few steps it still
    holds where it started: a variance of one, far above that of some inputs.
    Sixteen classes, 24 steps: 97 % while training, 7 % of the test clouds as the
    averages were, 85 % measured anew. After 60 steps: 58
    and 56 of 60 new shapes right, the same within noise.

    Args:
        model: a ``GroupConvClassifier``; its weights stay, and so does its mode.
        store: the training graphs.
        batches: rows of each batch, at least two, drawn at random: of clouds in the order of
            their classes a batch would see one class, and its variance would miss what lies
            between classes.
        device: where the network runs.
        ranks: processes that share each batch.

    **Equivariance:** leaves the network's own in place.
    """
    was_training = model.training
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()  # no dropout
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    blocks = fast_blocks("float32", device)
    for rows in batches:
        pooled = model.pooled(load_batch(model, store, ranks.share(rows), device, blocks))
        model.head(ranks.gather(pooled))  # The head's own norms see the whole batch.
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)

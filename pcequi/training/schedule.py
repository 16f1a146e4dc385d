"""What decides the order and the rate of a training: seeds, batches, learning rate."""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["epoch_batches", "number_of_batches", "one_cycle", "seeded"]


def one_cycle(step: int, total: int, peak: float, warmup: float) -> float:
    """Learning rate of a step: a cosine up to ``peak``, then one down to zero.

    Smith and Topin, "Super-convergence", 2018; starts at peak / 25.

    **Equivariance:** does not apply.
    """
    rise = warmup * total
    if step < rise:
        return peak * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / rise)) / 2)
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise))) / 2


def number_of_batches(num: int, batch_size: int) -> int:
    """Batches of an epoch of ``num`` clouds, none of which is left with a single cloud.

    **Equivariance:** does not apply.
    """
    batches = -(-num // batch_size)
    return batches - 1 if batches > 1 and num // batches < 2 else batches


def epoch_batches(rows: Tensor, num_batches: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The rows [n] of an epoch in random order, cut into batches that differ by one at most.

    **Equivariance:** does not apply.
    """
    generator = torch.Generator().manual_seed(_mix(seed, epoch, 1))
    return rows[torch.randperm(len(rows), generator=generator)].tensor_split(num_batches)


@contextmanager
def seeded(seed: int, epoch: int, device: torch.device | str):
    """Torch's global randomness, seeded for an epoch inside and left as it was outside.

    **Equivariance:** does not apply.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_mix(seed, epoch, 2))
        yield


def _mix(seed: int, epoch: int, stream: int) -> int:
    """A seed of its own for each use in each epoch."""
    return (seed * 1_000_003 + epoch) * 4 + stream

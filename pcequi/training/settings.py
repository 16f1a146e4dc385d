"""Settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from pcequi.errors import ArgumentError, check_count

__all__ = ["FitSettings"]

PRECISIONS = ("float32", "bfloat16")


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
            its clouds are mixed in pairs, see ``mixing.mix``.
        seed: of the weights, batches, dropout and the validation share.
        precision: ``"float32"``, or ``"bfloat16"`` for automatic casts.

    Raises:
        ArgumentError: a value outside its range.

    **Equivariance:** does not apply.
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 3e-3
    warmup: float = 0.15
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip: float = 1.0
    mixup: float = 0.0
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self):
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size, 2)  # which batch norm needs
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"`{name}` (={getattr(self, name)}) must be positive")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"`{name}` (={getattr(self, name)}) must be in [0, 1)")
        for name in ("weight_decay", "mixup"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"`{name}` (={getattr(self, name)}) must be 0 or more")
        if not 0 <= check_count("seed", self.seed, 0) < 2**32:  # what is drawn from it has 64 bits
            raise ArgumentError(f"`seed` (={self.seed}) must be from 0 to {2**32 - 1}")
        if self.precision not in PRECISIONS:
            raise ArgumentError(f"`precision` (={self.precision!r}) must be one of {PRECISIONS}")

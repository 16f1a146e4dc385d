"""Which precision a device multiplies faster."""

from __future__ import annotations

import torch

__all__ = ["faster_precision", "multiplies_bfloat16"]


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has instructions that multiply bfloat16; without them they are emulated,
    which takes several times as long as float32.

    **Equivariance:** does not apply.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Private, and the only way to ask; what is not known is taken for no.
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return kind == "cpu" and known()


def faster_precision(device: torch.device | str) -> str:
    """The ``precision`` of ``FitSettings`` with which a step of the presets is faster.

    With casts to bfloat16 it takes half the time where they are multiplied, and five times as
    long where they are not (``docs/decisions.md``, 38). Accuracy does not tell the two apart.

    **Equivariance:** does not apply.
    """
    return "bfloat16" if multiplies_bfloat16(device) else "float32"

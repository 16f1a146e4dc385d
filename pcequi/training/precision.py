"""Which precision a device multiplies faster."""

from __future__ import annotations

import torch

from pcequi.ranks import ALONE, Ranks

__all__ = ["faster_precision", "multiplies_bfloat16"]


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether a device is known to have instructions that multiply bfloat16: GPUs that say so, and
    CPUs with those of AVX-512. Emulated, products take several times as long as in float32.

    **Equivariance:** does not apply.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    # Private, and the only way to ask; what is not known is taken for no.
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return kind == "cpu" and known()


def faster_precision(device: torch.device | str, ranks: Ranks = ALONE) -> str:
    """The ``precision`` of ``FitSettings`` with which a step of the presets is faster; of several
    processes all take what is so for the first one's device.

    With casts to bfloat16 it takes half the time on CPUs that multiply it, a little less on a GPU,
    and five times as long where it is emulated (``docs/decisions.md``, 38). Accuracy does not tell
    the two apart.

    **Equivariance:** does not apply.
    """
    faster = ranks.gather(torch.tensor([float(multiplies_bfloat16(device))]), even=True)[0]
    return "bfloat16" if faster else "float32"

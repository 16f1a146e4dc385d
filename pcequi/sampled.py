"""Feature-space sampling of one cloud in one kernel for CPUs, which spares the small calls of torch
that ``FeatureSampler`` is composed of: they take longer than the search itself."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi.lloyd import SLACK
from pcequi.ops import HAS_NUMBA, blending, clusters, fps
from pcequi.orbits import Orbits

__all__ = ["has_kernel", "sampled"]


def has_kernel(x: Tensor, centers: int) -> bool:
    """Whether the kernel takes such rows, and so many of them that stand for the others.

    **Equivariance:** does not apply.
    """
    known = x.dtype in (torch.float32, torch.float64)
    return HAS_NUMBA and x.device.type == "cpu" and known and centers <= blending.MOST_CENTERS


def sampled(
    turned: Tensor,
    rows: Tensor | None,
    generic: Tensor,
    num: int,
    refine: int,
    blend: int,
    orbits: Orbits,
) -> tuple[Tensor, ...] | None:
    """Farthest-point sampling, Lloyd's steps, and what all poses share.

    Args:
        turned: rows of orbits [N, K, D], see ``Orbits.rows``.
        rows: orbits among which is sampled [R], at least ``num``; None: all.
        generic: of ``sampling.sampling_key`` [D].
        num: orbits to take.
        refine, blend: as ``FeatureSampler`` has them.
        orbits: what they are.

    Returns:
        Poses [M], assignment and distance [P], shared and share [P, blend], as ``Representatives``
        has them; None where numbers are too large for squares of distances.

    **Equivariance:** as ``FeatureSampler``.
    """
    from pcequi.ops.compiled import sampled as kernel

    products = turned.new_zeros(1, 1, dtype=torch.long)
    arrays = (
        turned.contiguous(),
        products[0, :0] if rows is None else rows,
        generic.to(turned),
        products if orbits.size == 1 else orbits.products,
    )
    turned, rows, generic, products = (part.numpy() for part in arrays)
    limits = clusters.SCREEN + fps.TIE, fps.TIE, fps.ZERO, fps.NOISE, clusters.NOISE_SHARE
    afresh = bool(refine or len(rows) or orbits.mixed)
    settings = num, refine, blend, afresh, products, limits, SLACK, blending.weight_limits(blend)
    found = kernel.sampled(turned, rows, generic, *settings)
    return tuple(map(torch.from_numpy, found)) if len(found[0]) else None

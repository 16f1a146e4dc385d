"""Eigenvectors with random signs: any of them is a right answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["random_signs"]


class _Flip(TorchDispatchMode):
    """Flips columns of what ``torch.linalg.eigh`` and ``svd`` return."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def _signs(self, like: torch.Tensor, *shape: int) -> torch.Tensor:
        return (torch.randint(2, shape, generator=self.generator, device="cpu") * 2 - 1).to(like)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket._qualified_op_name
        if name == "aten::_linalg_eigh" and out[1].numel():
            values, vectors = out
            return values, vectors * self._signs(vectors, *vectors.shape[:-2], 1, vectors.shape[-1])
        if name == "aten::_linalg_svd" and out[0].numel():
            u, s, vh = out
            # Further columns of a full U (or V) are free of each other; left alone.
            k, sign = s.shape[-1], self._signs(u, *s.shape)
            u, vh = u.clone(), vh.clone()
            u[..., :k] *= sign[..., None, :]
            vh[..., :k, :] *= sign[..., :, None]
            return u, s, vh
        return out


@contextlib.contextmanager
def random_signs(seed: int) -> Iterator[None]:
    """Inside, eigenvectors of torch and numpy come with random signs.

    A function whose output changes inside depends on a sign that the
    decomposition does not define. NumPy's functions are replaced for all
    threads while the block runs.

    Args:
        seed: of the signs.

    **Equivariance:** does not apply.
    """
    rng = np.random.default_rng(seed)
    eigh, svd = np.linalg.eigh, np.linalg.svd

    def flipped_eigh(*args, **kwargs):
        values, vectors = eigh(*args, **kwargs)
        sign = rng.choice([-1.0, 1.0], size=(*vectors.shape[:-2], 1, vectors.shape[-1]))
        return type(eigh(np.eye(1)))(values, vectors * sign)

    def flipped_svd(*args, **kwargs):
        out = svd(*args, **kwargs)
        if not isinstance(out, tuple):
            return out
        u, s, vh = (np.array(part) for part in out)
        k, sign = s.shape[-1], rng.choice([-1.0, 1.0], size=s.shape)
        u[..., :k] *= sign[..., None, :]
        vh[..., :k, :] *= sign[..., :, None]
        return type(out)(u, s, vh)

    np.linalg.eigh, np.linalg.svd = flipped_eigh, flipped_svd
    try:
        with _Flip(torch.Generator("cpu").manual_seed(seed)):
            yield
    finally:
        np.linalg.eigh, np.linalg.svd = eigh, svd

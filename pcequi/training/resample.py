"""Resampled copies of training clouds, whose graphs are precomputed beside the first ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.errors import ArgumentError
from pcequi.frames import manhattan_frame
from pcequi.workers import one_thread, worker_map

__all__ = ["KEEP", "JITTER", "STRETCH", "resample", "resampled_clouds"]

#: Defaults of ``resample``: least share of the points, largest stretch, noise.
KEEP, STRETCH, JITTER = 0.8, 1.4, 0.01

# Clouds that a worker resamples at a time.
_TOGETHER = 256


def resample(
    pos: Tensor,
    generator: torch.Generator | None = None,
    *,
    keep: float = KEEP,
    stretch: float = STRETCH,
    jitter: float = JITTER,
) -> Tensor:
    """Another cloud of the same shape: fewer points, other proportions, noise.

    A random share of the points stays, in random order; the cloud is stretched by
    independent factors along the axes of its Manhattan frame; every coordinate
    moves by Gaussian noise; the centroid comes to the origin and the farthest
    point to distance one.

    Args:
        pos: one cloud [N, 3].
        generator: of the draws; None: torch's global one.
        keep: at least this share of the points stays, in (0, 1].
        stretch: s >= 1; factors are log-uniform in [1 / s, s].
        jitter: standard deviation of the noise, in units of the farthest point's
            distance from the centroid, >= 0.

    Returns:
        [M, 3] of the dtype of ``pos``; M is at most N and at least ``keep`` * N
        rounded down, and never below one.

    Raises:
        ArgumentError: a value outside its range.
        ShapeError, DataError: the cloud is unusable.

    **Equivariance:** when the cloud turns, the distribution of the result turns
    with it: the axes are the cloud's own, and order and signs do not matter.
    """
    if not 0 < keep <= 1:
        raise ArgumentError(f"`keep` (={keep}) must be in (0, 1]")
    if not stretch >= 1:
        raise ArgumentError(f"`stretch` (={stretch}) must be at least 1")
    if not jitter >= 0:
        raise ArgumentError(f"`jitter` (={jitter}) must be 0 or more")
    check_cloud(pos)
    share = keep + (1 - keep) * float(torch.rand(1, generator=generator))
    order = torch.randperm(len(pos), generator=generator).to(pos.device)
    x = pos[order[: max(1, math.floor(share * len(pos)))]].double()
    x = x - x.mean(0)
    factors = torch.exp((2 * torch.rand(3, generator=generator) - 1) * math.log(stretch))
    frame = manhattan_frame(x)
    x = (x @ frame * factors.to(x)) @ frame.T
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    x = x + jitter * x.norm(dim=1).max() * noise
    x = x - x.mean(0)
    size = x.norm(dim=1).max()
    return (x / size if size > 0 else x).to(pos.dtype)


def resampled_clouds(
    clouds: Sequence[Tensor],
    number: int,
    seed: int = 0,
    progress=None,
    *,
    first: int = 0,
    workers: int = 1,
) -> list[Tensor]:
    """``resample`` of every cloud, in its ``number``-th version.

    Args:
        clouds: [N_i, 3] each.
        number: from 1; each has draws of its own.
        seed: of the draws; a cloud's depend on seed, number and place alone.
        progress: called with (clouds done, clouds in all).
        first: place of the first of them, where they are a part of the clouds.
        workers: processes that share the work.

    Returns:
        [M_i, 3] each, in the order of ``clouds``.

    Raises:
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** as ``resample``.
    """
    made: list[Tensor] = []
    starts = range(0, len(clouds), _TOGETHER)
    # NumPy's arrays: processes send each other torch's through a file descriptor each.
    arrays = [cloud.cpu().numpy() for cloud in clouds]
    parts = [(arrays[s : s + _TOGETHER], number, seed, first + s) for s in starts]
    with worker_map(min(workers, max(1, len(parts)))) as apply:
        for part in apply(_resampled, parts):
            made += map(torch.from_numpy, part)
            if progress:
                progress(len(made), len(clouds))
    return made


def _resampled(job) -> list:
    clouds, number, seed, first = job
    made = []
    with one_thread():
        for place, pos in enumerate(clouds, first):
            generator = torch.Generator().manual_seed((seed * 1009 + number) * 1_000_003 + place)
            made.append(resample(torch.from_numpy(pos), generator).numpy())
    return made

"""Resampled versions of training clouds, with which epochs take turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.errors import ArgumentError, PcequiError
from pcequi.frames import manhattan_frame
from pcequi.workers import one_thread, worker_map

__all__ = ["KINDS", "SCAN", "check_kind", "resample", "resampled_clouds"]

#: What versions may be like: other shapes of the class, or scans of such shapes.
KINDS = ("shape", "scan")

#: What ``"scan"`` asks of ``resample``; its ``jitter`` is the largest, each cloud draws its own.
SCAN = {"keep": 0.5, "hidden": 0.3, "uneven": 0.5, "jitter": 0.03}

# Logarithm of a thousand: how much rarer points are on one side where ``uneven`` is one.
_RARE = 6.9

# Clouds that a worker resamples at a time.
_TOGETHER = 256


def resample(
    pos: Tensor,
    generator: torch.Generator | None = None,
    *,
    keep: float = 0.8,
    stretch: float = 1.4,
    jitter: float = 0.01,
    hidden: float = 0.0,
    uneven: float = 0.0,
) -> Tensor:
    """Another cloud of the same shape: fewer points, other proportions, noise.

    One side may be hidden, and points may be rarer toward one side. Of what is left a
    random share of the points stays, in random order; the cloud is stretched by
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
        hidden: at most this share of the points is hidden, those that lie farthest in a
            random direction, in [0, 1).
        uneven: the density falls by at most a factor of 1000 ** ``uneven`` in a radius,
            along another random direction, from 0 to 10.

    Returns:
        [M, 3] of the dtype of ``pos``; M is at most N and at least (1 - ``hidden``) * ``keep``
        * N rounded down, and never below one.

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
    if not 0 <= hidden < 1:
        raise ArgumentError(f"`hidden` (={hidden}) must be in [0, 1)")
    if not 0 <= uneven <= 10:  # far beyond it the rare points have no weight at all
        raise ArgumentError(f"`uneven` (={uneven}) must be in [0, 10]")
    check_cloud(pos)
    if hidden:
        pos = _seen(pos, hidden, generator)
    draw = _where(generator)
    share = keep + (1 - keep) * float(torch.rand(1, **draw))
    num = max(1, math.floor(share * len(pos)))
    if uneven:
        order = _thinned(pos, num, uneven, generator)
    else:
        order = torch.randperm(len(pos), **draw)[:num]
    x = pos[order.to(pos.device)].double()
    x = x - x.mean(0)
    factors = torch.exp((2 * torch.rand(3, **draw) - 1) * math.log(stretch))
    frame = manhattan_frame(x)
    x = (x @ frame * factors.to(x)) @ frame.T
    noise = torch.randn(x.shape, **draw, dtype=x.dtype).to(x.device)
    x = x + jitter * x.norm(dim=1).max() * noise
    x = x - x.mean(0)
    size = x.norm(dim=1).max()
    return (x / size if size > 0 else x).to(pos.dtype)


def _where(generator: torch.Generator | None) -> dict:
    """Draws are made where the generator is, whatever torch's default device is."""
    return {"generator": generator, "device": "cpu" if generator is None else generator.device}


def _seen(pos: Tensor, hidden: float, generator: torch.Generator | None) -> Tensor:
    share = hidden * float(torch.rand(1, **_where(generator)))
    depth = pos.double() @ _direction(generator).to(pos.device)
    return pos[depth.argsort()[: max(1, len(pos) - math.floor(share * len(pos)))]]


def _thinned(pos: Tensor, num: int, uneven: float, generator: torch.Generator | None) -> Tensor:
    draw = _where(generator)
    strength = uneven * float(torch.rand(1, **draw))
    x = pos.double().to(draw["device"])
    x = x - x.mean(0)
    size = x.norm(dim=1).max().clamp_min(torch.finfo(x.dtype).tiny)
    weight = (_RARE * strength * (x @ _direction(generator)) / size).exp()
    return torch.multinomial(weight, num, generator=generator)


def _direction(generator: torch.Generator | None) -> Tensor:
    found = torch.randn(3, **_where(generator), dtype=torch.float64)
    return found / found.norm()


def resampled_clouds(
    clouds: Sequence[Tensor],
    number: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    first: int = 0,
    workers: int = 1,
    kind: str = "shape",
) -> list[Tensor]:
    """``resample`` of every cloud, in its ``number``-th version.

    Args:
        clouds: [N_i, 3] each.
        number: from 1; each has draws of its own.
        seed: of the draws; a cloud's depend on seed, number and place alone.
        progress: called with (clouds done, clouds in all).
        first: place of the first of them, where they are a part of the clouds.
        workers: processes that share the work.
        kind: one of ``KINDS``: ``"shape"`` keeps most points and adds little noise,
            ``"scan"`` hides a side, thins toward another and adds more (``SCAN``).

    Returns:
        [M_i, 3] each, in the order of ``clouds``.

    Raises:
        ArgumentError: no such kind.
        ShapeError, DataError: a cloud is unusable; the message says which one.

    **Equivariance:** as ``resample``.
    """
    check_kind(kind)
    made: list[Tensor] = []
    starts = range(0, len(clouds), _TOGETHER)
    # NumPy's arrays: processes send each other torch's through a file descriptor each.
    arrays = [cloud.cpu().numpy() for cloud in clouds]
    parts = [(arrays[s : s + _TOGETHER], number, seed, first + s, kind) for s in starts]
    with worker_map(min(workers, max(1, len(parts)))) as apply:
        for part in apply(_resampled, parts):
            made += map(torch.from_numpy, part)
            if progress:
                progress(len(made), len(clouds))
    return made


def check_kind(kind: str, name: str = "kind") -> None:
    """Whether there are versions of a kind, an argument that goes by ``name``.

    Raises:
        ArgumentError: there are none.

    **Equivariance:** does not apply.
    """
    if kind not in KINDS:
        raise ArgumentError(f"`{name}` (={kind!r}) must be one of {KINDS}")


def _resampled(job) -> list:
    clouds, number, seed, first, kind = job
    made = []
    with one_thread():
        for place, pos in enumerate(clouds, first):
            generator = torch.Generator().manual_seed((seed * 1009 + number) * 1_000_003 + place)
            options = {}
            if kind == "scan":
                jitter = SCAN["jitter"] * float(torch.rand(1, **_where(generator)))
                options = SCAN | {"jitter": jitter}
            try:
                made.append(resample(torch.from_numpy(pos), generator, **options).numpy())
            except PcequiError as error:
                raise type(error)(f"cloud {place}: {error}") from error
    return made

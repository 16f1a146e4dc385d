"""Clouds of different sizes as one padded array, each in its canonical pose and order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcequi.canonical import ORDER, PHASE, SAME, WAVES, orders_and_signs
from pcequi.clouds import ONE_SPACE, ROUNDING

__all__ = ["PaddedClouds", "canonical_poses", "is_plain", "median_sizes", "pad_clouds"]


@dataclass
class PaddedClouds:
    """Centred clouds, filled up with points at the origin.

    Attributes:
        pos: [B, N, 3], float64.
        valid: which points there are [B, N]; those that only fill up come last.
        num: points of each cloud [B].
        origin: where the centroid was [B, 3].
        frame: columns are the axes in which ``pos`` is given [B, 3, 3]; None: the world's.

    **Equivariance:** in canonical poses ``origin`` and ``frame`` alone move with a cloud.
    """

    pos: Tensor
    valid: Tensor
    num: Tensor
    origin: Tensor
    frame: Tensor | None = None

    def select(self, clouds: list[int]) -> PaddedClouds:
        """Some of the clouds."""
        which = torch.tensor(clouds, device=self.pos.device)
        values = (None if v is None else v.index_select(0, which) for v in vars(self).values())
        return PaddedClouds(*values)

    def mean(self) -> Tensor:
        """Mean of the points of each cloud [B, 1, 3]."""
        return self.pos.sum(1, keepdim=True) / self.num[:, None, None]


def pad_clouds(clouds: list[Tensor], device: torch.device | str) -> PaddedClouds:
    """Clouds [N, 3] as one array, centred, in float64.

    **Equivariance:** moves with the clouds.
    """
    sizes = [len(cloud) for cloud in clouds]
    num = torch.tensor(sizes, device=device)
    flat = torch.cat([cloud.detach() for cloud in clouds]).to(device).double()
    place = torch.arange(max(sizes), device=device)
    valid = place < num[:, None]
    row = (num.cumsum(0) - num)[:, None] + torch.minimum(place, num[:, None] - 1)
    pos = flat.index_select(0, row.flatten()).view(*row.shape, 3)
    pos = torch.where(valid[:, :, None], pos, 0.0)
    origin = pos.sum(1) / num[:, None]
    return PaddedClouds(_centred(pos, valid, origin), valid, num, origin)


def _centred(pos: Tensor, valid: Tensor, origin: Tensor) -> Tensor:
    pos = torch.where(valid[:, :, None], pos - origin[:, None], 0.0)
    same = pos.abs().amax((1, 2)) <= ROUNDING * origin.abs().amax(1)
    return pos.masked_fill_(same[:, None, None], 0.0)


def median_sizes(clouds: PaddedClouds) -> Tensor:
    """Median distance of each cloud's points from its mean [B], the lower one of two.

    **Equivariance:** invariant.
    """
    size = clouds.pos.norm(dim=2).masked_fill(~clouds.valid, torch.inf).sort(dim=1).values
    return size.gather(1, (clouds.num[:, None] - 1) // 2)[:, 0]


def is_plain(clouds: PaddedClouds) -> tuple[Tensor, Tensor]:
    """Clouds with three different variances, whose canonical pose is one of 24 [B], and
    the axes of least to largest variance, as columns [B, 3, 3].

    Those whose variances agree are left to ``pcequi.canonical``, and so are those with
    coordinates that are not finite.

    **Equivariance:** the answer is invariant, the axes turn up to their signs.
    """
    moments = clouds.pos.mT @ clouds.pos
    finite = torch.isfinite(moments).flatten(1).all(1)
    variance, axes = torch.linalg.eigh(torch.where(finite[:, None, None], moments, 0.0))
    # A little more than what ties there, so that rounding decides nothing.
    apart = (variance[:, 1:] - variance[:, :-1]) > (1 + 1e-6) * ONE_SPACE * variance[:, 2:]
    return finite & apart.all(1), axes


def canonical_poses(clouds: PaddedClouds, axes: Tensor) -> PaddedClouds:
    """Clouds in their canonical poses and orders, see ``pcequi.canonical``.

    **Equivariance:** ``pos`` is the same for all copies of a cloud under SE(3).
    """
    pos, valid = clouds.pos, clouds.valid
    size = pos.norm(dim=2).amax(1)[:, None, None]
    first, second = axes[:, :, 0], axes[:, :, 1]
    base = torch.stack([first, second, torch.linalg.cross(first, second)], 2)
    frames = base[:, None] @ orders_and_signs().to(pos)  # [B, 24, 3, 3]
    turned = frames @ pos.new_tensor(WAVES).T  # columns are the waves [B, 24, 3, W]
    seen = (pos / size) @ turned.transpose(1, 2).flatten(2)
    seen = (seen.view(*pos.shape[:2], 24, -1) + pos.new_tensor(PHASE)).sin_()
    score = (seen * valid[:, :, None, None]).sum((1, 3)) / (clouds.num[:, None] * len(PHASE))
    best = score.amax(1, keepdim=True) - SAME * (1 + score.abs().amax(1, keepdim=True))
    choice = (score >= best).view(torch.uint8).argmax(1)
    frame = frames[torch.arange(len(pos), device=pos.device), choice]
    turned = pos @ frame
    values = torch.where(valid[:, :, None], (turned / (size * ORDER)).round(), torch.inf)
    rows = torch.arange(pos.shape[1], device=pos.device).expand(len(pos), -1)
    for column in (2, 1, 0):
        order = values[:, :, column].gather(1, rows).argsort(dim=1, stable=True)
        rows = rows.gather(1, order)
    turned = turned.gather(1, rows[:, :, None].expand(-1, -1, 3))
    return PaddedClouds(turned, valid, clouds.num, clouds.origin, frame)

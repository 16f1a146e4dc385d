"""Frames of many clouds at once, see ``pcequi.frames``, and their normals."""

from __future__ import annotations

import torch
from torch import Tensor

from pcequi import frames as one
from pcequi.clouds import DEGENERATE, GENERIC
from pcequi.normals import signed, smallest_axis
from pcequi.pose_graph.batched.canonical import PaddedClouds
from pcequi.pose_graph.batched.eigen import eigen, polar, small_turn
from pcequi.pose_graph.batched.near import local_moments

__all__ = ["FRAMES", "manhattan_frames", "normals", "principal_frames", "variances"]

# Of larger clouds ``frames.manhattan_frame`` asks some points alone.
MOST_POINTS = one._MOST


def principal_frames(clouds: PaddedClouds) -> Tensor:
    """``principal_frame`` of clouds whose variances differ, [B, 3, 3].

    **Equivariance:** turns with the cloud, up to the octahedral ambiguity.
    """
    pos = _centred(clouds)
    axes = torch.linalg.eigh(pos.mT @ pos).eigenvectors.flip(2)
    signs = torch.where(pos.new_tensor(GENERIC) @ axes < 0, -1.0, 1.0).to(axes)
    return _right_handed(axes * signs[:, None])


def _centred(clouds: PaddedClouds) -> Tensor:
    return torch.where(clouds.valid[:, :, None], clouds.pos - clouds.mean(), 0.0)


def variances(clouds: PaddedClouds, frame: Tensor) -> Tensor:
    """Of the clouds' points along the columns of frames [B, 3, 3]: [B, 3].

    **Equivariance:** invariant when cloud and frame turn together.
    """
    return (_centred(clouds) @ frame).square().sum(1) / clouds.num[:, None]


def _right_handed(axes: Tensor) -> Tensor:
    first, second, third = axes.unbind(2)
    side = (torch.linalg.cross(first, second) * third).sum(1, keepdim=True)
    return torch.stack([first, second, torch.where(side < 0, -third, third)], 2)


def manhattan_frames(clouds: PaddedClouds, radius: float = 0.15) -> Tensor:
    """``manhattan_frame`` of clouds whose variances differ, [B, 3, 3].

    **Equivariance:** turns with the cloud, up to signs and order of the axes.
    """
    start = principal_frames(clouds)
    pos = _centred(clouds)
    scaled = pos / pos.norm(dim=2).amax(1)[:, None, None]
    axes, flat = one._facing(
        *eigen(local_moments(scaled, clouds.valid, radius).flatten(0, 1)), radius
    )
    axes, flat = axes.view_as(pos), flat.view(pos.shape[:2]) * clouds.valid
    outer = (axes[..., :, None] * axes[..., None, :]).flatten(2)
    total = flat.sum(1)
    weight = flat / total.clamp_min(torch.finfo(pos.dtype).tiny)[:, None]
    moments = (weight[..., None] * outer).mT @ outer  # [B, 9, 9]
    turns, score = _climb(moments, start[:, None] @ one._starts().to(pos))
    best = score >= score.amax(1, keepdim=True) * (1 - one._TIE)
    choice = best.view(torch.uint8).argmax(1)
    axes = turns[torch.arange(len(pos), device=pos.device), choice]
    variance = (pos @ axes).square().sum(1)
    ranks = -(variance / (variance.sum(1, keepdim=True) * one._TIE)).round()
    order = ranks.argsort(dim=1, stable=True)
    found = _right_handed(axes.gather(2, order[:, None].expand(-1, 3, -1)))
    nowhere = total <= DEGENERATE * clouds.num
    return torch.where(nowhere[:, None, None], start, found)


def _climb(moments: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ascent of each cloud's moments [B, 9, 9] ends from each frame [B, S, 3, 3]."""
    shape = turns.shape
    for _ in range(one._STEPS):
        pairs = (turns[:, :, :, None] * turns[:, :, None]).flatten(2, 3)  # [B, S, 9, 3]
        slope = ((moments[:, None] @ pairs).view(*shape[:3], 3, 3) * turns[:, :, None]).sum(3)
        turns = polar(slope + 1e-6 * turns)
    each = moments[:, None].expand(-1, shape[1], -1, -1).flatten(0, 1)
    turns = turns.flatten(0, 1)
    for _ in range(one._NEWTON):
        slope, bend = one._slope_and_bend(one._turned(each, turns))
        turns = turns @ small_turn(one._step_to_top(slope, *eigen(bend)))
    score = one._turned(each, turns)[:, one._SQUARES, one._SQUARES].sum(1)
    return turns.view(shape), score.view(shape[:2])


def normals(clouds: PaddedClouds, radius: float) -> Tensor:
    """The axes of ``NormalPoses(radius)`` [B, N, 3], those of points that fill up included.

    **Equivariance:** turn with the cloud, up to sign.
    """
    out = _centred(clouds)
    out = out / out.norm(dim=2).amax(1)[:, None, None]
    spread = eigen(local_moments(out, clouds.valid, radius).flatten(0, 1))
    flat = out.flatten(0, 1)
    return signed(smallest_axis(*spread, flat, 1.0), (flat,), 1.0).view_as(out)


#: Frames by the names of ``poses.ALIGNMENTS``.
FRAMES = {"principal": principal_frames, "manhattan": manhattan_frames}

"""The first level of a network: pointwise layers on the geometry that each pose sees."""

from __future__ import annotations

import torch
from torch import Tensor


class LiftBlock(torch.nn.Module):
    """From the geometry seen by each pose to its first features.

    The lifting convolution of constants and normals *is* a linear layer on the
    geometric embedding; a second pointwise layer follows. ``LiftConv`` is such a layer along
    edges, from points.

    Args:
        in_channels: width of the lifting input, ``Level.lift_channels``.
        out_channels: C_out.

    Shapes:
        lift [M, in_channels] -> [M, C_out].

    **Equivariance:** acts on each pose alone.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.BatchNorm1d(in_channels),
            torch.nn.Linear(in_channels, out_channels, bias=False),
            torch.nn.BatchNorm1d(out_channels),
            torch.nn.ReLU(),
            torch.nn.Linear(out_channels, out_channels, bias=False),
            torch.nn.BatchNorm1d(out_channels),
            torch.nn.ReLU(),
        )

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.layers:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def forward(self, lift: Tensor) -> Tensor:
        return self.layers(lift)

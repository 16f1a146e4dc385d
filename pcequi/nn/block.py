"""One level of a network: group convolution, then a pointwise residual layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pcequi.kernels import SE3Kernel
from pcequi.nn.group_conv import GroupConv
from pcequi.pose_graph import LevelGraph


class GroupConvBlock(torch.nn.Module):
    """``GroupConv``, batch norm and ReLU, then a residual pointwise layer.

    A constant channel is added to the input, so that the layer also sees the
    geometry at its own radius, not only the features found there.

    Args:
        in_channels: C_in. out_channels: C_out.
        kernel: basis of the convolution.
        bypass_channels: width of ``LevelGraph.bypass`` where the level has one, a linear map of
            which is added to what the convolution gives; 0: it has none.

    Shapes:
        x [S, C_in] -> [M, C_out].

    **Equivariance:** as ``GroupConv``: the output of each pose stays the same
    when all poses move together.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: SE3Kernel, bypass_channels: int = 0
    ):
        super().__init__()
        self.bypass = None
        if bypass_channels:
            self.bypass = torch.nn.Sequential(
                torch.nn.BatchNorm1d(bypass_channels),
                torch.nn.Linear(bypass_channels, out_channels, bias=False),
            )
        self.conv = GroupConv(in_channels + 1, out_channels, kernel, bias=False)
        self.norm = torch.nn.BatchNorm1d(out_channels)
        self.pointwise = torch.nn.Linear(out_channels, out_channels, bias=False)
        self.pointwise_norm = torch.nn.BatchNorm1d(out_channels)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in (*(self.bypass or ()), self.conv, self.norm):
            module.reset_parameters()
        self.pointwise.reset_parameters()
        self.pointwise_norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        level: LevelGraph,
        sources: Tensor,
        turn: Tensor | None = None,
        bypass_turn: Tensor | None = None,
    ) -> Tensor:
        x = self.conv.compressed(x, level, sources, constant=True, turn=turn)
        if self.bypass is not None:
            seen = level.bypass.to(self.bypass[1].weight.dtype)
            x = x + self.bypass(seen if bypass_turn is None else seen[:, bypass_turn])
        x = F.relu(self.norm(x))
        return F.relu(x + self.pointwise_norm(self.pointwise(x)))

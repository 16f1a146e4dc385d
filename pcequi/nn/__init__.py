"""Layers for PyG models."""

from pcequi.nn.block import GroupConvBlock
from pcequi.nn.group_conv import GroupConv
from pcequi.nn.lift_block import LiftBlock
from pcequi.nn.lifting import LiftConv
from pcequi.nn.pooling import GroupPool

__all__ = ["GroupConv", "GroupConvBlock", "GroupPool", "LiftBlock", "LiftConv"]

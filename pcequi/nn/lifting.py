"""The lifting layer along any edges: from points to features of the poses that see them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from pcequi.errors import ShapeError, check_count
from pcequi.kernels import SE3Kernel, or_one
from pcequi.nn.checks import check_edge_index, check_edges, check_type


class LiftConv(MessagePassing):
    r"""Lifting correlation: what each pose sees of the points around it.

    .. math::
        out(g) = \sum_b \Big( \frac{1}{m(g)} \sum_{y \in N(g)}
            \phi_b(R^T (y - x) / r) f(y) \Big) W_b + c

    for a pose :math:`g = (x, R)`, with f(y) one, then the normal :math:`R^T n(y)` where
    ``normals``, then the numbers that the point brings, and m(g) the sum of the kernel's
    functions over N(g). Along the edges of ``ops.pairs_within`` the bracket is
    ``embedding.geometric_embedding``. Messages [E, B * F] take memory, F = 1, plus 3 with
    normals, plus C_in.

    Args:
        in_channels: numbers that points bring and no rotation changes, C_in; 0: geometry alone.
        out_channels: channels of the output, C_out.
        num_points: kernel points B, one of ``kernels.LAYOUTS``.
        normals: whether the layer reads normals of the points.
        bias: whether c is learned; otherwise it is zero.
        normalize: divide by m(g), so that density does not scale the output.

    Raises:
        ArgumentError: no output channels, or no such kernel points.

    Shapes:
        points [num_src], with or without numbers [num_src, C_in] -> poses [num_dst, C_out].

    **Equivariance:** depends on what is seen from the poses alone: when points and poses move
    together, the output of each pose stays the same.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_points: int = 15,
        normals: bool = False,
        bias: bool = True,
        normalize: bool = True,
    ):
        super().__init__(aggr="sum")
        self.in_channels = check_count("in_channels", in_channels, 0)
        self.out_channels = out_channels = check_count("out_channels", out_channels)
        self.kernel, self.normals, self.normalize = SE3Kernel(num_points), normals, normalize
        rows = self.kernel.num * self.lifted_channels
        self.weight = torch.nn.Parameter(torch.empty(rows, out_channels))
        self.bias = torch.nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    @property
    def lifted_channels(self) -> int:
        """What a kernel point sums up, F: one, the normal, the numbers of the points."""
        return 1 + 3 * self.normals + self.in_channels

    def reset_parameters(self):
        """Normal weights of variance 2 / F, as those of ``GroupConv``."""
        torch.nn.init.normal_(self.weight, std=math.sqrt(2 / self.lifted_channels))
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor | None, Tensor | None] | None,
        edge_index: Tensor,
        offset: Tensor,
        normal: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Lift along any edges.

        Args:
            x: numbers of the points [num_src, C_in], or a pair whose first entry they are; None
                where ``in_channels`` is 0.
            edge_index: [2, E], points above, poses below.
            offset: of the point from the pose, in units of the radius, in the frame of the
                pose [E, 3].
            normal: unit normal of the point in the frame of the pose [E, 3], where ``normals``.
            size: (num_src, num_dst); by default as many poses as points, which takes ``x``.

        Raises:
            ShapeError: shapes that do not fit, or numbers of another type than the weights; the
                message names the argument.
        """
        x, size = self._sources(x, size)
        edge_index = check_edge_index(edge_index)
        edges = edge_index.shape[1]
        if offset.shape != (edges, 3):
            raise ShapeError(f"`offset` (={list(offset.shape)}) must be [edges, 3] (={[edges, 3]})")
        if (normal is not None) != self.normals:
            asked = (
                "that the layer reads" if self.normals else "left out, or LiftConv(normals=True)"
            )
            seen = None if normal is None else list(normal.shape)
            raise ShapeError(f"`normal` (={seen}) must be [edges, 3], {asked}")
        if normal is not None and normal.shape != (edges, 3):
            raise ShapeError(f"`normal` (={list(normal.shape)}) must be [edges, 3] (={[edges, 3]})")
        if _can_be_read(edge_index):
            check_edges(edge_index, size)
        dtype = self.weight.dtype if x is None else x.dtype
        wide = torch.promote_types(dtype, torch.float32)  # 16 bits lose small addends
        phi = self.kernel(offset).to(wide)
        x, normal = (None if part is None else part.to(wide) for part in (x, normal))
        z = self.propagate(edge_index, x=x, phi=phi, normal=normal, size=size)
        if self.normalize:
            mass = z.view(-1, self.kernel.num, self.lifted_channels)[:, :, 0].sum(1, keepdim=True)
            z = z / or_one(mass)
        out = z.to(dtype) @ self.weight
        return out if self.bias is None else out + self.bias

    def _sources(self, x, size: tuple[int, int] | None) -> tuple[Tensor | None, tuple[int, int]]:
        """Numbers of the points, if there are any, and how many points and poses there are."""
        pair = x if isinstance(x, tuple | list) else (x, x)
        x = pair[0]
        if x is None and not self.in_channels:
            if size is None:
                raise ShapeError(
                    "`size` (=None) must be (points, poses) where no `x` says how many there are"
                )
            return None, tuple(size)
        if x is None or x.dim() != 2 or x.shape[1] != self.in_channels:
            seen = None if x is None else list(x.shape)
            raise ShapeError(f"`x` (={seen}) must be [num_src, in_channels (={self.in_channels})]")
        check_type(x, self.weight)
        sources = x.shape[0]
        if size is None:
            size = (sources, sources if pair[1] is None else pair[1].shape[0])
        if size[0] != sources:
            raise ShapeError(
                f"`size` (={tuple(size)}) must begin with the points of `x`, which are {sources}"
            )
        return x, tuple(size)

    def message(self, x_j: Tensor | None, phi: Tensor, normal: Tensor | None) -> Tensor:
        """Products [E, B * F] of basis functions and what each point brings.

        **Equivariance:** as invariant as offsets and normals in the frames are.
        """
        brought = [part for part in (normal, x_j) if part is not None]
        seen = torch.cat([torch.ones_like(phi[:, :1]), *brought], 1)
        return (phi[:, :, None] * seen[:, None, :]).flatten(1)

    def __repr__(self) -> str:
        normals = ", normals=True" if self.normals else ""
        sizes = f"{self.in_channels}, {self.out_channels}, num_points={self.kernel.num}"
        return f"LiftConv({sizes}{normals})"


def _can_be_read(edge_index: Tensor) -> bool:
    """Whether numbers of edges may be looked at: on a CPU, outside of what is traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(edge_index)
    return edge_index.device.type == "cpu" and not wrapped

"""The group convolution over SE(3), as a PyG layer and in compressed form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import SumAggregation

from pcequi.errors import ArgumentError, ShapeError, check_count
from pcequi.kernels import SE3Kernel, or_one
from pcequi.nn.checks import (
    check_anchors,
    check_edge_index,
    check_edges,
    check_features,
    check_level,
    check_turn,
    check_type,
)
from pcequi.ops import (
    coalesce_rows,
    dense_blocks,
    grouped_bmm,
    grouped_spmm,
    row_pointer,
    twofold_product,
    with_ones,
)
from pcequi.pose_graph import LevelGraph

#: Share of entries that are not zero from which a GPU multiplies dense blocks.
DENSE_SHARE = 0.02
#: Channels from which a layer along edges multiplies rows instead of writing messages.
LEAST_CHANNELS = 4
#: Channels of features on a GPU are filled up with zeros to a multiple of this.
ALIGN = 8
# What of PyG's message passing a layer of one's own, or who watches one, can put in.
_STEPS = ("message", "aggregate", "update")
_HOOKS = [
    f"_{step}_forward_{kind}"
    for step in ("propagate", "message", "aggregate")
    for kind in ("pre_hooks", "hooks")
]


class GroupConv(MessagePassing):
    r"""Group convolution with a fixed kernel basis and learned weights.

    .. math::
        out(g) = \sum_b \Big( \frac{1}{m(g)} \sum_{h \in N(g)}
            \phi_b(\Delta(g, h)) f(h) \Big) W_b + c

    with :math:`m(g)` the sum of the kernel's space functions over N(g). The
    bracket is one sparse product, the rest one dense product. On a CPU it is made of the basis
    functions that are not zero; where offsets or rotations have gradients, on a GPU, when traced,
    of fewer than ``LEAST_CHANNELS`` channels, and where somebody hooks or overrides a step, of
    messages [E, B * C_in], which take memory.

    Give every pose itself as a neighbour (PyG: ``loop=True``): a pose whose only neighbours
    come from beyond the radius has no mass before they do, and dividing by it makes its
    output jump.

    Args:
        in_channels: channels of f, C_in.
        out_channels: channels of the output, C_out.
        kernel: basis of size B on R^3 x SO(3).
        bias: whether c is learned; otherwise it is zero.
        normalize: divide by m(g), so that density does not scale the output.

    Raises:
        ArgumentError: no channels, or a kernel that is none.

    Shapes:
        x [num_src, C_in] -> [num_dst, C_out].

    **Equivariance:** depends on relative poses alone: when all poses move
    together, the output of each pose stays the same.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: SE3Kernel,
        bias: bool = True,
        normalize: bool = True,
    ):
        super().__init__(aggr="sum")
        if isinstance(kernel, type) or not callable(kernel) or not hasattr(kernel, "num"):
            raise ArgumentError(
                f"`kernel` (={kernel!r}) must be a basis, such as SE3Kernel(num_points=15)"
            )
        self.in_channels = in_channels = check_count("in_channels", in_channels)
        self.out_channels = out_channels = check_count("out_channels", out_channels)
        self.kernel, self.normalize = kernel, normalize
        self.weight = torch.nn.Parameter(torch.empty(kernel.num * in_channels, out_channels))
        self.bias = torch.nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self):
        """Normal weights of variance 2 / C_in.

        A normalised row of A averages, so the output's variance is below one
        (0.1 to 0.3 for unit-variance input, measured): norm layers follow in
        pcequi's networks.
        """
        torch.nn.init.normal_(self.weight, std=math.sqrt(2 / self.in_channels))
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        edge_index: Tensor,
        relative_pose: tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor, Tensor],
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Convolve along any edges.

        Args:
            x: features [num_src, C_in], or a pair whose first entry they are.
            edge_index: [2, E], sources above, targets below.
            relative_pose: offsets [E, 3] in units of the radius, in the frame
                of the target, and rotations [E, 3, 3] (None: identity). A third entry, the
                anchor of each edge [E], is of edges that come once for every anchor of the
                kernel, each for its own: those of ``pose_graph.pose_edges``.
            size: (num_src, num_dst); by default a square graph.

        Raises:
            ShapeError: shapes that do not fit, or features of another type than the weights; the
                message names the argument.
        """
        pair = (x, x) if isinstance(x, Tensor) else x
        if pair[0].dim() != 2 or pair[0].shape[1] != self.in_channels:
            raise ShapeError(
                f"`x` (={list(pair[0].shape)}) must be [num_src, in_channels (={self.in_channels})]"
            )
        check_type(pair[0], self.weight)
        if isinstance(relative_pose, Tensor) or len(relative_pose) not in (2, 3):
            raise ShapeError(
                f"`relative_pose` (={type(relative_pose).__name__} of {len(relative_pose)}) must "
                "be offsets [edges, 3] and rotations [edges, 3, 3] or None, and may have anchors"
            )
        edge_index = check_edge_index(edge_index)
        offset, rotation, *rest = relative_pose
        edges = edge_index.shape[1]  # not by len(), which would fix the sizes of a traced graph
        if offset.shape != (edges, 3):
            raise ShapeError(
                f"`relative_pose[0]` (={list(offset.shape)}) must be [edges, 3] (={[edges, 3]})"
            )
        if rotation is not None:
            if rotation.shape != (edges, 3, 3):
                raise ShapeError(
                    f"`relative_pose[1]` (={list(rotation.shape)}) must be [edges, 3, 3] "
                    f"(={[edges, 3, 3]}), or None"
                )
            rotation = rotation.to(offset.dtype)
        sources = pair[0].shape[0]
        if size is None:
            size = (sources, sources if pair[1] is None else pair[1].shape[0])
        if size[0] != sources:
            raise ShapeError(
                f"`size` (={tuple(size)}) must begin with the sources, which are {sources}"
            )
        phi, mass = self._functions(offset, rotation, *rest)
        phi = phi.to(pair[0].dtype)
        if self._takes_rows(pair[0], phi):
            check_edges(edge_index, size)
            return self.combine(_row_sums(pair[0], edge_index, phi, mass, size))
        # A GPU adds up in the type that it is given, where 16 bits lose small addends.
        dtype, wide = phi.dtype, torch.promote_types(phi.dtype, torch.float32)
        x, phi = pair[0].to(wide), phi.to(wide)
        mass = phi.new_ones(edges) if mass is None else mass.to(wide)
        z = self.propagate(edge_index, x=x, phi=phi, mass=mass, size=size)
        if self.normalize:
            total, z = z[:, :1], z[:, 1:]
            z = z / or_one(total)
        return self.combine(z.to(dtype))

    def _functions(self, offset: Tensor, rotation: Tensor | None, anchor: Tensor | None = None):
        """Basis functions [E, B] and, where it is divided by, mass [E] of each edge."""
        mass = self.kernel.mass(offset) if self.normalize else None
        if anchor is None:
            return self.kernel(offset, rotation), mass
        anchors = getattr(self.kernel, "num_rotations", 1)
        check_anchors(anchor, offset.shape[0], anchors)
        if anchors == 1:
            return self.kernel(offset, rotation), mass
        # Every neighbour comes once for each anchor, each time with a part of its mass.
        return self.kernel(offset, rotation, anchor), None if mass is None else mass / anchors

    def _takes_rows(self, x: Tensor, phi: Tensor) -> bool:
        """Whether the sparse product can be made of rows, without a message an edge: on a CPU,
        where geometry is given, nobody changes or looks at messages, and there are channels
        enough."""
        watched = self.explain or any(getattr(self, name) for name in _HOOKS)
        kind = type(self)
        own = all(getattr(kind, name) is getattr(GroupConv, name) for name in _STEPS)
        own = own and type(self.aggr_module) is SumAggregation and self.flow == "source_to_target"
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or x.device.type != "cpu"
        return own and not (
            watched
            or traced
            or phi.requires_grad
            or self.in_channels < LEAST_CHANNELS
            or any(map(_transformed, (x, phi)))
        )

    def message(self, x_j: Tensor, phi: Tensor, mass: Tensor) -> Tensor:
        """Products [E, B * C_in] of basis functions and features of each edge; the
        mass before them where it is divided by.

        **Equivariance:** as invariant as the basis functions are.
        """
        outer = (phi[:, :, None] * x_j[:, None, :]).flatten(1)
        return torch.cat([mass[:, None], outer], 1) if self.normalize else outer

    def compressed(
        self,
        x: Tensor,
        level: LevelGraph,
        sources: Tensor,
        *,
        constant: bool = False,
        turn: Tensor | None = None,
    ) -> Tensor:
        """The same layer on a level of a pose graph.

        Args:
            x: features of the representatives of the level below [S, C_in].
            level: the level, with its sparse matrix A.
            sources: representatives of each cloud in the level below [G].
            constant: the last of the C_in channels are ones, which ``x`` [S, C_in - 1] leaves out.
            turn: a permutation [B]: function b is taken for what A has of function ``turn[b]``.

        Returns:
            [M, C_out].

        Raises:
            ShapeError: ``x`` has other channels, ``sources`` are not those of its rows (on a
                GPU their sum is not looked at), or ``turn`` is no permutation of B.
            ArgumentError: the level is none, or has no matrix A, as the lifting one, or that of
                another kernel.
        """
        check_level(level, self.kernel.num)
        check_features(x, level, sources, self.in_channels - constant)
        if turn is not None:
            check_turn(turn, self.kernel.num)
        weight = self.weight if turn is None else self._turned_weight(turn)
        own = type(self).combine is GroupConv.combine
        if own and _twofold(x, level, weight):
            out = twofold_product(x, level.blocks, level.characters, weight, constant=constant)
            return out if self.bias is None else out + self.bias
        if not x.is_cuda:
            return self.combine(sparse_product(x, level, sources, constant=constant), weight)
        if constant and level.characters is not None and x.shape[1] % ALIGN == 0:
            # Written beside the product: more than one channel, for which there are no weights.
            z = sparse_product(x, level, sources, constant=ALIGN)
            return self.combine(z, _widened(weight, self.in_channels, ALIGN - 1))
        x, weight = filled_up(with_ones(x) if constant else x, weight)
        return self.combine(sparse_product(x, level, sources), weight)

    def _turned_weight(self, turn: Tensor) -> Tensor:
        # The rows of A stay where they are, so the weights go to them: the other way around.
        each = self.weight.view(len(turn), -1, self.out_channels)
        return each.index_select(0, turn.argsort()).view_as(self.weight)

    def combine(self, z: Tensor, weight: Tensor | None = None) -> Tensor:
        """The dense product: z [M, B * C_in] to [M, C_out]; ``weight`` in place of its own."""
        out = z @ (self.weight if weight is None else weight)
        return out if self.bias is None else out + self.bias

    def __repr__(self) -> str:
        return f"GroupConv({self.in_channels}, {self.out_channels}, basis={self.kernel.num})"


def _twofold(x: Tensor, level: LevelGraph, weight: Tensor) -> bool:
    """Whether weights are multiplied by rows whose functions are taken apart, on a CPU and in one
    precision."""
    if level.characters is None or not level.characters.both or x.device.type != "cpu":
        return False
    casts = torch.is_autocast_enabled("cpu")
    return not casts and x.dtype == level.blocks.dtype == weight.dtype


def _transformed(x: Tensor) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation looks through a tensor."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return True
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None


def _row_sums(x: Tensor, edge_index: Tensor, phi: Tensor, mass: Tensor | None, size) -> Tensor:
    """Sums of phi_b f over the edges of each target [num_dst, B * C], over those of the mass
    where it is given: a sparse matrix of the entries that are not zero, times ``x``."""
    source, target = edge_index
    basis = phi.shape[1]
    wide = phi.to(torch.promote_types(phi.dtype, torch.float32))  # 16 bits lose small addends
    if mass is not None:
        total = wide.new_zeros(size[1]).index_add_(0, target, mass.to(wide))
        wide = wide / or_one(total)[target, None]
    edge, function = wide.nonzero(as_tuple=True)
    rows = target[edge] * basis + function
    ptr, col, val = coalesce_rows(
        rows, source[edge], wide[edge, function], size[1] * basis, size[0]
    )
    ends = ptr.new_tensor([0, len(ptr) - 1]), ptr.new_tensor([0, len(x)])
    return grouped_spmm(x, ptr, col, val, *ends).reshape(size[1], basis * x.shape[1])


def filled_up(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Features [S, C] and weights [B * C, C_out] with zeros for channels up to a multiple of
    ``ALIGN``: matrix units of GPUs read rows of a multiple of 16 bytes.

    **Equivariance:** the layer stays the same.
    """
    spare = -x.shape[1] % ALIGN
    if spare == 0:
        return x, weight
    return F.pad(x, (0, spare)), _widened(weight, x.shape[1], spare)


def _widened(weight: Tensor, channels: int, spare: int) -> Tensor:
    """Weights [B * C, C_out] for so many channels more, which they leave out."""
    return F.pad(weight.view(-1, channels, weight.shape[1]), (0, 0, 0, spare)).flatten(0, 1)


def sparse_product(x: Tensor, level: LevelGraph, sources: Tensor, *, constant: int = 0) -> Tensor:
    """z = A x for a batch of clouds: [S, C] to [M, B * C].

    Where A comes as dense blocks, or a GPU multiplies them faster, it is a dense product.
    So many channels of ones as ``constant`` says are appended to ``x``.

    **Equivariance:** as invariant as the entries of A are.
    """
    blocks = level.blocks
    if blocks is None and x.is_cuda and not torch.compiler.is_compiling():
        blocks = _as_blocks(level, sources, x.dtype)
    if blocks is not None:
        return grouped_bmm(x, blocks, level.characters, constant=constant).reshape(level.num, -1)
    x = with_ones(x, constant) if constant else x
    ptr = row_pointer(level.entries.long())
    rows = row_pointer(level.count * level.basis)
    z = grouped_spmm(x, ptr, level.col, level.val, rows, row_pointer(sources))
    return z.reshape(level.num, -1)


def _as_blocks(level: LevelGraph, sources: Tensor, dtype: torch.dtype) -> Tensor | None:
    """A as dense blocks, where all clouds are equally large and enough of it is not zero."""
    counts = torch.stack([level.count, sources])
    fewest, most = torch.stack([counts.amin(1), counts.amax(1)]).tolist()  # one wait
    cells = level.num * level.basis * most[1]
    if fewest != most or len(level.col) < DENSE_SHARE * cells:
        return None
    return dense_blocks(level.entries, level.col, level.val, len(sources), most[1], dtype)

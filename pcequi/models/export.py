"""A network as one traced graph, for deployment without pcequi's Python."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pcequi.pose_graph import TENSORS, PoseGraph
from pcequi.pose_graph.graph import check_entries

__all__ = ["TensorNetwork", "export_network", "graph_tensors"]


def graph_tensors(data) -> dict[str, Tensor]:
    """The tensors of a pose graph by name, ``graph{level}_{name}`` as in a ``Data``.

    Args:
        data: a ``Data``, ``Batch`` or ``PoseGraph``.

    Raises:
        ArgumentError: ``data`` has no pose graph, or one with dense blocks.

    **Equivariance:** as ``PoseGraph``.
    """
    graph = data if isinstance(data, PoseGraph) else PoseGraph.load(data)
    for level in graph.levels:
        check_entries(level)
    named = {
        f"graph{number}_{name}": getattr(level, name)
        for number, level in enumerate(graph.levels)
        for name in TENSORS
    }
    return {name: value for name, value in named.items() if value is not None}


class TensorNetwork(torch.nn.Module):
    """A network that takes a dictionary of tensors instead of a graph.

    Args:
        model: a ``GroupConvClassifier``.

    Shapes:
        ``graph_tensors`` of G clouds -> logits [G, num_classes].

    **Equivariance:** as the network.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.model(PoseGraph.load(SimpleNamespace(**tensors)))


def export_network(model: torch.nn.Module, data) -> ExportedProgram:
    """``torch.export`` of the network on precomputed graphs; sampling stays outside.

    The program takes ``graph_tensors(other)`` for any ``other`` with as many
    clouds and representatives as ``data`` has; the number of entries of the
    sparse matrices is free. Save it with ``torch.export.save``.

    Args:
        model: a ``GroupConvClassifier``, on the device and in the dtype of use;
            it is exported in ``eval()`` mode and left in the mode it was in.
        data: an example: a ``Data``, ``Batch`` or ``PoseGraph``.

    Returns:
        The program; ``program.module()(graph_tensors(data))`` gives the logits.

    Raises:
        ArgumentError: ``data`` has no pose graph.

    **Equivariance:** as the network.
    """
    example = graph_tensors(data)
    free = {}  # one size a level, shared by columns and values
    for name in example:
        level, _, kind = name.partition("_")
        entries = kind in ("col", "val")
        free[name] = {0: Dim(f"entries_{level}", min=2)} if entries else None
    was_training = model.training
    try:
        network = TensorNetwork(model.eval())
        # Not strict: the graph's classes are plain Python that runs while tracing.
        return torch.export.export(network, (example,), dynamic_shapes=(free,), strict=False)
    finally:
        model.train(was_training)

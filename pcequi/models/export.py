"""A network as one traced graph, for deployment without pcequi's Python."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch_geometric.data import Batch, Data

from pcequi.errors import ArgumentError
from pcequi.pose_graph import TENSORS, PoseGraph
from pcequi.pose_graph.graph import check_entries

__all__ = ["TensorNetwork", "export_network", "graph_tensors"]


def graph_tensors(data: Data | Batch | PoseGraph) -> dict[str, Tensor]:
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
        ``graph_tensors`` of G clouds -> logits [G, num_classes], or features, as the network.

    **Equivariance:** as the network.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.model(PoseGraph.load(SimpleNamespace(**tensors)))


def export_network(model: torch.nn.Module, data: Data | Batch | PoseGraph) -> ExportedProgram:
    """``torch.export`` of the network on precomputed graphs; sampling stays outside.

    The program takes ``graph_tensors(other)`` for any ``other`` that was built with levels of the
    same kernels: clouds, representatives and entries of the sparse matrices may be as many as
    they like. Save it with ``torch.export.save``.

    Args:
        model: a ``GroupConvClassifier``, on the device and in the dtype of use;
            it is exported in ``eval()`` mode and left in the mode it was in.
        data: an example, of one cloud or more: a ``Data``, ``Batch`` or ``PoseGraph``.

    Returns:
        The program; ``program.module()(graph_tensors(data))`` gives the logits.

    Raises:
        ArgumentError: ``data`` has no pose graph, one of other levels than the network's, or one
            with a level that reads nothing.

    **Equivariance:** as the network.
    """
    graph = data if isinstance(data, PoseGraph) else PoseGraph.load(data)
    if len(graph.levels[0].count) == 1:  # torch takes a size of one for a constant
        graph = PoseGraph.batch([graph, graph])
    example = graph_tensors(graph)
    for name, value in example.items():
        if len(value) == 0:
            raise ArgumentError(
                f"`data` (=a graph whose {name} is empty) has a level that reads nothing, which "
                "is no example; take a cloud that fits the radii (transforms.NormalizeRadius)"
            )
    free = {name: {0: Dim.DYNAMIC} for name in example}
    was_training = model.training
    try:
        network = TensorNetwork(model.eval())
        # Not strict: the graph's classes are plain Python that runs while tracing.
        return torch.export.export(network, (example,), dynamic_shapes=(free,), strict=False)
    finally:
        model.train(was_training)

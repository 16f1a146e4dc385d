"""Ready networks and the ways of running them."""

from pcequi.models.classifier import GroupConvClassifier
from pcequi.models.export import export_network, graph_tensors
from pcequi.models.online import forward_online
from pcequi.models.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "GroupConvClassifier",
    "export_network",
    "forward_online",
    "graph_tensors",
    "preset",
]

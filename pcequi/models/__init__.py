"""Ready networks and the ways of running them."""

from pcequi.models.classifier import GroupConvClassifier
from pcequi.models.export import export_network, graph_tensors
from pcequi.models.features import CloudFeatures, LevelFeatures, extract_features
from pcequi.models.online import forward_online
from pcequi.models.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "CloudFeatures",
    "GroupConvClassifier",
    "LevelFeatures",
    "export_network",
    "extract_features",
    "forward_online",
    "graph_tensors",
    "preset",
]

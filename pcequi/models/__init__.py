"""Ready networks and the ways of running them."""

from pcequi.models.classifier import GroupConvClassifier
from pcequi.models.export import export_network, graph_tensors
from pcequi.models.features import CloudFeatures, LevelFeatures, extract_features
from pcequi.models.online import forward_online, online_graph
from pcequi.models.orders import averaged_logits, averaged_pooled
from pcequi.models.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "CloudFeatures",
    "GroupConvClassifier",
    "LevelFeatures",
    "averaged_logits",
    "averaged_pooled",
    "export_network",
    "extract_features",
    "forward_online",
    "graph_tensors",
    "online_graph",
    "preset",
]

"""Compile pcequi's kernels for this processor, as the first use of its networks would.

Run by the set-up in the virtual environment; takes about a minute once, and a few seconds again.
"""

import tempfile

import numpy as np
import torch

from pcequi import graph_ready
from pcequi.datasets import make_shape
from pcequi.datasets.meshes import sample_mesh
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.networks import load_network
from pcequi.training import FitSettings, fit, predict_cloud


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    shapes = [sample_mesh(*make_shape(name, rng), 1024, rng)[0] for name in ("chair", "cup")]
    clouds = [torch.from_numpy(points) for points in shapes]
    few = graph_ready.TWOFOLD_POSES
    for name, least in (("default", 1), ("default", few), ("large", few), ("pairs", few)):
        graph_ready.TWOFOLD_POSES = least  # 1: also what large batches alone are multiplied by
        model = GroupConvClassifier.from_preset(name, num_classes=2)
        with tempfile.TemporaryDirectory() as folder:
            store = GraphStore.build(folder, clouds, model.levels)
            fit(model, store, torch.tensor([0, 1]), FitSettings(epochs=1), quiet=True)
    predict_cloud(load_network("modelnet40"), clouds[0])


if __name__ == "__main__":
    main()

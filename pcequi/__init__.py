"""pcequi: rotation-equivariant learning on point clouds, sampled in feature space.

Its rooms come when they are asked for, ``pcequi.models`` as an attribute or imported by name:

- ``models``: ready networks, dense, online or on precomputed graphs; features, export.
- ``networks``: trained networks that come with pcequi.
- ``nn``: layers for PyG models, ``GroupConv`` first.
- ``kernels``, ``pair_kernel``: the bases that layers learn weights for.
- ``transforms``: PyG transforms; ``BuildPoseGraph`` attaches a pose graph to a cloud.
- ``pose_graph``: levels, and the graphs of clouds that networks read.
- ``graph_store``: precomputed graphs of many clouds on disk.
- ``poses``, ``frames``, ``normals``: where poses are, and how they lie.
- ``sampling``, ``embedding``: representatives in feature space.
- ``rotations``: finite groups, grids, random rotations, distances.
- ``ops``: neighbours, farthest points, sparse products.
- ``datasets``: labelled clouds, and readers of files.
- ``training``: fit, evaluate, predict, protocols, checkpoints.
- ``testing``: is a function equivariant, and if not, why not?
- ``align``: how one cloud is turned against another.
- ``outliers``: points that lie alone.
- ``viz``: pictures, by Open3D.
- ``report``: one HTML page of a run.
- ``errors``: what is raised where something cannot work.
"""

import importlib

__version__ = "0.1.0"

_ROOMS = (
    "align", "datasets", "embedding", "errors", "frames", "graph_store", "kernels", "models",
    "networks", "nn", "normals", "ops", "outliers", "pair_kernel", "pose_graph", "poses", "report",
    "rotations", "sampling", "testing", "training", "transforms", "viz",
)  # fmt: skip


def __getattr__(name: str):
    # By PEP 562: importing them all would take seconds, and torch, which pictures do not need.
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_ROOMS)}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})

"""Low-level operators: one face each, the fastest backend that is installed.

torch-cluster (neighbour search) and numba (the CPU kernels of ``ops.compiled``)
are used where they can be imported, and Triton (kernels for a GPU) where there is one; pure
torch everywhere else. Setting ``PCEQUI_NO_TORCH_CLUSTER=1``, ``PCEQUI_NO_NUMBA=1`` or
``PCEQUI_NO_TRITON=1`` turns one off.
"""

from pcequi.ops.backends import HAS_NUMBA, HAS_TORCH_CLUSTER, wants_gradient
from pcequi.ops.blending import blend_centers
from pcequi.ops.clusters import cluster_means, least_members, nearest_center
from pcequi.ops.dense import (
    Characters,
    dense_blocks,
    grouped_bmm,
    put_together,
    real_characters,
    with_ones,
)
from pcequi.ops.fading import faded
from pcequi.ops.fps import farthest_point_sampling
from pcequi.ops.neighbors import check_radius, knn, local_moments, pairs_within
from pcequi.ops.sparse import coalesce_rows, combined_rows, grouped_spmm, row_pointer, turned_rows
from pcequi.ops.twofold import twofold_product

__all__ = [
    "HAS_NUMBA",
    "HAS_TORCH_CLUSTER",
    "Characters",
    "blend_centers",
    "check_radius",
    "cluster_means",
    "coalesce_rows",
    "combined_rows",
    "dense_blocks",
    "faded",
    "farthest_point_sampling",
    "grouped_bmm",
    "grouped_spmm",
    "knn",
    "least_members",
    "local_moments",
    "nearest_center",
    "pairs_within",
    "put_together",
    "real_characters",
    "row_pointer",
    "turned_rows",
    "twofold_product",
    "wants_gradient",
    "with_ones",
]

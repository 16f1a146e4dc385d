"""Is it really equivariant? Checks for any function of points.

``check_equivariance`` answers with the likely cause where the answer is no,
``assert_equivariant`` is the same inside a test, and ``EquivariantLayerContract``
holds the laws that tests of your own layer inherit. The figures of ``pcequi check``,
which measure pcequi's own networks, are in ``pcequi.check``.
"""

from pcequi.testing.checker import assert_equivariant, check_equivariance
from pcequi.testing.clouds import generic_clouds, symmetric_clouds
from pcequi.testing.contract import EquivariantLayerContract
from pcequi.testing.measure import as_points, as_vectors, relative_change
from pcequi.testing.report import CAUSES, EquivarianceReport

__all__ = [
    "CAUSES",
    "EquivarianceReport",
    "EquivariantLayerContract",
    "as_points",
    "as_vectors",
    "assert_equivariant",
    "check_equivariance",
    "generic_clouds",
    "relative_change",
    "symmetric_clouds",
]

"""Principal axes of a cloud whose variances differ."""

import numpy as np
from numba import njit

from pcequi.ops.compiled.flags import REORDER
from pcequi.ops.compiled.matrices import eigen

__all__ = ["plain_axes"]


@njit(cache=True, nogil=True, fastmath=REORDER, forceinline=True)
def plain_axes(pos, center, one_space, axes):
    """Whether all variances around a centre differ by more than a share of the largest; their
    axes, as columns, least first and of any sign, into ``axes``."""
    xx = xy = xz = yy = yz = zz = 0.0
    for i in range(len(pos)):
        x, y, z = pos[i, 0] - center[0], pos[i, 1] - center[1], pos[i, 2] - center[2]
        xx += x * x
        xy += x * y
        xz += x * z
        yy += y * y
        yz += y * z
        zz += z * z
    value, a = np.empty(3), np.empty((3, 3))
    a[0, 0], a[1, 1], a[2, 2] = xx, yy, zz
    a[0, 1] = a[1, 0] = xy
    a[0, 2] = a[2, 0] = xz
    a[1, 2] = a[2, 1] = yz
    eigen(a, value, axes)
    least = one_space * value[2]
    # Squares that underflow know little of the axes, and NaN or infinity is never above; where
    # their sum overflows, ``eigen`` has no limit.
    known = least > np.finfo(np.float64).tiny and xx + yy + zz < np.inf
    return known and value[1] - value[0] > least and value[2] - value[1] > least

"""Colours of points and representatives: plain functions on arrays.

Arguments may be NumPy arrays or tensors; colours are float64 in [0, 1].
Each colour depends on embeddings, ids or distances alone, never on where a
point lies, so equal colours in two clouds mean equal geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcequi.errors import ArgumentError, ShapeError
from pcequi.viz.arrays import finite_array

if TYPE_CHECKING:
    from torch import Tensor

PALE = (0.80, 0.81, 0.83)  # points that a picture is not about
UNLIKE = (0.62, 0.63, 0.65)  # poses of another shape that none of the first is like
MEMBER = (0.96, 0.55, 0.12)
REPRESENTATIVE = (0.07, 0.07, 0.07)
COLORMAP = "viridis"
EVIDENCE_COLORMAP = "coolwarm"

# Shares of the points that the ends of the colour range leave out: a few
# extreme points would otherwise make all others grey.
_RANGE = (0.02, 0.98)
# Skewness below which a component counts as symmetric, and its sign is fixed
# by the generic direction instead.
_SYMMETRIC = 1e-3
_LIGHTNESS = (0.52, 0.66, 0.80)


@dataclass(frozen=True)
class FeatureBasis:
    """An affine map from embeddings to colours, see ``feature_basis``.

    Attributes:
        mean: [D]. axes: [D, 3], orthonormal columns (zero where there is no
            further component). low, high: [3], projections of the range's ends.

    **Equivariance:** as invariant as the embeddings are.
    """

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray


def feature_basis(embedding: np.ndarray | Tensor) -> FeatureBasis:
    """The first three principal components of some embeddings.

    **Sign:** each component points where its third moment (skewness) is
    positive; where the projections are symmetric (skewness under 1e-3), where
    its product with a fixed generic vector is positive.

    Args:
        embedding: [P, D], at least one row.

    Raises:
        DataError: NaN or infinite numbers.
        ShapeError: not a matrix with rows and columns.

    **Equivariance:** as invariant as the embeddings, and to their order, where
    the first four variances differ; components of equal variance are any basis
    of their space.
    """
    rows = _matrix("embedding", embedding)
    mean = rows.mean(0)
    centered = rows - mean
    _, size, directions = np.linalg.svd(centered, full_matrices=False)
    axes = np.zeros((rows.shape[1], 3))
    kept = min(3, int((size > 1e-9 * max(1.0, float(np.abs(rows).max()))).sum()))
    axes[:, :kept] = directions[:kept].T
    generic = np.modf(np.arange(1, len(axes) + 1) * (np.sqrt(5) - 1) / 2)[0] + 0.5
    projected = centered @ axes
    for component in range(kept):
        values = projected[:, component]
        skew = np.mean(values**3) / np.mean(values**2) ** 1.5
        decides = skew if abs(skew) > _SYMMETRIC else generic @ axes[:, component]
        if decides < 0:
            axes[:, component] *= -1
            projected[:, component] *= -1
    low, high = np.quantile(projected, _RANGE, axis=0)
    return FeatureBasis(mean, axes, low, high)


def feature_colors(embedding: np.ndarray | Tensor, basis: FeatureBasis | None = None) -> np.ndarray:
    """Red, green and blue from the first three principal components.

    Args:
        embedding: [N, D].
        basis: of ``feature_basis``; give one basis to several clouds that are
            to be compared. By default that of ``embedding`` itself.

    Returns:
        [N, 3]; similar embeddings have similar colours.

    Raises:
        DataError: NaN or infinite numbers.
        ShapeError: not a matrix, or not of the basis's dimension.

    **Equivariance:** as invariant as the embeddings; rows follow rows.
    """
    rows = _matrix("embedding", embedding)
    basis = feature_basis(rows) if basis is None else basis
    if rows.shape[1] != len(basis.mean):
        raise ShapeError(
            f"`embedding` (={list(rows.shape)}) must have the dimension of `basis` "
            f"(={len(basis.mean)}); make the basis from embeddings of the same level"
        )
    span = basis.high - basis.low
    flat = span <= 0
    value = ((rows - basis.mean) @ basis.axes - basis.low) / np.where(flat, 1, span)
    return 0.08 + 0.84 * np.where(flat, 0.5, value).clip(0, 1)


def representative_palette(embedding: np.ndarray | Tensor) -> np.ndarray:
    """One colour for each representative: like hues for like geometry.

    The hue is the rank along the first principal component of the
    representatives' embeddings (sign as in ``feature_basis``); neighbours in
    rank differ in lightness, so that regions stay apart.

    Args:
        embedding: [M, D], row m that of representative m.

    Returns:
        [M, 3].

    Raises:
        DataError: NaN or infinite numbers.
        ShapeError: not a matrix with rows and columns.

    **Equivariance:** as invariant as the embeddings; colours follow rows.
    """
    rows = _matrix("embedding", embedding)
    basis = feature_basis(rows)
    order = np.argsort((rows - basis.mean) @ basis.axes[:, 0], kind="stable")
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows))
    # Not the whole circle: both ends of the component would look alike.
    hue = np.deg2rad(20 + 310 * rank / max(1, len(rows) - 1))
    lightness = np.asarray(_LIGHTNESS)[rank % len(_LIGHTNESS)]
    return _oklch_to_rgb(lightness, np.full(len(rows), 0.14), hue)


def distance_colors(distance: np.ndarray | Tensor, largest: float | None = None) -> np.ndarray:
    """Embedding distance to the representative, on a perceptually even scale.

    Args:
        distance: [N], not negative.
        largest: distance at the upper end, such as the covering radius of the
            level; by default the largest given.

    Returns:
        [N, 3]; dark for 0, yellow for ``largest`` and more (viridis).

    Raises:
        ArgumentError: ``largest`` is negative.
        DataError: NaN or infinite numbers.

    **Equivariance:** as invariant as the distances; rows follow rows.
    """
    from matplotlib import colormaps

    values = finite_array("distance", distance)
    largest = float(values.max(initial=0.0)) if largest is None else float(largest)
    if largest < 0:
        raise ArgumentError(f"`largest` (={largest}) must not be negative")
    return colormaps[COLORMAP](values / largest if largest > 0 else values * 0)[:, :3]


def evidence_limit(evidence: np.ndarray | Tensor) -> float:
    """End of a symmetric scale for evidence: the 98 % quantile of its size.

    Args:
        evidence: [N].

    Raises:
        DataError: NaN or infinite numbers.

    **Equivariance:** as invariant as the evidence, and to its order.
    """
    size = np.abs(finite_array("evidence", evidence))
    return float(np.quantile(size, _RANGE[1])) if size.size else 0.0


def evidence_colors(evidence: np.ndarray | Tensor, largest: float | None = None) -> np.ndarray:
    """Evidence for a class, on a scale with a neutral middle.

    Args:
        evidence: [N], positive for the class, negative against it.
        largest: evidence at the ends of the scale; by default ``evidence_limit``.

    Returns:
        [N, 3]; blue for ``-largest`` and less, light grey for 0, red for
        ``largest`` and more.

    Raises:
        ArgumentError: ``largest`` is negative.
        DataError: NaN or infinite numbers.

    **Equivariance:** as invariant as the evidence; rows follow rows.
    """
    from matplotlib import colormaps

    values = finite_array("evidence", evidence)
    largest = evidence_limit(values) if largest is None else float(largest)
    if largest < 0:
        raise ArgumentError(f"`largest` (={largest}) must not be negative")
    share = values / largest if largest > 0 else values * 0
    return colormaps[EVIDENCE_COLORMAP](0.5 + 0.5 * share.clip(-1, 1))[:, :3]


def highlight_colors(
    assignment: np.ndarray | Tensor, index: np.ndarray | Tensor, chosen: int
) -> np.ndarray:
    """Points with a pose that one representative stands for, all others pale.

    Args:
        assignment: representative of each pose [N, K].
        index: pose (point * K + rotation) of each representative [M].
        chosen: the representative, in [0, M).

    Returns:
        [N, 3]: orange for a point with such a pose, black for the
        representative's own point.

    Raises:
        ArgumentError: there is no such representative.

    **Equivariance:** as invariant as the assignment; rows follow points.
    """
    assignment, index = np.asarray(assignment), np.asarray(index)
    if not 0 <= chosen < len(index):
        raise ArgumentError(
            f"`highlight` (={chosen}) must be a representative, 0 to {len(index) - 1}"
        )
    colors = np.tile(PALE, (len(assignment), 1))
    colors[(assignment == chosen).any(1)] = MEMBER
    colors[index[chosen] // assignment.shape[1]] = REPRESENTATIVE
    return colors


def _matrix(name: str, value) -> np.ndarray:
    rows = finite_array(name, value)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ShapeError(f"`{name}` (={list(rows.shape)}) must be [rows, dim], neither of them 0")
    return rows


def _oklch_to_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """sRGB of OKLCH colours, cut off at the gamut.

    Source: B. Ottosson, "A perceptual color space for image processing" (2020).
    """
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    roots = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        1,
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (roots**3 @ to_linear.T).clip(0, 1)
    curve = 1.055 * linear.clip(0.0031308, 1) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve)

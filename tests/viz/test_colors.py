"""Colours are functions of embeddings, ids and distances alone."""

import numpy as np
import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.viz import (
    distance_colors,
    evidence_colors,
    feature_basis,
    feature_colors,
    highlight_colors,
    representative_palette,
)
from pcequi.viz.colors import MEMBER, PALE, REPRESENTATIVE


@pytest.fixture
def rows(generator):
    """Embeddings with distinct variances, and no symmetry."""
    spread = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    return torch.randn(50, 5, generator=generator, dtype=torch.float64).exp() * spread


def test_feature_colors_follow_the_order_of_the_points(rows, generator):
    order = torch.randperm(len(rows), generator=generator)
    colors = feature_colors(rows)
    assert colors.shape == (50, 3) and colors.min() >= 0 and colors.max() <= 1
    assert np.ptp(colors, axis=0).min() > 0.5
    np.testing.assert_allclose(feature_colors(rows[order]), colors[order.numpy()], atol=1e-9)


def test_feature_colors_do_not_depend_on_how_the_components_are_computed(rows):
    basis = feature_basis(rows)
    projected = (rows.numpy() - basis.mean) @ basis.axes
    # The stated rule: positive skewness.
    assert ((projected**3).mean(0) > 0).all()
    np.testing.assert_allclose(basis.axes.T @ basis.axes, np.eye(3), atol=1e-12)
    variance = projected.var(0)
    assert variance[0] > variance[1] > variance[2]
    # Mirrored embeddings have mirrored components: the same colours.
    np.testing.assert_allclose(feature_colors(-rows), feature_colors(rows), atol=1e-9)


def test_symmetric_components_have_a_sign_too():
    line = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None] * torch.tensor([[0.6, -0.8]])
    basis = feature_basis(line)
    np.testing.assert_allclose(basis.axes, feature_basis(line.flip(0)).axes, atol=1e-12)
    np.testing.assert_allclose(np.abs(basis.axes[:, 0]), [0.6, 0.8])
    assert (basis.axes[:, 1:] == 0).all()


def test_one_basis_serves_several_clouds(rows):
    basis = feature_basis(rows)
    some = feature_colors(rows[:7], basis)
    np.testing.assert_allclose(some, feature_colors(rows)[:7], atol=1e-12)
    with pytest.raises(ShapeError, match=r"`embedding` \(=\[7, 4\]\) must have the dimension"):
        feature_colors(rows[:7, :4], basis)


def test_equal_embeddings_have_one_colour():
    colors = feature_colors(torch.ones(4, 6))
    assert (colors == colors[0]).all()
    assert representative_palette(torch.ones(1, 6)).shape == (1, 3)


def test_palette_is_of_distinct_colours_that_follow_the_rows(rows, generator):
    palette = representative_palette(rows)
    assert len(np.unique(palette.round(4), axis=0)) == len(rows)
    assert palette.min() >= 0 and palette.max() <= 1
    order = torch.randperm(len(rows), generator=generator)
    np.testing.assert_allclose(representative_palette(rows[order]), palette[order.numpy()])


def test_distance_colors_rise_from_dark_to_bright():
    colors = distance_colors(torch.linspace(0, 2, 20), largest=2.0)
    brightness = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()
    np.testing.assert_array_equal(distance_colors([1.0], 2.0), distance_colors([0.5, 1.0])[:1])
    np.testing.assert_array_equal(distance_colors([3.0], 2.0), colors[-1:])
    assert (distance_colors(torch.zeros(3)) == colors[0]).all()
    with pytest.raises(ArgumentError, match=r"`largest` \(=-1.0\) must not be negative"):
        distance_colors([1.0], -1.0)


def test_evidence_is_red_for_blue_against_and_grey_in_the_middle():
    against, none, for_it = evidence_colors([-1.0, 0.0, 1.0], 1.0)
    assert against[2] > against[0] + 0.3 and for_it[0] > for_it[2] + 0.3
    assert np.ptp(none) < 0.02
    np.testing.assert_array_equal(evidence_colors([-9.0, 9.0], 1.0), [against, for_it])
    # By default the scale is symmetric, and its ends are near the largest size.
    default = evidence_colors([-1.0, 0.5, 0.0])
    assert default[0, 2] > default[0, 0] + 0.3 and default[1, 0] > default[1, 2]
    np.testing.assert_allclose(default[2], none)
    assert (evidence_colors(torch.zeros(3)) == none).all()
    with pytest.raises(ArgumentError, match=r"`largest` \(=-1.0\) must not be negative"):
        evidence_colors([1.0], -1.0)


def test_highlight_shows_members_at_any_rotation():
    assignment = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]])
    index = torch.tensor([4, 1])  # point 2 and point 0
    colors = highlight_colors(assignment, index, 0)
    np.testing.assert_array_equal(colors, [MEMBER, PALE, REPRESENTATIVE, MEMBER])
    with pytest.raises(ArgumentError, match=r"`highlight` \(=2\) must be .* 0 to 1"):
        highlight_colors(assignment, index, 2)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (2, 2, 2)])
def test_embeddings_must_be_a_matrix(shape):
    with pytest.raises(ShapeError, match="`embedding`"):
        feature_basis(torch.zeros(shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_have_no_colour_are_named(rows, bad):
    with pytest.raises(DataError, match=r"`distance` must be finite \(1 of its 3 .* \[1\]"):
        distance_colors([0, bad, 1])
    with pytest.raises(DataError, match="`evidence` must be finite"):
        evidence_colors([0, bad, 1], 1.0)
    rows[2, 1] = bad
    for function in (feature_colors, feature_basis, representative_palette):
        with pytest.raises(DataError, match=r"`embedding` must be finite .* \[2, 1\]"):
            function(rows)


def test_tensors_with_a_gradient_have_colours(rows):
    np.testing.assert_array_equal(feature_colors(rows.requires_grad_()), feature_colors(rows.data))
    values = torch.rand(5, requires_grad=True)
    np.testing.assert_array_equal(distance_colors(values), distance_colors(values.data))

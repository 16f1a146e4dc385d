"""The checker finds what is broken, and passes what is not."""

import math

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.testing import (
    EquivarianceError,
    as_points,
    as_vectors,
    equivariance_error,
    generic_clouds,
    relative_change,
    symmetric_clouds,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clouds():
    return generic_clouds(2, least=20, most=40, generator=seeded())


def radii(pos):
    return (pos - pos.mean(0)).norm(dim=1).sort().values


def test_an_invariant_function_passes(clouds):
    found = equivariance_error(radii, clouds, generator=seeded())
    assert found.worst < 1e-12
    assert len(found.rotation) == len(found.translation) == len(found.permutation) == 8
    assert set(found.summary()) == {
        f"{kind}_{figure}"
        for kind in ("rotation", "translation", "permutation")
        for figure in ("worst", "median")
    }


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda pos: (pos - pos.mean(0)).abs().amax(0), "rotation"),
        (lambda pos: pos.norm(dim=1).sort().values, "translation"),
        (lambda pos: (pos - pos.mean(0)).norm(dim=1), "permutation"),
    ],
)
def test_a_failure_names_its_kind(clouds, function, kind):
    found = equivariance_error(function, clouds, generator=seeded())
    for name, values in vars(found).items():
        assert (max(values) > 1e-3) == (name == kind), name


def test_outputs_that_move_are_followed(clouds):
    def farthest(pos):
        return pos[(pos - pos.mean(0)).norm(dim=1).argmax()]

    assert equivariance_error(farthest, clouds, action=as_points).worst < 1e-12
    assert equivariance_error(lambda p: p[:1] * 2, clouds, action=as_points).worst > 0.1
    offsets = equivariance_error(
        lambda p: p - p.mean(0), clouds, action=as_vectors, per_point=True, generator=seeded()
    )
    assert offsets.worst < 1e-12


def test_parts_can_be_left_out(clouds):
    found = equivariance_error(lambda p: p.norm(dim=1), clouds[0], shift=0, permute=False, num=2)
    assert found.worst < 1e-12
    assert len(found.rotation) == 2 and found.translation == found.permutation == ()


def test_the_motions_follow_the_generator(clouds):
    def broken(pos):
        return pos.abs().sum(0)

    one, other = (equivariance_error(broken, clouds, generator=seeded(5)) for _ in range(2))
    assert one == other


def test_a_relative_change_is_one_of_differences():
    before = torch.tensor([101.0, 99.0])
    assert relative_change(before, before) == 0
    assert relative_change(before, torch.tensor([101.0, 101.0])) == pytest.approx(2 / math.sqrt(2))
    assert relative_change(torch.ones(2), torch.tensor([1.0, 2.0])) == math.inf
    assert math.isnan(relative_change(before, before * math.nan))
    with pytest.raises(ShapeError, match=r"`after` \(=\[3\]\)"):
        relative_change(before, torch.ones(3))


def test_nan_is_the_worst(clouds):
    found = equivariance_error(lambda p: p.sum(0) * math.nan, clouds[0], num=1)
    assert found.worst == math.inf


def test_wrong_arguments_are_named(clouds):
    with pytest.raises(ArgumentError, match=r"`num` \(=0\)"):
        equivariance_error(radii, clouds, num=0)
    with pytest.raises(ArgumentError, match=r"`shift` \(=-1\)"):
        equivariance_error(radii, clouds, shift=-1)
    with pytest.raises(DataError, match="empty"):
        equivariance_error(radii, torch.zeros(0, 3))
    with pytest.raises(ArgumentError, match=r"`least` \(=9\)"):
        generic_clouds(1, least=9, most=5)


def test_generic_clouds_are_normalised():
    made = generic_clouds(6, least=1, most=50, generator=seeded(1))
    for cloud in made:
        assert cloud.dtype == torch.float64 and 1 <= len(cloud) <= 50
        assert cloud.mean(0).abs().max() < 1e-12
        assert len(cloud) == 1 or float(cloud.norm(dim=1).max()) == pytest.approx(1)


def test_symmetric_clouds_are_symmetric():
    shapes = symmetric_clouds()
    assert {name: len(cloud) for name, cloud in shapes.items()} == {
        "cube": 386, "grid": 125, "sphere": 512,
    }  # fmt: skip
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    for name in ("cube", "grid"):
        distance = torch.cdist(shapes[name] @ quarter.T, shapes[name]).amin(1)
        assert distance.max() < 1e-6


def test_nan_is_no_small_change_in_a_summary():
    found = EquivarianceError((1e-9, 1.2e-9, math.nan, 8e-10), (0.0,), ())
    assert found.worst == found.summary()["rotation_worst"] == math.inf
    assert found.summary()["translation_worst"] == 0


def test_nothing_cannot_be_measured():
    with pytest.raises(ArgumentError, match=r"`pos` \(=\[\]\) must be at least one cloud"):
        equivariance_error(lambda pos: pos.norm(), [])

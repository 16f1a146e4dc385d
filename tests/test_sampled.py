"""Sampling by kernels with NumPy between them, against the same in torch."""

import pytest
import torch

from pcequi import sampling
from pcequi.errors import DataError
from pcequi.ops import HAS_NUMBA
from pcequi.orbits import basis_turns, group_products
from pcequi.rotations import finite_group
from pcequi.sampling import FeatureSampler

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
F64 = torch.float64
# Orbits of one pose, of half turns, of a group with other turns and of one that does not commute.
GROUPS = ["C1", "D2", "C4", "O"]
CLOUDS = ["random", "lattice", "copies", "few"]
SETTINGS = [
    {},
    {"refine": 2},
    {"blend": 6},
    {"refine": 1, "blend": 3, "seeds": True},
    {"refine": 2, "center": "mean"},
    {"refine": 2, "blend": 6, "center": "mean", "seeds": True},
]


def embeddings(cloud: str, group: torch.Tensor, generator, closed: bool = True) -> torch.Tensor:
    """Rows [N * K, 15] of all poses of N points; with ``closed`` the group permutes them."""
    size = 20 if cloud == "few" else 60
    base = torch.rand(size, 15, dtype=F64, generator=generator)
    if cloud == "lattice":
        base = (base * 2).round()
    if cloud == "copies":
        base = base[torch.randint(9, (size,), generator=generator)]
    if not closed:
        return torch.rand(size * len(group), 15, dtype=F64, generator=generator)
    return base[:, basis_turns(group, 15)].flatten(0, 1)


def both_ways(sampler, x, monkeypatch, **more):
    fused = sampler(x, **more)
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "has_kernels", lambda *_: False)
        return fused, sampler(x, **more)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("name", GROUPS)
def test_it_is_the_steps_one_after_the_other(name, cloud, settings, generator, monkeypatch):
    group = finite_group(name, dtype=F64)
    x = embeddings(cloud, group, generator)
    settings = dict(settings)
    seeds = torch.arange(40 * len(group)) if settings.pop("seeds", False) else None
    seeds = seeds[: len(x) // 2] if seeds is not None else None
    more = {"num_rotations": len(group), "products": group_products(group), "closed": True}
    sampler = FeatureSampler(num=12 * len(group), orbits=len(group) > 1, **settings)
    assert_same(*both_ways(sampler, x, monkeypatch, seed_rows=seeds, strict=False, **more))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_is_so_where_a_group_does_not_permute(settings, generator, monkeypatch):
    group = finite_group("C4", dtype=F64)
    x = embeddings("random", group, generator, closed=False)
    settings = dict(settings)
    seeds = torch.arange(40 * len(group)) if settings.pop("seeds", False) else None
    more = {"num_rotations": len(group), "products": group_products(group), "closed": False}
    sampler = FeatureSampler(num=40, orbits=True, **settings)
    assert_same(*both_ways(sampler, x, monkeypatch, seed_rows=seeds, **more))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_in_single_precision(settings, generator, monkeypatch):
    x = torch.rand(200, 9, generator=generator)
    settings = dict(settings)
    seeds = torch.arange(100) if settings.pop("seeds", False) else None
    sampler = FeatureSampler(num=16, **settings)
    found = both_ways(sampler, x, monkeypatch, seed_rows=seeds)
    assert found[0].share.dtype == found[0].distance.dtype == torch.float32
    assert_same(*found)


def assert_same(fused, steps):
    for name in ("index", "assignment", "batch", "shared"):
        assert torch.equal(getattr(fused, name), getattr(steps, name)), name
    for name in ("distance", "multiplicity", "covering_radius", "share"):
        torch.testing.assert_close(getattr(fused, name), getattr(steps, name))


def test_numbers_too_large_for_squares_are_refused():
    with pytest.raises(DataError, match="`x` .* too large for squares of distances"):
        FeatureSampler(num=2, refine=1)(torch.tensor([[1e160], [2.0], [3.0]], dtype=F64))


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=str)
def test_nothing_that_is_given_is_written_to(settings, generator):
    x = torch.rand(100, 4, dtype=F64, generator=generator)
    before = x.clone()
    FeatureSampler(num=8, **settings)(x)
    assert torch.equal(x, before)

"""Sampling by kernels with NumPy between them, against the same in torch."""

import pytest
import torch

from pcequi import sampling
from pcequi.errors import DataError, ShapeError
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


# The last ones of each type have squares that can be held, but not four times these.
@pytest.mark.parametrize(
    ("dtype", "size"), [(F64, 1e160), (F64, 8e153), (torch.float32, 1e30), (torch.float32, 1.2e19)]
)
def test_numbers_too_large_for_squares_are_refused(dtype, size):
    with pytest.raises(DataError, match="`x` .* too large for squares of distances"):
        FeatureSampler(num=2, refine=1)(torch.tensor([[size], [2.0], [3.0]], dtype=dtype))


@pytest.mark.parametrize("name", ["C1", "D2"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_nothing_that_is_given_is_written_to(settings, name, generator):
    group = finite_group(name, dtype=F64)
    settings = dict(settings)
    given = [embeddings("random", group, generator), group_products(group)]
    if settings.pop("seeds", False):
        given.append(torch.arange(30 * len(group)))
    before = [part.clone() for part in given]
    more = {"num_rotations": len(group), "closed": True}
    sampler = FeatureSampler(num=8, orbits=len(group) > 1, **settings)
    sampler(given[0], products=given[1], seed_rows=(*given[2:], None)[0], **more)
    assert all(map(torch.equal, given, before))


def test_a_table_of_another_group_is_refused(generator):
    group = finite_group("D2", dtype=F64)
    x, products = embeddings("random", group, generator), group_products(group)[:2]
    with pytest.raises(ShapeError, match=r"`products` \(=\[2, 4\]\) must be \[K, K\]"):
        FeatureSampler(num=8, orbits=True)(x, num_rotations=4, products=products, closed=True)

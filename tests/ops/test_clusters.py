"""Nearest centres, means and medoids, in torch and compiled."""

import pytest
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.ops import (
    HAS_NUMBA,
    blend_centers,
    cluster_means,
    clusters,
    farthest_point_sampling,
    least_members,
    nearest_center,
)
from pcequi.ops.fps import TIE

F64 = torch.float64


@pytest.fixture(params=("numba", "torch"))
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(clusters, "HAS_NUMBA", False)
    elif not clusters.HAS_NUMBA:
        pytest.skip("numba is not installed")


def test_nearest_center_is_the_nearest_and_the_first_of_equals(monkeypatch, generator):
    x = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    center = torch.cat([x[:7], x[:3]])  # the last three tie with the first three
    results = []
    for numba in (clusters.HAS_NUMBA, False):
        monkeypatch.setattr(clusters, "HAS_NUMBA", numba)
        assignment, distance = nearest_center(x, center)
        torch.testing.assert_close(
            distance,
            torch.cdist(x, center, compute_mode="donot_use_mm_for_euclid_dist").min(1).values,
            atol=1e-7,
            rtol=0,
        )
        assert assignment.max() < 7
        results.append(assignment)
    assert torch.equal(*results)


@pytest.mark.parametrize("num", [1, 3, 16, 17, 40, 70])
@pytest.mark.parametrize("dim", [1, 4, 7])
def test_nearest_center_for_any_number_of_centers(num, dim, backend, generator):
    x = torch.randn(60, dim, dtype=F64, generator=generator)
    center = torch.randn(num, dim, dtype=F64, generator=generator)
    assignment, distance = nearest_center(x, center)
    distances = torch.cdist(x, center, compute_mode="donot_use_mm_for_euclid_dist")
    found = distances.gather(1, assignment[:, None])[:, 0]
    torch.testing.assert_close(distance, found)
    # The nearest, or the first that is as near to a share of the squares of the norms.
    shift = center.mean(0)
    scale = sum((rows - shift).square().sum(1).max() for rows in (x, center))
    limit = (distances.min(1).values.square() + 2 * TIE * scale).sqrt()
    assert (found <= limit * (1 + 1e-9)).all()
    assert ((distances <= limit[:, None] * (1 - 1e-9)).int().argmax(1) >= assignment).all()


def test_means_and_members_of_clusters(backend, generator):
    x = torch.randn(40, 3, dtype=F64, generator=generator)
    assignment = torch.randint(0, 5, (40,), generator=generator)
    assignment[assignment == 2] = 4  # nobody is in cluster 2
    center = torch.randn(6, 3, dtype=F64, generator=generator)
    mean = cluster_means(x, assignment, center)
    first = torch.randint(0, 3, (40,), generator=generator).double()  # with ties
    second = torch.randint(0, 2, (40,), generator=generator).double()
    index = torch.arange(6) + 30
    found = least_members(assignment, first, second, index)
    for cluster in range(6):
        rows = (assignment == cluster).nonzero()[:, 0].tolist()
        if not rows:
            assert torch.equal(mean[cluster], center[cluster]) and found[cluster] == index[cluster]
            continue
        torch.testing.assert_close(mean[cluster], x[rows].mean(0))
        assert found[cluster] == min(rows, key=lambda r: (first[r], second[r], r))


@pytest.mark.parametrize("scale", [1e-60, 1e-30, 1e-16, 1e16, 1e60])
def test_scale_changes_no_choice(backend, scale, generator):
    x = torch.randn(60, 5, dtype=torch.float64, generator=generator)
    center = x[:7]
    assignment, distance = nearest_center(x, center)
    found, far = nearest_center(x * scale, center * scale)
    assert torch.equal(found, assignment)
    torch.testing.assert_close(far / scale, distance)
    blended = blend_centers(x, center, 3)
    for one, other in zip(blend_centers(x * scale, center * scale, 3)[2:], blended[2:]):
        torch.testing.assert_close(one, other)


def test_what_no_number_compares_stays_inside(backend):
    x = torch.full((6, 3), torch.nan)
    assignment, _ = nearest_center(x, x[:2])
    assert ((assignment >= 0) & (assignment < 2)).all()
    if HAS_NUMBA:  # torch's factorisation refuses such a system
        assignment, _, index, weight = blend_centers(x, x[:3], 2)
        assert ((index >= 0) & (index < 3)).all() and torch.equal(weight.sum(1), torch.ones(6))


def test_rounding_of_rows_that_agree_decides_nothing(backend, generator):
    row = torch.rand(20, dtype=torch.float64, generator=generator)
    noise = 1e-15 * torch.randn(2, 50, 20, dtype=torch.float64, generator=generator)
    first, second = (
        (*nearest_center(row + n, row + n[:5]), *farthest_point_sampling(row + n, 4)[:2])
        for n in noise
    )
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_rows_in_16_bits_are_refused_by_name():
    x = torch.zeros(4, 2, dtype=torch.float16)
    for function in (nearest_center, lambda a, b: blend_centers(a, b, 2)):
        with pytest.raises(ShapeError, match=r"`x` .*float16.* must be .* float32 or float64"):
            function(x, x[:2])


@pytest.mark.parametrize("columns, centers", [(3, 2), (5, 2), (4, 0)])
def test_centers_of_other_columns_are_refused(backend, generator, columns, centers):
    x = torch.randn(20, 4, dtype=F64, generator=generator)
    center = torch.randn(centers, columns, dtype=F64, generator=generator)
    every = torch.zeros(20, dtype=torch.long)
    for function in (
        nearest_center,
        lambda x, center: blend_centers(x, center, 2),
        lambda x, center: cluster_means(x, every, center),
    ):
        with pytest.raises(ShapeError, match=r"`center` .* must be .* columns of `x` \(=4\)"):
            function(x, center)


@pytest.mark.parametrize("num", [0, -1, 1.5])
def test_a_number_of_blended_centers_below_one_is_refused(num):
    with pytest.raises(ArgumentError, match="`num` .* at least 1"):
        blend_centers(torch.rand(5, 2), torch.rand(3, 2), num)


@pytest.mark.parametrize("cluster", [-1, 2, 10**9])
def test_clusters_that_are_not_there_are_refused(backend, cluster):
    assignment, x = torch.tensor([0, cluster, 1]), torch.rand(3, 2)
    with pytest.raises(ArgumentError, match=r"`assignment` .* must name clusters in \[0, 2\)"):
        cluster_means(x, assignment, x[:2])
    with pytest.raises(ArgumentError, match=r"`assignment` .* must name clusters in \[0, 2\)"):
        least_members(assignment, x[:, 0], x[:, 1], torch.tensor([0, 1]))


def test_clusters_of_other_rows_are_refused(backend):
    assignment, x = torch.zeros(4, dtype=torch.long), torch.rand(3, 2)
    with pytest.raises(ShapeError, match=r"`assignment` \(=\[4\], .* \[3\]"):
        cluster_means(x, assignment, x[:2])
    with pytest.raises(ShapeError, match="`second` .* one a row of `assignment`"):
        least_members(assignment, torch.rand(4), torch.rand(3), torch.tensor([0, 1]))

"""Sampling of representatives: budgets, consistency, batches, baselines, errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pcequi import sampling
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.ops import cluster_means
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import (
    CentroidPoses,
    GridPoses,
    NormalPoses,
    PairPoses,
    TangentPoses,
    sampler_to_dict,
)
from pcequi.sampling import FeatureSampler, sampling_key

VARIANTS = [
    FeatureSampler(num=9),
    FeatureSampler(num=9, refine=2),
    FeatureSampler(num=9, refine=2, center="mean"),
    FeatureSampler(ratio=0.3),
    FeatureSampler(tolerance=1.5),
    FeatureSampler(num=9, method="random"),
    FeatureSampler(num=9, method="random", refine=1),
    FeatureSampler(num=8, method="spatial"),
    FeatureSampler(num=9, blend=4),
    FeatureSampler(num=9, refine=2, blend=6),
    FeatureSampler(num=9, refine=2, blend=6, center="mean"),
    FeatureSampler(num=9, method="random", blend=3),
    FeatureSampler(tolerance=1.5, blend=2),
    FeatureSampler(),
]


def sample(sampler, x, seed=0, **more):
    more.setdefault("num_rotations", 2)
    more.setdefault("pos", x[::2, :3].repeat_interleave(2, 0))
    return sampler(x, generator=torch.Generator().manual_seed(seed), **more)


@pytest.fixture
def rows(generator):
    return torch.randn(40, 5, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("sampler", VARIANTS, ids=str)
def test_the_parts_of_a_choice_fit_each_other(sampler, rows):
    chosen = sample(sampler, rows)
    assert len(chosen.index.unique()) == chosen.num
    assert torch.equal(chosen.assignment[chosen.index], torch.arange(chosen.num))
    assert chosen.multiplicity.min() >= 1 and chosen.shared.shape == (40, sampler.blend)
    share = torch.zeros(40, chosen.num, dtype=torch.float64)
    share.scatter_add_(1, chosen.shared, chosen.share)
    assert (share >= 0).all() and torch.equal(share[chosen.index], torch.eye(chosen.num).double())
    torch.testing.assert_close(share.sum(1), torch.ones(40).double())
    torch.testing.assert_close(chosen.multiplicity, share.sum(0))
    x = torch.randn(chosen.num, 3, dtype=torch.float64)
    torch.testing.assert_close(chosen.spread(x), share @ x)
    if sampler.blend == 1:
        assert torch.equal(chosen.shared[:, 0], chosen.assignment)
    assert chosen.covering_radius.item() == chosen.distance.max().item()
    means = sampler.center == "mean" and sampler.blend == 1
    if sampler.method != "spatial" and not means:
        apart = torch.cdist(rows, rows[chosen.index], compute_mode="donot_use_mm_for_euclid_dist")
        torch.testing.assert_close(chosen.distance, apart.min(1).values, atol=1e-7, rtol=0)
    own = rows[chosen.index[chosen.assignment]]
    if means:
        means = [rows[chosen.assignment == m].mean(0) for m in range(chosen.num)]
        own = torch.stack(means)[chosen.assignment]
    torch.testing.assert_close(chosen.distance, (rows - own).norm(dim=1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("sampler", VARIANTS, ids=str)
def test_the_same_generator_gives_the_same(sampler, rows):
    first, second = sample(sampler, rows), sample(sampler, rows)
    assert torch.equal(first.index, second.index)
    assert torch.equal(first.assignment, second.assignment)


def test_random_follows_its_generator_and_no_other(rows):
    sampler = FeatureSampler(num=9, method="random")
    first = sample(sampler, rows).index
    torch.manual_seed(123)
    assert torch.equal(first, sample(sampler, rows).index)
    assert not torch.equal(first, sample(sampler, rows, seed=1).index)


@pytest.mark.parametrize("sampler", [v for v in VARIANTS if v.method == "fps"], ids=str)
def test_a_cloud_in_a_batch_is_sampled_as_alone(sampler, rows, generator):
    sizes = [1, 40, 6]
    parts = [torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in sizes]
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    together = sampler(torch.cat(parts), batch, strict=False)
    first = start = 0
    for cloud, part in enumerate(parts):
        alone = sampler(part, strict=False)
        mine = together.batch == cloud
        assert torch.equal(together.index[mine] - start, alone.index)
        assert torch.equal(together.assignment[batch == cloud] - first, alone.assignment)
        assert torch.equal(together.multiplicity[mine], alone.multiplicity)
        assert torch.equal(together.shared[batch == cloud] - first, alone.shared)
        assert torch.equal(together.share[batch == cloud], alone.share)
        assert together.covering_radius[cloud] == alone.covering_radius[0]
        first, start = first + alone.num, start + len(part)


def test_budgets(rows):
    assert sample(FeatureSampler(num=7), rows).num == 7
    assert sample(FeatureSampler(num=99), rows, strict=False).num == 40
    assert sample(FeatureSampler(ratio=0.25), rows).num == 10
    assert sample(FeatureSampler(ratio=1e-9), rows).num == 1
    assert sample(FeatureSampler(), rows).num == 40
    few = sample(FeatureSampler(tolerance=2.0), rows)
    many = sample(FeatureSampler(tolerance=1.0), rows)
    assert 1 <= few.num < many.num < 40
    assert few.covering_radius <= 2.0 and many.covering_radius <= 1.0
    assert sample(FeatureSampler(tolerance=1.0, num=5), rows).num == 5


@pytest.mark.parametrize(
    "more", [{"refine": 3}, {"refine": 3, "blend": 3}, {"num": 150, "seeds": 90, "refine": 1}]
)
def test_a_tolerance_holds_whatever_is_done_after_the_picks(more, generator, monkeypatch):
    rows = torch.rand(300, 2, dtype=torch.float64, generator=generator)
    sampler = FeatureSampler(tolerance=0.1, **more)
    seeds = torch.arange(180) if "seeds" in more else None
    chosen = sample(sampler, rows, pos=None, seed_rows=seeds)
    assert chosen.covering_radius <= 0.1 and chosen.num < 100
    assert len(chosen.index.unique()) == chosen.num
    fewer = replace(sampler, num=chosen.num - 1)
    assert sample(fewer, rows, pos=None, seed_rows=seeds).num <= chosen.num - 1
    monkeypatch.setattr(sampling, "covering", lambda turned, index, *rest: index)
    assert sample(sampler, rows, pos=None, seed_rows=seeds).covering_radius > 0.1, (
        "or it shows nothing"
    )


def test_error_falls_with_the_budget_and_with_refinement(rows):
    radii = [sample(FeatureSampler(num=n), rows).covering_radius.item() for n in (2, 8, 20, 40)]
    assert radii == sorted(radii, reverse=True) and radii[-1] == 0
    plain = sample(FeatureSampler(num=8), rows).distance.square().mean()
    medoid = sample(FeatureSampler(num=8, refine=4), rows).distance.square().mean()
    mean = sample(FeatureSampler(num=8, refine=4, center="mean"), rows).distance.square().mean()
    assert mean < medoid < plain


def test_spatial_keeps_all_rotations_of_the_points_it_keeps(rows):
    chosen = sample(FeatureSampler(num=10, method="spatial"), rows)
    assert torch.equal(chosen.index[::2] + 1, chosen.index[1::2])
    assert torch.equal(chosen.index[chosen.assignment] % 2, torch.arange(40) % 2)
    pos = rows[::2, :3]
    nearest = torch.cdist(pos, pos[chosen.index[::2] // 2]).argmin(1)
    assert torch.equal(chosen.assignment[::2] // 2, nearest)


def test_seeds_limit_where_representatives_come_from(rows):
    seeds = torch.arange(0, 40, 2)
    chosen = sample(FeatureSampler(num=6, refine=1), rows, seed_rows=seeds)
    assert (chosen.index % 2 == 0).all() and len(chosen.assignment) == 40
    alone = sample(FeatureSampler(num=6, refine=1), rows[seeds], pos=rows[seeds, :3])
    assert torch.equal(chosen.index, seeds[alone.index])


@pytest.mark.parametrize("refine", [0, 2])
def test_copies_are_told_apart_by_nobody(refine, generator):
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator).repeat(4, 1)
    chosen = FeatureSampler(num=12, refine=refine)(x)
    assert chosen.num == 12 and len(chosen.index.unique()) == 12
    assert chosen.covering_radius < 1e-7
    places = FeatureSampler(num=5, refine=refine)(x).index % 5
    assert len(places.unique()) == 5


def test_key_is_linear_and_tells_mirror_images_apart(rows):
    key = sampling_key(rows)
    torch.testing.assert_close(sampling_key(2 * rows), 2 * key)
    mirrored = rows.flip(1)
    assert ((sampling_key(mirrored) - key).abs() > 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "best"}, r"`method` \(='best'\) must be one of"),
        ({"center": "top"}, r"`center` \(='top'\) must be one of"),
        ({"num": 0}, r"`num` \(=0\) must be a whole number, at least 1"),
        ({"ratio": 0.0}, r"`ratio` \(=0.0\) must be in \(0, 1\]"),
        ({"ratio": 1.5}, r"`ratio` \(=1.5\)"),
        ({"tolerance": -1.0}, r"`tolerance` \(=-1.0\) must be positive"),
        ({"num": 3, "ratio": 0.5}, r"`num` \(=3\) and `ratio` \(=0.5\) are two budgets"),
        ({"tolerance": 0.1, "center": "mean"}, r"`tolerance` \(=0.1\) bounds.*'medoid'"),
        ({"tolerance": 0.1, "method": "random"}, r"`tolerance` \(=0.1\) needs `method` 'fps'"),
        ({"refine": -1}, r"`refine` \(=-1\) must be a whole number, at least 0"),
        ({"blend": 0}, r"`blend` \(=0\) must be a whole number, at least 1"),
        ({"blend": 16}, r"`blend` \(=16\) must be between 1 and 15"),
        ({"blend": 2, "method": "spatial"}, r"`blend` \(=2\) must be 1 with `method` 'spatial'"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        FeatureSampler(**arguments)


def test_unusable_input_is_refused(rows):
    sampler = FeatureSampler(num=50)
    with pytest.raises(ArgumentError, match=r"`num` \(=50\) must be at most .* \(=40\) of cloud 0"):
        sampler(rows)
    with pytest.raises(ShapeError, match=r"`embedding` \(=\[5\]\)"):
        sampler(torch.zeros(5))
    with pytest.raises(ShapeError, match="must be floating"):
        sampler(torch.zeros(5, 2, dtype=torch.long))
    with pytest.raises(DataError, match="has no pose"):
        sampler(torch.zeros(0, 3))
    with pytest.raises(DataError, match="NaN or infinite"):
        sampler(torch.full((3, 3), torch.nan))
    with pytest.raises(ShapeError, match=r"`batch` \(=\[3\], .* \[poses\] \(=40\)"):
        sampler(rows, torch.zeros(3, dtype=torch.long))
    with pytest.raises(DataError, match="`batch` is not sorted from 0 on; sort the poses by"):
        sampler(rows, torch.arange(40).flip(0))
    with pytest.raises(DataError, match="`batch` skips cloud 1"):
        sampler(rows, 2 * (torch.arange(40) // 20))
    with pytest.raises(DataError, match="`batch` is not sorted from 0 on"):
        sampler(rows, torch.full((40,), -1))
    for kind in (torch.float32, torch.bool):
        with pytest.raises(ShapeError, match="`batch` .* must be whole numbers"):
            sampler(rows, torch.zeros(40, dtype=kind))
    with pytest.raises(ArgumentError, match=r"`pos` \(=None\) is needed by `method` 'spatial'"):
        FeatureSampler(num=3, method="spatial")(rows)


def test_places_of_other_poses_are_refused(generator):
    rows = torch.randn(40, 3, generator=generator)
    sampler = FeatureSampler(num=4, method="spatial")
    for pos in (torch.zeros(50, 3), torch.zeros(20, 3), torch.zeros(40, 2)):
        with pytest.raises(ShapeError, match=r"`pos` .* must be \[poses, 3\] \(=\[40, 3\]\)"):
            sampler(rows, pos=pos)
    with pytest.raises(ShapeError, match=r"40 poses .* `num_rotations` \(=3\) rows for each"):
        sampler(rows, pos=rows, num_rotations=3)
    with pytest.raises(ArgumentError, match=r"`num_rotations` \(=0\) must be a whole number"):
        sampler(rows, pos=rows, num_rotations=0)


@pytest.mark.parametrize("name", ["num", "seeds", "refine", "blend"])
def test_counts_are_whole_numbers(name):
    for value in (3.5, True, "8"):
        with pytest.raises(ArgumentError, match=f"`{name}` .* must be a whole number"):
            FeatureSampler(**{"num": 8, name: value})


@pytest.mark.parametrize("sampler", [TangentPoses(8), GridPoses("I")], ids=["C8", "I"])
@pytest.mark.parametrize("refine", [0, 2])
def test_the_distance_of_each_pose_is_its_own_where_a_group_does_not_permute(
    make_blob, sampler, refine
):
    # These groups do not permute the kernel's points: poses of one point are at different
    # distances from those of another, and none of them may be farther than the tolerance.
    level = Level(0.9, sampler, FeatureSampler(tolerance=0.25, orbits=True, refine=refine))
    _, (found,) = build_pose_graph(make_blob(40), [level], embeddings=True)
    x, chosen = found.embedding.flatten(0, 1), found.chosen
    own = (x - x[chosen.index[chosen.assignment]]).norm(dim=1)
    torch.testing.assert_close(chosen.distance, own, rtol=0, atol=1e-12)
    assert own.max() <= 0.25 and chosen.num < len(x)


def test_spatial_sampling_measures_to_the_means_that_stand_for_clusters(generator):
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    pos = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    found = FeatureSampler(num=6, method="spatial", center="mean")(x, pos=pos)
    center = cluster_means(x, found.assignment, x[found.index])
    wanted = (x - center[found.assignment]).norm(dim=1)
    torch.testing.assert_close(found.distance, wanted)


def test_numbers_of_numpy_become_json():
    sampler = FeatureSampler(ratio=np.float32(0.5))
    poses = TangentPoses(np.int64(4), np.int32(12))
    level = Level(np.float32(0.25), poses, sampler, kernel_points=np.int64(15))
    again = Level.from_dict(json.loads(json.dumps(level.to_dict())))
    assert again == level
    for poses in (
        PairPoses(np.int64(2)),
        GridPoses(np.int64(24)),
        NormalPoses(np.float32(0.2)),
        CentroidPoses(np.int64(8)),
    ):
        json.dumps(sampler_to_dict(poses))
    pairs = Level(0.25, NormalPoses(), sampler, pairs=tuple(np.array([3, 3, 3, 1])))
    json.dumps(pairs.to_dict())
    for wrong in (0, 1.5, True, "8"):
        with pytest.raises(ArgumentError, match=r"`num_rotations` .* must be a whole number"):
            TangentPoses(wrong)

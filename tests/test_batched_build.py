"""Graphs of many clouds at once: the same as those of each, for whatever clouds."""

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch

from pcequi.datasets.meshes import sample_mesh
from pcequi.datasets.shapes import make_shape
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.models.presets import preset
from pcequi.ops.blending import blend_centers
from pcequi.ops.clusters import nearest_center
from pcequi.ops.fps import farthest_point_sampling
from pcequi.pose_graph import TENSORS, Level, PoseGraph, build_pose_graph, build_pose_graphs
from pcequi.pose_graph.batched import build, canonical, clusters, eigen, levels_covered, near, picks
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.testing import generic_clouds
from pcequi.training.resample import resample


def grids(rotations="D2", align="manhattan", last=None, **sampling):
    """Three levels with frames that all points of a cloud share."""
    sampler = FeatureSampler(**{"num": 24, "refine": 2, "seeds": 30, **sampling})
    last = CentroidPoses(rotations, align) if last is None else last
    poses = GridPoses(rotations, align)
    return [
        Level(0.5, poses, sampler, num_points=40, kernel_points=15),
        Level(0.8, poses, sampler, num_points=24, kernel_points=7),
        Level(1.5, last, kernel_points=33),
    ]


def pairs():
    """Two levels with kernels on pairs of normals."""
    sampler = FeatureSampler(num=16, refine=1, seeds=30)
    return [
        Level(0.5, NormalPoses(0.5), sampler, num_points=40, pairs=(2, 2, 3, 2)),
        Level(0.9, NormalPoses(0.5), replace(sampler, num=8), num_points=20, pairs=(3, 3, 3, 1)),
    ]


COVERED = {
    "orbits": grids(orbits=True, blend=6),
    "orbits, nearest": grids(orbits=True),
    "orbits, no refinement": grids(orbits=True, refine=0, seeds=None),
    "fitted": grids(orbits=True, blend=6, center="mean"),
    "fitted, nearest": grids(orbits=True, center="mean"),
    "free": grids(),
    "free, blended": grids(blend=3, seeds=None),
    "principal": grids(align="principal", orbits=True, blend=2),
    "C4": grids("C4", orbits=True, blend=6),
    "octahedral": grids("O", "principal", num=100),
    "fewer than an orbit": grids(orbits=True, num=3, blend=4),
    "almost every point": grids(orbits=True, num=92, blend=6, seeds=None),
    "pairs": pairs(),
    "one level": grids(orbits=True)[:1],
}
LEFT_OUT = {
    "dense": [level.with_budget() for level in grids()],
    "tolerance": grids(tolerance=0.3),
    "ratio": grids(num=None, ratio=0.2),
    "mean": grids(center="mean"),
    "mean of axes": [
        replace(level, sampling=replace(level.sampling, center="mean", orbits=True))
        for level in pairs()
    ],
    "mean of rings": grids("C4", orbits=True, blend=6, center="mean"),
    "random": grids(method="spatial", refine=0),
    "all points": [replace(grids()[0], num_points=None)],
    "anchors": [grids()[0], replace(grids()[1], kernel_rotations=4)],
    "normals": [replace(grids()[0], normals=True)],
    "fixed in the world": grids("O", "none"),
    "a grid without a name": grids(7, "principal"),
    "groups that do not commute": grids("O", "principal", orbits=True),
    "orbits of rings": grids("C8", "principal", orbits=True),
    "two alignments": grids(last=CentroidPoses("D2", "principal")),
    "tangents": grids()[:0] + [Level(0.5, TangentPoses(4), FeatureSampler(num=8), num_points=20)],
    "mixed": [*pairs(), Level(1.5, CentroidPoses("O"))],
}


def clouds_of(generator, num=5, least=50, most=90):
    return generic_clouds(num, least=least, most=most, generator=generator)


def one_by_one(clouds, levels):
    return PoseGraph.batch([build_pose_graph(cloud, levels) for cloud in clouds])


def dense(level):
    """A as a dense matrix, columns counted within each cloud."""
    row = torch.repeat_interleave(torch.arange(len(level.entries)), level.entries.long())
    matrix = level.val.new_zeros(len(level.entries), int(level.col.max()) + 1)
    return matrix.index_put_((row, level.col), level.val)


def check_same(found, wanted, atol=1e-9, names=TENSORS, entries=True):
    assert len(found.levels) == len(wanted.levels)
    for one, other in zip(found.levels, wanted.levels):
        assert one.basis == other.basis
        for name in names:
            value, expected = getattr(one, name), getattr(other, name)
            if expected is None or (name in ("entries", "col", "val") and not entries):
                assert (value is None) == (expected is None)
                continue
            assert value.dtype == expected.dtype and value.shape == expected.shape, name
            torch.testing.assert_close(value, expected, rtol=0, atol=atol, msg=name)
        if one.val is not None:
            torch.testing.assert_close(dense(one), dense(other), rtol=0, atol=atol)


@pytest.mark.parametrize("name", COVERED)
def test_a_batch_equals_its_clouds_one_by_one(name, generator, monkeypatch):
    levels, clouds = COVERED[name], clouds_of(generator)
    wanted = one_by_one(clouds, levels)
    monkeypatch.setattr(build, "build_pose_graph", None)  # nothing may fall back
    # Points with fewer than three neighbours have normals that are perpendicular to an
    # offset but for rounding, which decides whether their pairs leave an entry of 1e-17.
    # Means of rows have their columns in another order.
    entries = name not in ("pairs", "fitted, nearest")
    check_same(build_pose_graphs(clouds, levels), wanted, entries=entries)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_other_settings_are_built_one_by_one(name, generator):
    levels, clouds = LEFT_OUT[name], clouds_of(generator, 2)
    assert not levels_covered(levels)
    check_same(build_pose_graphs(clouds, levels), one_by_one(clouds, levels))


@pytest.mark.parametrize("name", ("default", "pairs", "large"))
def test_presets_are_covered_on_synthetic_shapes(name, generator, monkeypatch):
    import numpy as np

    levels = preset(name)["levels"]
    rng = np.random.default_rng(0)
    clouds = []
    for kind in ("airplane", "chair", "teapot"):
        cloud = torch.from_numpy(sample_mesh(*make_shape(kind, rng), 1024, rng)[0])
        clouds.append(resample(cloud, generator))
    assert len({len(cloud) for cloud in clouds}) > 1 and all(len(c) > 512 for c in clouds)
    wanted = one_by_one(clouds, levels)
    monkeypatch.setattr(build, "build_pose_graph", None)
    # Means of rows have their columns in another order.
    entries = name not in ("pairs", "fitted, nearest")
    check_same(build_pose_graphs(clouds, levels), wanted, entries=entries)


def test_symmetric_and_degenerate_clouds(named_cloud, generator):
    names = ("cube", "grid", "sphere", "prism", "one point", "one place", "collinear", "coplanar")
    odd = [named_cloud(name).repeat(4, 1) for name in names]
    clouds = clouds_of(generator, 2)
    clouds = [clouds[0], *odd, clouds[1]]
    for levels in (COVERED["orbits"], COVERED["pairs"]):
        check_same(build_pose_graphs(clouds, levels), one_by_one(clouds, levels), entries=False)
        check_same(build_pose_graphs(odd, levels), one_by_one(odd, levels), entries=False)


def test_a_turned_symmetric_cloud_sees_the_same(generator):
    """A box of three lengths: copies of it differ by its half turns, which nothing fixes."""
    sides = (torch.linspace(-s, s, n, dtype=torch.float64) for s, n in ((1, 6), (0.7, 5), (0.4, 4)))
    box = torch.cartesian_prod(*sides)
    turns = random_rotations(3, dtype=torch.float64, generator=generator)
    for levels in (COVERED["orbits"], COVERED["free"]):
        wanted = one_by_one([box] * 3, levels)
        found = build_pose_graphs([box @ turn.T for turn in turns], levels)
        # Lattice points lie on the edge of kernel functions, but for rounding.
        check_same(found, wanted, names=("count", "weight", "lift"))


@pytest.mark.parametrize("name", ("orbits", "pairs"))
def test_turned_clouds_have_the_same_graphs(name, generator):
    levels, clouds = COVERED[name], clouds_of(generator)
    turns = random_rotations(len(clouds), dtype=torch.float64, generator=generator)
    turned = [c @ r.T + 2 for c, r in zip(clouds, turns)]
    one, other = build_pose_graphs(clouds, levels), build_pose_graphs(turned, levels)
    check_same(other, one, names=("count", "weight", "lift"))
    for a, b in zip(one.levels, other.levels):
        moved = torch.einsum("bij,mj->bmi", turns, a.pos)
        cloud = a.batch
        moved = moved[cloud, torch.arange(a.num)] + 2
        torch.testing.assert_close(b.pos, moved, rtol=0, atol=1e-9)


def test_one_cloud_and_more_than_fit_at_once(generator, monkeypatch):
    levels, clouds = COVERED["orbits"], clouds_of(generator)
    wanted = one_by_one(clouds, levels)
    check_same(build_pose_graphs(clouds[:1], levels), one_by_one(clouds[:1], levels))
    monkeypatch.setattr(build, "_MOST", 2 * 90 * 90)
    monkeypatch.setattr(near, "CHUNK", 90 * 90)
    check_same(build_pose_graphs(clouds, levels), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", ("default", "pairs", "large"))
def test_a_gpu_builds_what_the_cpu_builds(name, generator):
    levels = preset(name)["levels"]
    clouds = clouds_of(generator, 6, 600, 1024)
    clouds.insert(2, clouds[0][:100])  # built on the CPU
    found = build_pose_graphs(clouds, levels, device="cuda")
    assert all(level.pos.is_cuda for level in found.levels)
    check_same(found.to("cpu"), one_by_one(clouds, levels), entries=name != "pairs")


def test_dtypes(generator):
    levels, clouds = COVERED["orbits"], clouds_of(generator, 3)
    single = [cloud.float() for cloud in clouds]
    found = build_pose_graphs(single, levels)
    check_same(found, one_by_one(single, levels), atol=1e-6)
    assert found.levels[0].pos.dtype == torch.float32
    half = build_pose_graphs([cloud.half() for cloud in clouds], levels)
    assert half.levels[0].pos.dtype == torch.float32
    double = build_pose_graphs(single, levels, dtype=torch.float64, device="cpu")
    assert double.levels[1].val.dtype == torch.float64


def test_what_is_unusable_is_named(generator):
    levels, clouds = COVERED["orbits"], clouds_of(generator, 2)
    with pytest.raises(ArgumentError, match="`clouds`"):
        build_pose_graphs([], levels)
    with pytest.raises(ArgumentError, match="`levels`"):
        build_pose_graphs(clouds, [])
    for wrong in (1, clouds[0].tolist()):
        with pytest.raises(ShapeError, match="`pos`"):
            build_pose_graphs([wrong, clouds[1]], levels)
    with pytest.raises(ShapeError, match="points, 3"):
        build_pose_graphs([clouds[0], clouds[1][:, :2]], levels)
    with pytest.raises(ShapeError, match="floating"):
        build_pose_graphs([clouds[0], clouds[1].long()], levels)
    with pytest.raises(DataError, match="empty"):
        build_pose_graphs([clouds[0], clouds[1][:0]], levels)
    clouds[1][3, 1] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        build_pose_graphs(clouds, levels)


@pytest.mark.parametrize("off", ["PCEQUI_NO_NUMBA", "NUMBA_DISABLE_JIT"])
def test_no_compiled_kernel_is_needed(off):
    code = (
        "import sys, torch; from pcequi.pose_graph import build_pose_graphs\n"
        "from pcequi.models.presets import preset\n"
        "clouds = [torch.randn(600, 3, dtype=torch.float64) for _ in range(2)]\n"
        "build_pose_graphs(clouds, preset('small')['levels'])\n"
        "print('pcequi.ops.compiled' in sys.modules)"
    )
    environment = {off: "1", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("distinct", (40, 6))
def test_picks_follow_the_rules_of_fps(distinct, generator):
    """Also where only copies are left."""
    x = torch.randn(3, distinct, 5, dtype=torch.float64, generator=generator)
    x = x[:, torch.randperm(40, generator=generator) % distinct]
    turned = torch.stack([x, x[..., [1, 0, 3, 2, 4]]], 2)
    key = x.sum(2)
    index, assignment = picks.farthest_orbits(turned, key, 12)
    for b in range(3):
        wanted = farthest_point_sampling(x[b], 12, key=key[b], turned=turned[b])
        assert torch.equal(index[b], wanted[0]) and torch.equal(assignment[b], wanted[1])


def test_points_in_spatial_order_are_those_there_are(generator):
    clouds = clouds_of(generator)
    padded = canonical.pad_clouds(clouds, "cpu")
    order = picks.farthest_points(padded, 50)
    for row, cloud in zip(order, clouds):
        centred = cloud - cloud.mean(0)
        assert torch.equal(row, farthest_point_sampling(centred, 50)[0])


@pytest.mark.parametrize("num", (1, 2, 6, 15))
def test_blends_and_nearest_centres(num, generator):
    center = torch.randn(2, 9, 4, dtype=torch.float64, generator=generator)
    x = torch.randn(2, 50, 4, dtype=torch.float64, generator=generator)
    x[:, :9] = center  # distance zero
    center[:, 8] = center[:, 7]  # the first of equals
    assignment, index, weight = clusters.blend_centers(x, center, num)
    for b in range(2):
        wanted = blend_centers(x[b], center[b], num)
        assert torch.equal(assignment[b], wanted[0])
        matrices = [
            torch.zeros(50, 9, dtype=torch.float64).scatter_add_(1, i, w)
            for i, w in ((index[b], weight[b]), wanted[2:])
        ]
        torch.testing.assert_close(*matrices, rtol=0, atol=1e-9)
        found = clusters.nearest_center(x, center)[b]
        assert torch.equal(found, nearest_center(x[b], center[b])[0])


def test_picks_that_repeat_are_replaced():
    index = torch.tensor([[2, 2, 0, 2], [3, 1, 0, 2]])
    found = clusters._distinct(index, 6)
    assert found.tolist() == [[2, 1, 0, 3], [3, 1, 0, 2]]


def test_small_matrices(generator):
    a = torch.randn(200, 3, 3, dtype=torch.float64, generator=generator)
    a[0], a[1], a[2] = 0, torch.eye(3), torch.diag(torch.tensor([3.0, 1.0, 2.0]))
    a[3] = torch.ones(3, 3)
    symmetric = a @ a.mT
    value, axes = eigen.eigen(symmetric)
    torch.testing.assert_close(axes @ value.diag_embed() @ axes.mT, symmetric)
    torch.testing.assert_close(axes.mT @ axes, torch.eye(3, dtype=a.dtype).expand_as(a))
    assert (value[:, 1:] >= value[:, :-1]).all()
    left, _, right = torch.linalg.svd(a[4:])
    torch.testing.assert_close(eigen.polar(a[4:]), left @ right)
    assert torch.equal(eigen.polar(a[:1]), a[:1])
    w = 0.1 * torch.nn.functional.normalize(a[4:, 0], dim=1)
    cross = torch.linalg.cross(torch.eye(3, dtype=a.dtype).expand(len(w), 3, 3), w[:, None])
    torch.testing.assert_close(eigen.small_turn(w), torch.linalg.matrix_exp(cross))


def test_the_number_of_calls_does_not_grow_with_the_batch(generator):
    levels, clouds = COVERED["orbits"], clouds_of(generator, 12, 80, 80)

    def calls(num):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            build_pose_graphs(clouds[:num], levels)
        return sum(e.count for e in profile.key_averages() if e.key.startswith("aten::"))

    few, many = calls(4), calls(12)
    assert many < few + 200  # PyTorch itself copies and concatenates a little more


@pytest.mark.parametrize("scale", [1e-3, 0.03, 10.0, 1e3])
def test_clouds_of_another_scale_are_told(scale, generator):
    clouds = generic_clouds(3, least=45, most=60, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_pose_graphs(clouds, grids())
    for odd in range(3):
        scaled = [cloud * (scale if c == odd else 1) for c, cloud in enumerate(clouds)]
        with pytest.warns(UserWarning, match="scale clouds first"):
            build_pose_graphs(scaled, grids())

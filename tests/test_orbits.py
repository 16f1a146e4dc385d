"""Orbits: whole groups of poses sampled as one, and what follows from their first pose."""

import copy

import pytest
import torch

from pcequi import graph_store, ops
from pcequi.errors import ArgumentError, FileError, ShapeError
from pcequi.graph_store import GraphStore
from pcequi.kernels import kernel_points, space_basis
from pcequi.models import forward_online
from pcequi.models.online import feature_embedding
from pcequi.ops import blend_centers, turned_rows
from pcequi.orbits import Orbits, basis_turns, group_products
from pcequi.pose_graph import (
    GraphBuilder,
    Level,
    LevelStep,
    PoseGraph,
    build_pose_graph,
    stored_turns,
)
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, PairPoses, TangentPoses
from pcequi.rotations import finite_group, random_rotations
from pcequi.sampling import FeatureSampler

GROUPED = [
    GridPoses("D2", "manhattan"),
    GridPoses("O", "principal"),
    GridPoses("C4", "principal"),
    TangentPoses(4),
    TangentPoses(6),
]
VARIANTS = [
    {"num": 24, "refine": 2, "blend": 6},
    {"num": 24, "refine": 2, "blend": 6, "center": "mean"},
    {"num": 30, "blend": 1},
    {"num": 24, "method": "random", "refine": 1, "blend": 3},
    {"num": None, "ratio": 0.2, "center": "mean"},
    {"num": None, "tolerance": 0.3, "blend": 2},
]


@pytest.mark.parametrize("name", ["C1", "C5", "D2", "T", "O", "I"])
def test_products_are_those_of_the_matrices(name):
    group = finite_group(name, dtype=torch.float64)
    products = group_products(group)
    torch.testing.assert_close(group[products], group[:, None] @ group, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name, num", [("C4", 15), ("D2", 27), ("O", 7), ("O", 33), ("T", 15)])
def test_functions_seen_from_a_turned_frame_are_permuted(name, num, generator):
    group = finite_group(name, dtype=torch.float64)
    turns = basis_turns(group, num)
    points, width = kernel_points(num)
    offset = torch.randn(20, 3, dtype=torch.float64, generator=generator) * 0.5
    plain = space_basis(offset, points.double(), width)
    for element, turn in zip(group, turns, strict=True):
        seen = space_basis(offset @ element, points.double(), width)
        torch.testing.assert_close(seen, plain[:, turn], atol=1e-12, rtol=0)


def test_kernel_points_that_a_group_does_not_permute_are_told():
    assert basis_turns(finite_group("I", dtype=torch.float64), 15) is None
    assert basis_turns(finite_group("C5", dtype=torch.float64), 27) is None


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("poses", GROUPED, ids=str)
def test_what_a_pose_shares_follows_from_the_first_of_its_point(
    poses, options, levels_of, make_blob, generator
):
    levels = levels_of(poses, orbits=True, **options)
    _, sampled = build_pose_graph(make_blob(40), levels, embeddings=True, generator=generator)
    for level in sampled[:2]:
        chosen, size = level.chosen, level.poses.num_rotations
        products = group_products(level.poses.group)
        assert chosen.num % size == 0
        orbits = chosen.index.view(-1, size)
        assert torch.equal(orbits, orbits[:, :1] // size * size + torch.arange(size))
        assert len(chosen.index.unique()) == chosen.num
        assert torch.equal(chosen.assignment[chosen.index], torch.arange(chosen.num))
        for code in (chosen.assignment, *chosen.shared.unbind(1)):
            code = code.view(-1, size)
            orbit, turn = code // size, code % size
            assert (orbit == orbit[:, :1]).all()
            assert torch.equal(turn, products[turn[:, 0]])
        share = chosen.share.view(-1, size, chosen.share.shape[1])
        assert (share == share[:, :1]).all()
        weight = chosen.multiplicity.view(-1, size)
        torch.testing.assert_close(weight, weight[:, :1].expand_as(weight))
        if options.get("tolerance") and size > 1:
            assert chosen.covering_radius <= 0.3


@pytest.mark.parametrize("poses", GROUPED[:3], ids=str)
def test_the_search_of_one_pose_a_point_finds_the_nearest_of_all(poses, levels_of, make_blob):
    levels = levels_of(poses, num=48, refine=2, blend=6, orbits=True)
    _, sampled = build_pose_graph(make_blob(40), levels, embeddings=True)
    level = sampled[0]
    rows, chosen = level.embedding.flatten(0, 1), level.chosen
    center = rows[chosen.index]
    torch.testing.assert_close(
        chosen.distance,
        torch.cdist(rows, center, compute_mode="donot_use_mm_for_euclid_dist").min(1).values,
        atol=1e-7,
        rtol=0,
    )
    _, _, index, weight = blend_centers(rows, center, 6)
    direct = (center[index] * weight[..., None]).sum(1) - rows
    direct[chosen.index] = 0  # a representative is its own
    # Errors, not shares: of equally near representatives either may be taken.
    error = (chosen.spread(center) - rows).norm(dim=1)
    torch.testing.assert_close(error, direct.norm(dim=1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("poses", [*GROUPED[:3], GridPoses("D2")], ids=str)
@pytest.mark.parametrize("dense", [False, True])
def test_the_rows_of_one_pose_give_those_of_its_orbit(poses, dense, make_blob, monkeypatch):
    align = poses.align
    sampler = FeatureSampler() if dense else FeatureSampler(num=24, refine=1, blend=4, orbits=True)
    levels = [
        Level(0.5, poses, sampler, num_points=20),
        Level(0.9, poses, sampler, num_points=14, kernel_points=7),
        Level(1.5, CentroidPoses(poses.rotations, align), kernel_points=27),
    ]
    pos, short, found = make_blob(40), [], LevelStep._orbit_turns
    monkeypatch.setattr(
        LevelStep, "_orbit_turns", lambda *args: short.append(found(*args)) or short[-1]
    )
    quick = build_pose_graph(pos, levels)
    monkeypatch.setattr(LevelStep, "_orbit_turns", lambda *args: None)
    plain = build_pose_graph(pos, levels)
    # The octahedral group does not commute: its rows are made one by one.
    assert [turns is not None for turns in short] == [poses.rotations != "O"] * 2
    for a, b, below in zip(quick.levels[1:], plain.levels[1:], quick.levels):
        torch.testing.assert_close(matrix(a, below.num), matrix(b, below.num), atol=1e-12, rtol=0)


@pytest.mark.parametrize("poses", GROUPED[:3], ids=str)
def test_a_store_keeps_the_rows_of_one_pose_a_point(poses, make_blob, tmp_path):
    sampler = FeatureSampler(num=24, refine=1, blend=4, orbits=True)
    levels = [
        Level(0.5, poses, sampler, num_points=20),
        Level(0.9, poses, sampler, num_points=14, kernel_points=7),
        Level(1.5, CentroidPoses(poses.rotations, poses.align), kernel_points=27),
    ]
    clouds = [make_blob(num, num).float() for num in (40, 3, 25)]
    store = GraphStore.build(tmp_path, clouds, levels, workers=1)
    read = store.batch([2, 0, 1])
    fresh = PoseGraph.batch([build_pose_graph(clouds[row], levels) for row in (2, 0, 1)])
    for number, (a, b) in enumerate(zip(read.levels, fresh.levels, strict=True)):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.count, b.count)
        if number:
            assert torch.equal(a.entries.long(), b.entries.long())
            assert torch.equal(a.col.long(), b.col.long())
            torch.testing.assert_close(a.val, b.val, atol=1e-3, rtol=1e-3)
            kept = sum(chunk.tensors[f"{number}.col"].shape[0] for chunk in store.chunks)
            turns = 1 if poses.rotations == "O" else 4
            assert kept * turns == len(a.col)


@pytest.mark.parametrize("blocks", [None, torch.float32, torch.bfloat16], ids=str)
def test_rows_that_do_not_fit_are_damage_and_no_crash(blocks, make_blob, tmp_path, monkeypatch):
    grid = GridPoses("D2", "manhattan")
    sampler = FeatureSampler(num=8, orbits=True)
    levels = [Level(0.5, grid, sampler), Level(0.9, grid, sampler, kernel_points=7)]
    store = GraphStore.build(tmp_path, [make_blob(20)], levels, workers=1)
    read = graph_store.read_graphs
    first = [("1.entries", 3, -1), ("1.entries", 3, 30000), ("1.col", 3, -1)]
    # Numbers of representatives that are no whole orbits.
    counts = [("1.col", 3, 30000), ("0.count", 0, 7), ("1.count", 0, 7)]
    for name, row, wrong in first if blocks is None else first + counts:

        def damaged(*args, name=name, row=row, wrong=wrong):
            tensors = read(*args)
            old = int(tensors[name][row])
            tensors[name][row] = wrong
            if name == "1.entries" and wrong < 0:  # the sum stays what it was
                tensors[name][0] += old - wrong
            return tensors

        monkeypatch.setattr(graph_store, "read_graphs", damaged)
        with pytest.raises(FileError, match="rows do not fit its entries.*precompute again"):
            store.batch([0], blocks)


def test_dense_stores_are_kept_whole(make_blob, tmp_path):
    grid = GridPoses("D2", "manhattan")
    levels = [Level(0.5, grid, num_points=9), Level(0.9, grid, num_points=5)]
    assert stored_turns(levels) == [None, None]
    store = GraphStore.build(tmp_path, [make_blob(20)], levels, workers=1)
    assert store.chunks[0].tensors["1.col"].shape[0] == len(store.batch([0]).levels[1].col)


def matrix(level, columns):
    row = torch.repeat_interleave(torch.arange(len(level.entries)), level.entries.long())
    out = level.val.new_zeros(len(level.entries), columns)
    return out.index_put_((row, level.col.long()), level.val, accumulate=True)


@pytest.mark.backend
def test_turned_rows_without_numba_are_the_same(monkeypatch, generator):
    group = finite_group("D2", dtype=torch.float64)
    turns, products = basis_turns(group, 7), group_products(group)
    count = torch.randint(4, (3 * 7,), generator=generator)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    col = torch.randint(20, (int(ptr[-1]),), generator=generator)
    val = torch.randn(len(col), dtype=torch.float64, generator=generator)
    first = turned_rows(ptr, col, val, turns, products)
    monkeypatch.setattr(ops.sparse, "HAS_NUMBA", False)
    for a, b in zip(first, turned_rows(ptr, col, val, turns, products), strict=True):
        assert torch.equal(a, b)
    assert len(first[1]) == 4 * len(col)


@pytest.mark.parametrize("poses", GROUPED, ids=str)
def test_orbits_are_exactly_invariant(poses, levels_of, network, solid_cloud, generator):
    last = CentroidPoses("D2", "manhattan") if poses is GROUPED[0] else None
    model = network(levels_of(poses, refine=2, seeds=16, blend=6, orbits=True, last=last))
    before = model(build_pose_graph(solid_cloud, model.levels))
    for turn in random_rotations(2, generator=generator, dtype=torch.float64):
        moved = (solid_cloud @ turn.T + 3.0)[torch.randperm(len(solid_cloud), generator=generator)]
        after = model(build_pose_graph(moved, model.levels))
        change = float(((after - before).abs().max() / before.abs().max()).detach())
        print(f"{poses}, {len(solid_cloud)} points: {change:.1e}")
        assert change < 1e-8


@pytest.mark.parametrize("name", ["C4", "D2", "O"])
def test_orbits_of_world_fixed_grids_are_exact_under_their_group(
    name, levels_of, network, solid_cloud
):
    last = CentroidPoses(name, align="none")
    levels = levels_of(GridPoses(name), refine=1, blend=6, orbits=True, last=last)
    model = network(levels)
    before = model(build_pose_graph(solid_cloud, levels))
    for turn in finite_group(name, dtype=torch.float64)[1:4]:
        after = model(build_pose_graph(solid_cloud @ turn.T, levels))
        assert (after - before).abs().max() < 1e-8 * before.abs().max()


def test_degenerate_clouds_have_orbits_too(degenerate_cloud, levels_of, network):
    for poses in GROUPED:
        model = network(levels_of(poses, refine=1, blend=6, orbits=True))
        graph = build_pose_graph(degenerate_cloud, model.levels)
        assert torch.isfinite(model(graph)).all()
        with torch.no_grad():
            assert torch.isfinite(forward_online(model, [degenerate_cloud])).all()


@pytest.mark.parametrize("poses", GROUPED[:4], ids=str)
def test_all_orbits_are_the_dense_network(poses, levels_of, network, make_blob):
    model = network(levels_of(poses, num=24))
    pos = make_blob(12)
    other = copy.deepcopy(model)
    model.levels = [level.with_budget() for level in model.levels]
    other.levels = levels_of(poses, num=None, tolerance=1e-7, orbits=True)
    with torch.no_grad():
        expected = model(build_pose_graph(pos, model.levels))
        torch.testing.assert_close(model(build_pose_graph(pos, other.levels)), expected)
        torch.testing.assert_close(forward_online(other, [pos]), expected)


def test_learned_features_are_compared_over_the_group(levels_of, make_blob, generator):
    poses = GridPoses("D2", "manhattan")
    builder = GraphBuilder(make_blob(40), levels_of(poses, num=24, orbits=True))
    step = builder.level(0)
    builder.finish(step, step.sample())
    step = builder.level(1)
    x = torch.randn(24, 3, dtype=torch.float64, generator=generator)
    z = feature_embedding(step, x, projection=3)
    chosen = step.sample(z)
    z = z.view(-1, 4, z.shape[1])
    products = group_products(step.poses.group)
    points = chosen.index[::4] // 4
    # Mean square over the group, for each way of laying one point's poses on another's.
    apart = z[:, None, None] - z[points][:, products][None]
    square = apart.square().sum(4).mean(3).flatten(1)
    found = chosen.distance.view(-1, 4)
    torch.testing.assert_close(found.square().mean(1), square.min(1).values)


def test_orbits_of_one_pose_are_free_poses(levels_of, make_blob):
    free = build_pose_graph(make_blob(30), levels_of(NormalPoses(0.5), refine=1, blend=3))
    orbits = levels_of(NormalPoses(0.5), refine=1, blend=3, orbits=True)
    for a, b in zip(free.levels, build_pose_graph(make_blob(30), orbits).levels, strict=True):
        torch.testing.assert_close(a.weight, b.weight)
        torch.testing.assert_close(a.pos, b.pos)


def test_rows_of_orbits_that_are_not_closed_average_over_the_group(generator):
    products = group_products(finite_group("C4", dtype=torch.float64))
    x = torch.randn(6 * 4, 5, dtype=torch.float64, generator=generator)
    rows, poses = Orbits(4, products, closed=False).rows(x), x.view(6, 4, 5)
    for k in range(4):
        mean = (poses[0] - poses[3][products[k]]).square().sum(1).mean()
        torch.testing.assert_close((rows[0, 0] - rows[3, k]).square().sum(), mean)


def test_errors_name_the_argument_and_the_remedy():
    with pytest.raises(ArgumentError, match=r"`orbits` \(=True\) must be False with .* 'spatial'"):
        FeatureSampler(num=4, method="spatial", orbits=True)
    with pytest.raises(ArgumentError, match=r"`products` \(=None\) is needed by `orbits`"):
        FeatureSampler(num=4, orbits=True)(torch.randn(8, 3), num_rotations=4)
    table = group_products(finite_group("C4"))
    with pytest.raises(ShapeError, match=r"`embedding` \(=\[9, 3\]\) must have `num_rotations`"):
        FeatureSampler(num=4, orbits=True)(torch.randn(9, 3), num_rotations=4, products=table)
    for poses in (GridPoses(24), PairPoses(4)):
        with pytest.raises(ArgumentError, match=r"`sampling.orbits` \(=True\) needs `poses`"):
            Level(0.5, poses, FeatureSampler(num=4, orbits=True))


@pytest.mark.parametrize("name", ["C2", "D2", "C4", "D4"])
def test_what_the_first_pose_is_given_turns_with_the_others(name, generator):
    group = finite_group(name, dtype=torch.float64)
    size = len(group)
    code = torch.randint(5 * size, (6, 3), generator=generator)
    found = Orbits(size, group_products(group)).spread(code).view(6, size, 3)
    for place in torch.cartesian_prod(torch.arange(6), torch.arange(size), torch.arange(3)):
        point, pose, rank = place.tolist()
        given, got = int(code[point, rank]), int(found[point, pose, rank])
        assert got // size == given // size
        torch.testing.assert_close(group[got % size], group[given % size] @ group[pose])

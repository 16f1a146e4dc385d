"""Pose graphs: what a level reads, batching, round trips, bad and odd input."""

import json
import sys
from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch, Data

from pcequi import pose_graph
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.graph_store import GraphStore
from pcequi.kernels import SE3Kernel
from pcequi.models import graph_tensors, preset
from pcequi.nn import GroupConv
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph, edges, pose_operator
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, PairPoses, Poses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.sampling import FeatureSampler

SAMPLERS = [
    GridPoses("O"), GridPoses(7), GridPoses("O", "principal"), GridPoses("D2", "manhattan"),
    TangentPoses(6), PairPoses(3), NormalPoses(0.5),
]  # fmt: skip


def dense_rows(level):
    """A as a dense matrix [M * B, columns]."""
    row = torch.repeat_interleave(torch.arange(len(level.entries)), level.entries.long())
    matrix = level.val.new_zeros(len(level.entries), int(level.col.max()) + 1)
    return matrix.index_put_((row, level.col.long()), level.val, accumulate=True)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_degenerate_clouds_run_through_graph_and_network(
    sampler, degenerate_cloud, levels_of, network
):
    levels = levels_of(sampler, last=CentroidPoses("O"), refine=1)
    model = network(levels)
    for dtype in (torch.float32, torch.float64):
        graph = build_pose_graph(degenerate_cloud.to(dtype), levels)
        for level in graph.levels:
            for name in pose_graph.TENSORS:
                value = getattr(level, name)
                assert value is None or torch.isfinite(value).all(), name
        assert torch.isfinite(model(graph.to(torch.float64))).all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("anchors, blend", [(1, 1), (4, 1), (1, 3), (4, 2)])
def test_operator_of_numba_equals_its_torch_twin(
    sampler, anchors, blend, make_blob, generator, monkeypatch
):
    poses = sampler(make_blob(20))
    size = (*poses.rot.shape[:2], blend)
    shared = torch.randint(0, 9, size, generator=generator)
    share = torch.rand(size, dtype=torch.float64, generator=generator)
    share[0, 0, -1] = 0
    level = Level(0.7, sampler, kernel_points=7, kernel_rotations=anchors, rotation_width=2.0)
    pos, rot = poses.pos[:6], poses.rot[:6, 1 % poses.num_rotations]

    def dense():
        ptr, col, val = pose_operator(pos, rot, poses, shared, share, 9, level)
        matrix = val.new_zeros(6 * level.basis, 9)
        row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
        return matrix.index_put_((row, col), val, accumulate=True)

    if not edges.HAS_NUMBA:
        pytest.skip("numba is not installed")
    compiled = dense()
    monkeypatch.setattr(edges, "HAS_NUMBA", False)
    torch.testing.assert_close(dense(), compiled, atol=1e-10, rtol=0)
    assert compiled.abs().sum() > 1


def assert_same_without_numba(pos, levels, monkeypatch):
    if not edges.HAS_NUMBA:
        pytest.skip("numba is not installed")
    compiled = build_pose_graph(pos, levels)
    names = [name for name, module in sys.modules.items() if name.startswith("pcequi.")]
    switched = [name for name in names if hasattr(sys.modules[name], "HAS_NUMBA")]
    assert len(switched) > 6
    for name in switched:
        monkeypatch.setattr(sys.modules[name], "HAS_NUMBA", False)
    plain = build_pose_graph(pos, levels)
    for a, b in zip(compiled.levels, plain.levels, strict=True):
        torch.testing.assert_close((a.pos, a.rot, a.weight), (b.pos, b.rot, b.weight))
        if a.val is not None:
            torch.testing.assert_close(dense_rows(a), dense_rows(b), atol=1e-9, rtol=0)
        else:
            torch.testing.assert_close(a.lift, b.lift, atol=1e-9, rtol=0)


@pytest.mark.backend
@pytest.mark.parametrize("blend", [1, 6])
@pytest.mark.parametrize("name", ("blob", "cube", "grid", "sphere", "corners", "prism"))
def test_a_whole_graph_of_manhattan_frames_without_numba_is_the_same(
    name, blend, named_cloud, monkeypatch
):
    """Also on clouds where every selection meets ties."""
    grid, last = GridPoses("D2", "manhattan"), CentroidPoses("D2", "manhattan")
    levels = [
        Level(0.5, grid, FeatureSampler(num=24, refine=2, blend=blend)),
        Level(0.9, grid, FeatureSampler(num=9, refine=1, blend=blend), kernel_points=7),
        Level(1.5, last, kernel_points=7),
    ]
    assert_same_without_numba(named_cloud(name), levels, monkeypatch)


@pytest.mark.backend
@pytest.mark.parametrize("name", ("blob", "cube", "grid", "sphere", "corners", "prism"))
def test_a_whole_graph_on_pairs_without_numba_is_the_same(
    name, named_cloud, levels_of, monkeypatch
):
    levels = levels_of(NormalPoses(0.5), refine=1, blend=3)
    assert_same_without_numba(named_cloud(name), levels, monkeypatch)


@pytest.mark.backend
def test_a_whole_graph_without_numba_is_the_same(make_blob, levels_of, monkeypatch):
    assert_same_without_numba(make_blob(30), levels_of(TangentPoses(4), refine=1), monkeypatch)


class Sizes(TorchDispatchMode):
    """Entries of the largest tensor that is made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in self.inputs:
            self.most = max(self.most, out.untyped_storage().nbytes() // out.element_size())
        return out

    def __init__(self, *inputs):
        super().__init__()
        self.inputs = {value.untyped_storage().data_ptr() for value in inputs}


@pytest.mark.parametrize("sampler", [GridPoses("I"), TangentPoses(60)], ids=str)
def test_edges_between_poses_take_no_array_of_all_frames(sampler, make_blob, monkeypatch):
    pos = make_blob(40)
    source, level = sampler(pos), Level(0.9, sampler, kernel_rotations=4)
    targets = pos[:9], source.rot[:9, 3], source, level
    expected = edges.pose_edges(*targets)
    apart = Poses(pos, source.rot.clone(), source.group)
    monkeypatch.setattr(edges, "_MOST", 60 * 9 * 7)  # few edges at once
    for poses in (source, apart):
        with Sizes(pos, source.rot, poses.rot) as sizes:
            found = edges.pose_edges(*targets[:2], poses, level)
        num = len(found.anchor)
        assert num > 400 and sizes.most < num * 60
        for name, value in vars(expected).items():
            torch.testing.assert_close(getattr(found, name), value)


def test_the_basis_of_a_pose_shares_one_unit_of_mass(make_blob):
    # One anchor and shared frames: the rotation factor is one everywhere.
    grid = GridPoses("O")
    levels = [Level(0.5, grid, FeatureSampler(num=30)), Level(0.9, grid, FeatureSampler(num=11))]
    level = build_pose_graph(make_blob(30), levels).levels[1]
    assert level.basis == 15 and level.num == 11
    mass = dense_rows(level).sum(1).view(11, 15).sum(1)
    torch.testing.assert_close(mass, torch.ones_like(mass))


def test_what_a_level_sampled_is_told_in_world_coordinates(make_blob, levels_of):
    pos = make_blob(40) + 5
    levels = levels_of(TangentPoses(4), num=10)
    graph, sampled = build_pose_graph(pos, levels, embeddings=True)
    for level, told in zip(graph.levels[:2], sampled[:2], strict=True):
        torch.testing.assert_close(told.poses.pos, pos[told.points])
        point, turn = told.chosen.index // 4, told.chosen.index % 4
        torch.testing.assert_close(level.pos, told.poses.pos[point])
        torch.testing.assert_close(level.rot, told.poses.rot[point, turn])
        assert torch.equal(level.weight.long(), told.chosen.multiplicity)
    assert len(sampled[0].points.unique()) == 20 and len(sampled[1].points) == 14
    assert sampled[2].points is None
    torch.testing.assert_close(sampled[2].poses.pos[0], pos.mean(0))


def test_budgets_and_types(make_blob, levels_of):
    graph = build_pose_graph(make_blob(40).float(), levels_of(num=10))
    assert [level.num for level in graph.levels] == [10, 10, 24]  # the last is dense
    assert graph.levels[0].weight.sum() == 20 * 24 and graph.levels[1].weight.sum() == 14 * 24
    assert graph.levels[1].val.dtype == graph.levels[0].lift.dtype == torch.float32
    double = build_pose_graph(make_blob(40).float(), levels_of(num=10), dtype=torch.float64)
    assert double.levels[1].val.dtype == torch.float64
    assert double.to(torch.float32).levels[1].val.dtype == torch.float32
    assert double.to(torch.float32).levels[1].col.dtype == double.levels[1].col.dtype


def test_all_ways_of_batching_are_one(make_blob, levels_of):
    levels = levels_of(num=10)
    graphs = [build_pose_graph(make_blob(n, n), levels) for n in (12, 25, 7)]
    direct = PoseGraph.batch(graphs)
    batch = Batch.from_data_list([graph.store(Data()) for graph in graphs])
    loaded = PoseGraph.load(batch)
    for a, b in zip(direct.levels, loaded.levels, strict=True):
        assert a.basis == b.basis
        for name in pose_graph.TENSORS:
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None and y is None) or torch.equal(x, y), name
    assert direct.levels[0].count.tolist() == [10, 10, 10]
    assert torch.equal(direct.levels[0].batch, torch.arange(3).repeat_interleave(10))


@pytest.mark.parametrize("sampler", [*SAMPLERS, CentroidPoses("T")], ids=str)
def test_levels_survive_json(sampler):
    level = Level(
        0.4, sampler, FeatureSampler(ratio=0.5, refine=1, seeds=9, center="mean"), num_points=7,
        kernel_points=21, kernel_rotations=8, rotation_width=1.0, normals=True,
    )  # fmt: skip
    assert Level.from_dict(json.loads(json.dumps(level.to_dict()))) == level
    assert level.basis == 168 and level.lift_channels == 84


def test_a_level_with_another_budget_keeps_the_rest():
    level = Level(0.4, sampling=FeatureSampler(num=8, refine=2, seeds=3))
    assert level.with_budget().sampling.is_dense
    assert level.with_budget(ratio=0.5).sampling == FeatureSampler(ratio=0.5, refine=2, seeds=3)


def test_impossible_levels_are_refused(make_blob):
    with pytest.raises(ArgumentError, match=r"`radius` \(=0\) must be positive"):
        Level(0)
    with pytest.raises(ArgumentError, match=r"`num_points` \(=0\) .* at least 1, or None"):
        Level(1, num_points=0)
    with pytest.raises(ArgumentError, match=r"`kernel_points` \(=8\) must be one of"):
        Level(1, kernel_points=8)
    with pytest.raises(ArgumentError, match=r"`kernel_rotations` \(=5\)"):
        Level(1, kernel_rotations=5)
    with pytest.raises(ArgumentError, match=r"`levels` \(=\[\]\) must hold at least one Level"):
        build_pose_graph(make_blob(5), [])
    with pytest.raises(ArgumentError, match="`levels\\[0\\].poses` cannot be CentroidPoses"):
        build_pose_graph(make_blob(5), [Level(1, CentroidPoses())])
    with pytest.raises(ArgumentError, match="apply `pcequi.transforms.BuildPoseGraph` first"):
        PoseGraph.load(Data())


def test_unusable_clouds_are_refused(make_blob, levels_of):
    pos, levels = make_blob(9), levels_of()
    with pytest.raises(DataError, match="is empty"):
        build_pose_graph(pos[:0], levels)
    with pytest.raises(ShapeError, match=r"`pos` \(=\[9, 2\]\)"):
        build_pose_graph(pos[:, :2], levels)
    with pytest.raises(DataError, match="NaN or infinite"):
        build_pose_graph(pos / 0, levels)
    with pytest.raises(ShapeError, match=r"`normal` \(=\[4, 3\]\) must match `pos` \(=\[9, 3\]\)"):
        build_pose_graph(pos, levels, normal=pos[:4])


def test_given_normals_are_seen(make_blob):
    levels = [Level(0.6, GridPoses("O"), FeatureSampler(num=9), normals=True)]
    pos = make_blob(20)
    given = build_pose_graph(pos, levels, normal=torch.ones_like(pos)).levels[0].lift
    mass, normal = given.view(9, 15, 4)[..., 0], given.view(9, 15, 4)[..., 1:]
    # All normals are one vector: each basis function sees it times its mass.
    torch.testing.assert_close(normal.norm(dim=2), mass)


def test_normals_that_no_level_reads_are_not_asked_for(make_blob, levels_of):
    pos = make_blob(20)
    levels = levels_of(num=8, poses=GridPoses("D2", "principal"))
    plain, zero = (build_pose_graph(pos, levels, normal=n) for n in (None, torch.zeros_like(pos)))
    assert torch.equal(plain.levels[0].lift, zero.levels[0].lift)
    with pytest.raises(DataError, match="`normal` has vectors that are zero"):
        build_pose_graph(pos, levels_of(num=8, poses=TangentPoses(2)), normal=torch.zeros_like(pos))


@pytest.mark.parametrize("shift", [0.0, 0.33, 5.17, 0.1])
def test_copies_of_one_point_are_one_point_wherever_it_is(shift):
    levels = preset("pairs")["levels"]
    place = torch.tensor([[1.0, -0.3, 0.7]], dtype=torch.float64)
    here, there = (build_pose_graph((place * s).expand(9, 3), levels) for s in (0, shift))
    assert torch.equal(here.levels[0].lift, there.levels[0].lift)


def test_a_cloud_too_large_for_squares_is_refused(make_blob, levels_of):
    with pytest.raises(DataError, match="`pos` reaches .* scale the cloud"):
        build_pose_graph(make_blob(20) * 1e160, levels_of(num=8))


def test_rounding_decides_nothing_where_all_poses_look_alike(make_blob, network, generator):
    # A single kernel point in the middle sees the same mass everywhere on the second level.
    levels = [
        Level(0.6, TangentPoses(4), FeatureSampler(num=32)),
        Level(0.9, TangentPoses(4), FeatureSampler(num=16), kernel_points=1, kernel_rotations=4),
    ]
    model = network(levels)
    cloud = make_blob(60)
    before = model(build_pose_graph(cloud, levels))
    for turn in random_rotations(4, generator=generator, dtype=torch.float64):
        after = model(build_pose_graph(cloud @ turn.T, levels))
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("poses", [GridPoses("D2", "principal"), TangentPoses(3)])
@pytest.mark.parametrize("name", ["line", "point", "pair", "copies"])
def test_given_normals_fix_what_the_points_leave_open(name, poses, network, generator):
    pos = {
        "line": torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None] * torch.eye(3)[0],
        "point": torch.zeros(1, 3, dtype=torch.float64),
        "pair": torch.tensor([[1.0, 0, 0], [-1, 0, 0]], dtype=torch.float64),
        "copies": torch.zeros(9, 3, dtype=torch.float64),
    }[name]
    normal = torch.randn(len(pos), 3, generator=generator, dtype=torch.float64)
    normal = torch.nn.functional.normalize(normal, dim=1)
    levels = [
        Level(0.9, poses, FeatureSampler(num=4), normals=True),
        Level(1.5, CentroidPoses("D2", "principal")),
    ]
    model = network(levels)
    before = model(build_pose_graph(pos, levels, normal=normal))
    for turn in random_rotations(4, generator=generator, dtype=torch.float64):
        moved = build_pose_graph(pos @ turn.T, levels, normal=normal @ turn.T)
        torch.testing.assert_close(model(moved), before, rtol=1e-8, atol=1e-9)


def test_graphs_with_dense_blocks_are_for_one_batch(make_blob, levels_of, tmp_path):
    levels = levels_of(num=6)
    store = GraphStore.build(tmp_path, [make_blob(20, n) for n in range(2)], levels, workers=1)
    graph = store.batch([0, 1], blocks=torch.float32)
    for use in (lambda: PoseGraph.batch([graph, graph]), lambda: graph.store(Data())):
        with pytest.raises(ArgumentError, match=r"dense blocks.*without `blocks`"):
            use()
    with pytest.raises(ArgumentError, match="dense blocks"):
        graph_tensors(graph)


def test_graphs_that_are_no_batch_are_refused(make_blob, levels_of):
    pos, levels = make_blob(20), levels_of(num=8)
    graph = build_pose_graph(pos, levels)
    with_points = build_pose_graph(pos, levels, points=True)
    for pair in ([graph, with_points], [with_points, graph]):
        with pytest.raises(ArgumentError, match=r"`points` in 1 of them alone; .*`points=True`"):
            PoseGraph.batch(pair)
    with pytest.raises(ArgumentError, match=r"`graphs` \(=0\) must be at least one"):
        PoseGraph.batch([])
    with pytest.raises(ArgumentError, match=r"same levels \(they have \[2, 3\]\)"):
        PoseGraph.batch([graph, build_pose_graph(pos, levels[:2])])
    other = build_pose_graph(pos, [*levels[:2], Level(1.5, CentroidPoses("O"), kernel_points=15)])
    with pytest.raises(ArgumentError, match=r"different kernels \(\[7, 15\] functions\)"):
        PoseGraph.batch([graph, other])
    wider = build_pose_graph(pos, [Level(0.5, levels[0].poses, kernel_points=27), *levels[1:]])
    with pytest.raises(ArgumentError, match=r"different kernels \(\[15, 27\] functions\)"):
        PoseGraph.batch([graph, wider])


def test_constants_are_not_shared_with_whoever_writes_into_them(make_blob):
    pos = make_blob(5)
    poses = GridPoses("O")(pos)
    poses.rot[0].mul_(2)
    torch.testing.assert_close(GridPoses("O")(pos).rot[0], GridPoses("O").grid())
    SE3Kernel(7).points.mul_(2)
    assert SE3Kernel(7).points.norm(dim=1).max() < 1


@dataclass(frozen=True)
class Upright:
    """A sampler of one's own: one pose a point, along the axes that it is shown."""

    align: str = "none"

    def __call__(self, pos, normal=None):
        return Poses(pos, torch.eye(3, dtype=pos.dtype).expand(len(pos), 1, 3, 3))


class Quarter(GridPoses):
    def __call__(self, pos, normal=None):
        return super().__call__(pos, normal)


def test_samplers_of_ones_own_see_the_world_where_they_say_so(make_blob, generator):
    pos = make_blob(20) @ random_rotations(1, generator=generator, dtype=torch.float64)[0]
    levels = [Level(0.5, Upright()), Level(0.9, GridPoses("O"))]
    eye = torch.eye(3, dtype=torch.float64)
    assert torch.equal(build_pose_graph(pos, levels).levels[0].rot, eye.expand(20, 3, 3))
    for sampler in (Upright("principal"), lambda pos, normal: Upright()(pos)):
        rot = build_pose_graph(pos, [Level(0.5, sampler)]).levels[0].rot
        torch.testing.assert_close(rot, rot[:1].expand_as(rot))
        assert (rot - eye).abs().max() > 0.01


def test_a_sampler_is_given_a_frame_only_where_it_takes_one(make_blob):
    pos = make_blob(20)
    own, usual = (
        build_pose_graph(pos, [Level(0.5, kind("D2", "principal"))]).levels[0].rot
        for kind in (Quarter, GridPoses)
    )
    torch.testing.assert_close(own, usual)


@pytest.mark.parametrize(
    "returned, words",
    [
        (lambda pos, rot: (pos, rot), "Poses.pos, rot., not a tuple"),
        (lambda pos, rot: Poses(pos[:5], rot[:5]), r"all N \(=20\) points, not \[\[5, 3\]"),
        (lambda pos, rot: Poses(pos, rot[:5]), r"all N \(=20\) points, .* \[5, 2, 3, 3\]"),
        (lambda pos, rot: Poses(pos, rot[:, 0]), r"`rot` \[N, K, 3, 3\] .* \[20, 3, 3\]"),
        (lambda pos, rot: Poses(pos, rot.float()), "`rot` as the points .* not torch.float32"),
        (lambda pos, rot: Poses(pos, rot, rot[0, :1]), r"`group` \(=\[1, 3, 3\]\) of its K"),
    ],
)
def test_what_a_sampler_of_ones_own_returns_is_looked_at(make_blob, returned, words):
    def sampler(pos, normal):
        return returned(pos, torch.eye(3, dtype=pos.dtype).repeat(len(pos), 2, 1, 1))

    levels = [Level(0.5), Level(0.9, sampler)]
    with pytest.raises(ShapeError, match=rf"`poses` \(=<function .* must return .*{words}"):
        build_pose_graph(make_blob(20), levels)


def test_gradients_flow_to_points_along_edges(make_blob):
    level = Level(0.8, TangentPoses(2))
    conv = GroupConv(2, 3, level.kernel()).double()
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).sin().view(12, 2).repeat(2, 1)

    def along(pos):
        poses = TangentPoses(2)(pos)
        where = poses.pos.repeat_interleave(2, 0), poses.rot.flatten(0, 1)
        found = edges.pose_edges(*where, poses, level)
        return conv(x, found.edge_index, (found.offset, found.rotation))

    pos = make_blob(12).requires_grad_()
    (gradient,) = torch.autograd.grad(along(pos).square().sum(), pos)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 1e-3

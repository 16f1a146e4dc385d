"""The laws of the method, one section each; every figure is printed (`pytest -rP`)."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeScale

from pcequi.check import randomized_network
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, forward_online, preset
from pcequi.models.online import feature_embedding
from pcequi.models.presets import PRESETS
from pcequi.nn import GroupConv
from pcequi.nn.group_conv import sparse_product
from pcequi.ops import farthest_point_sampling
from pcequi.pose_graph import GraphBuilder, Level, PoseGraph, build_pose_graph
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, PairPoses, TangentPoses
from pcequi.rotations import finite_group, random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.testing import symmetric_clouds

DATA_DRIVEN = [
    GridPoses("O", "principal"),
    GridPoses("D2", "manhattan"),
    TangentPoses(8),
    TangentPoses(6),
    PairPoses(4),
    NormalPoses(0.5),
]


def logits(model, pos, levels=None):
    with torch.no_grad():
        return model(build_pose_graph(pos, levels or model.levels))


def worst_change(model, pos, turns, generator, dtype=torch.float64):
    before, worst = logits(model, pos), []
    for turn in turns:
        moved = pos @ turn.T + torch.randn(3, dtype=torch.float64, generator=generator)
        moved = moved[torch.randperm(len(pos), generator=generator)]
        moved = moved.to(dtype).double()
        worst.append(float((logits(model, moved) - before).abs().max() / before.abs().max()))
    return worst


def haar(num, generator):
    return random_rotations(num, generator=generator, dtype=torch.float64)


def dense(levels):
    return [level.with_budget() for level in levels]


def with_sampling(levels, sampling):
    return [
        type(level).from_dict({**level.to_dict(), "sampling": vars(sampling)}) for level in levels
    ]


# 1. All poses as representatives are the dense network.


@pytest.mark.parametrize(
    "sampler",
    [GridPoses("T"), GridPoses("D2", "manhattan"), TangentPoses(4), NormalPoses(0.5)],
    ids=str,
)
@pytest.mark.parametrize(
    "everything",
    [
        FeatureSampler(num=10**6),
        FeatureSampler(ratio=1.0, refine=2),
        FeatureSampler(num=10**6, center="mean"),
        FeatureSampler(ratio=1.0, blend=6),
        FeatureSampler(num=10**6, refine=2, seeds=256, blend=6, orbits=True),
        # The shortest way round: FPS itself has to find every pose.
        FeatureSampler(tolerance=1e-6),
    ],
    ids=str,
)
def test_law_1_all_poses_are_the_dense_network(sampler, everything, levels_of, network, make_blob):
    model = network(levels_of(sampler, num=10))
    pos = make_blob(12)
    results = []
    for sampling in (FeatureSampler(), everything):
        levels = with_sampling(model.levels, sampling)
        precomputed = model(build_pose_graph(pos, levels))
        other = copy.deepcopy(model)
        other.levels = levels
        for out, net in ((precomputed, model), (forward_online(other, [pos]), other)):
            gradient = torch.autograd.grad(out.square().sum(), list(net.parameters()))
            results.append((out, *gradient))
    change = max(float((a[0] - results[0][0]).detach().abs().max()) for a in results)
    print(f"dense against all poses, largest change of a logit: {change:.1e}")
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=1e-7, rtol=1e-6)


# 2. The error falls with the budget, and one layer stays under its bound.


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("blend", [1, 6])
def test_law_2_error_falls_as_the_budget_grows(online, blend, levels_of, network, make_blob):
    model = network(levels_of(num=None))
    clouds = [make_blob(24, seed) for seed in range(5)]
    reference = torch.cat([logits(model, pos) for pos in clouds])
    errors = []
    for num in (4, 16, 64, 256):
        other = copy.deepcopy(model)
        other.levels = with_sampling(model.levels, FeatureSampler(num=num, blend=blend))
        with torch.no_grad():
            if online:
                out = forward_online(other, clouds)
            else:
                out = torch.cat([logits(other, pos) for pos in clouds])
        errors.append(float((out - reference).norm() / reference.norm()))
    print(
        f"online {online}, blend {blend}, error at 4, 16, 64, 256 poses:",
        [f"{e:.3f}" for e in errors],
    )
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 3


@pytest.mark.parametrize(
    "sampler, orbits",
    [
        (GridPoses("O", "principal"), False),
        (GridPoses("D2", "manhattan"), True),  # kernel points that the group permutes
        (TangentPoses(6), True),  # and some that it does not
    ],
    ids=str,
)
def test_law_2_lifting_stays_under_the_bound(sampler, orbits, levels_of, make_blob, generator):
    for num in (6, 40):
        levels = levels_of(sampler, num=num, orbits=orbits)
        graph, sampled = build_pose_graph(make_blob(30), levels, embeddings=True)
        rows, chosen = sampled[0].embedding.flatten(0, 1), sampled[0].chosen
        weight = torch.randn(rows.shape[1], 8, dtype=torch.float64, generator=generator)
        error = (rows @ weight - (graph.levels[0].lift @ weight)[chosen.assignment]).norm(dim=1)
        bound = torch.linalg.matrix_norm(weight, 2) * chosen.covering_radius
        print(f"lifting, {num} poses: {float(error.max()):.3f} under {float(bound):.3f}")
        assert 0 < error.max() <= bound * (1 + 1e-9)


def test_law_2_a_layer_stays_under_the_bound_of_its_features(levels_of, make_blob, generator):
    levels = levels_of(TangentPoses(6), num=15)
    builder = GraphBuilder(make_blob(30), levels)
    step = builder.level(0)
    sources = builder.finish(step, step.sample()).count
    x = torch.randn(15, 3, dtype=torch.float64, generator=generator)
    step = builder.level(1)
    z = feature_embedding(step, x, projection=3)
    chosen = step.sample(z)
    level = builder.finish(step, chosen)
    conv = GroupConv(4, 8, SE3Kernel(7, 4)).double()
    x = torch.cat([x, torch.ones(15, 1)], 1)
    error = conv.combine(z) - conv.compressed(x, level, sources)[chosen.assignment]
    worst = float(error.detach().norm(dim=1).max())
    bound = torch.linalg.matrix_norm(conv.weight.detach(), 2) * chosen.covering_radius
    print(f"layer, 15 of {len(z)} poses: {worst:.3f} under {float(bound):.3f}")
    assert 0 < worst <= bound * (1 + 1e-9)


# 3. Invariance and equivariance; exact cases first.


@pytest.mark.parametrize("sampler", DATA_DRIVEN, ids=str)
@pytest.mark.parametrize("refine, blend", [(0, 1), (2, 1), (2, 6)])
def test_law_3_data_driven_frames_are_exact(
    sampler, refine, blend, levels_of, network, solid_cloud, generator
):
    seeds = 16 if refine else None
    model = network(levels_of(sampler, refine=refine, seeds=seeds, blend=blend))
    worst = max(worst_change(model, solid_cloud, haar(2, generator), generator))
    print(f"{sampler}, refine={refine}, blend={blend}, {len(solid_cloud)} points: {worst:.1e}")
    assert worst < 1e-8


@pytest.mark.parametrize("name", PRESETS)
def test_law_3_presets_are_exact(name, solid_cloud, generator):
    model = randomized_network(**preset(name))
    worst = max(worst_change(model, solid_cloud, haar(2, generator), generator))
    print(f"{name}, {len(solid_cloud)} points: {worst:.1e}")
    assert worst < 1e-8


def test_law_3_other_generic_clouds(levels_of, network, make_blob, generator):
    for sampler in DATA_DRIVEN:
        model = network(levels_of(sampler))
        worst = max(
            max(worst_change(model, make_blob(40, seed), haar(1, generator), generator))
            for seed in range(4)
        )
        print(f"{sampler}, 4 generic clouds: {worst:.1e}")
        assert worst < 1e-9


@pytest.mark.parametrize("name", ["C4", "T", "O", "I"])
def test_law_3_a_finite_group_is_exact(name, levels_of, network, solid_cloud, generator):
    model = network(levels_of(GridPoses(name), last=CentroidPoses(name, align="none")))
    turns = finite_group(name, dtype=torch.float64)[1:4]
    worst = max(worst_change(model, solid_cloud, turns, generator))
    print(f"GridPoses({name}), group elements, {len(solid_cloud)} points: {worst:.1e}")
    assert worst < 1e-9


@pytest.mark.parametrize(
    "first, second, common",
    [("T", "O", "T"), ("C4", "O", "C4"), ("O", "C4", "C4"), ("C8", "C12", "C4"), ("I", "O", "T")],
)
def test_law_3_what_groups_have_in_common_is_exact(
    first, second, common, levels_of, network, solid_cloud, generator
):
    levels = levels_of(GridPoses(first), last=CentroidPoses(first, align="none"))
    levels[1] = replace(levels[1], poses=GridPoses(second), kernel_rotations=8)
    turns = finite_group(common, dtype=torch.float64)[1:4]
    worst = max(worst_change(network(levels), solid_cloud, turns, generator))
    print(f"GridPoses({first}) below GridPoses({second}), {len(solid_cloud)} points: {worst:.1e}")
    assert worst < 1e-9


def test_law_3_grids_are_approximate_and_improve(make_blob, generator):
    turns, means = haar(3, generator), {}
    for size in (8, 64, 512):
        last = CentroidPoses(size, align="none")
        levels = [
            Level(1.0, GridPoses(size), num_points=8, kernel_points=7),
            Level(2.0, last, kernel_points=7),
        ]
        # Without calibration: batch norms would blow up what little differs
        # between pooled features, the error of the grid with it.
        torch.manual_seed(0)
        model = GroupConvClassifier(levels, 4, channels=[8, 8]).double().eval()
        torch.nn.init.zeros_(model.head[-1].bias)
        changes = [
            change
            for seed in range(3)
            for change in worst_change(model, make_blob(20, seed), turns, generator)
        ]
        means[size] = sum(changes) / len(changes)
    print("super-Fibonacci grids, mean change:", {k: f"{v:.3f}" for k, v in means.items()})
    assert means[8] > 1.5 * means[64] > 2.25 * means[512] > 1e-6


def test_law_3_float32(levels_of, network, make_blob, generator):
    model, changes = network(levels_of(refine=1)), []
    for seed in range(6):
        pos = make_blob(40, seed).float().double()
        changes += worst_change(model, pos, haar(2, generator), generator, torch.float32)
    changes = torch.tensor(changes)
    print(f"float32 input: median {changes.median():.1e}, worst {changes.max():.1e}")
    assert changes.median() < 1e-4


def regular_clouds():
    """What is measured or drawn on a grid: exact ties everywhere."""
    angle = torch.arange(24, dtype=torch.float64) * (math.pi / 12)
    ring = torch.stack([0.5 * angle.cos(), 0.5 * angle.sin(), torch.zeros_like(angle)], 1)
    sides = ((0.9, 8), (0.5, 5), (0.3, 4))
    axes = [torch.linspace(-half, half, num, dtype=torch.float64) for half, num in sides]
    height = torch.linspace(-0.8, 0.8, 9, dtype=torch.float64)[:, None, None]
    tube = (ring + height * torch.eye(3, dtype=torch.float64)[2]).flatten(0, 1)
    return {**symmetric_clouds(), "tube": tube, "box": torch.cartesian_prod(*axes)}


# Not of pairs: their kernel takes the signs of tiny products, fifty times as large.
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "pairs"])
@pytest.mark.parametrize("cloud", regular_clouds())
def test_law_3_symmetric_clouds_in_float32(name, cloud, generator):
    """Ties that float32 points break are ties still: clouds are read in float32, from files and
    in every ``Data``."""
    model, pos = randomized_network(**preset(name)), regular_clouds()[cloud]
    changes = worst_change(model, pos, haar(3, generator), generator, torch.float32)
    print(f"{name}, {cloud}, float32 points: worst {max(changes):.1e}")
    assert max(changes) < 1e-2


@pytest.mark.parametrize("sampler", DATA_DRIVEN, ids=str)
def test_law_3_poses_move_and_their_features_stay(sampler, levels_of, make_blob, generator):
    levels = levels_of(sampler, refine=1)
    pos, turn = make_blob(40), haar(1, generator)[0]
    before = build_pose_graph(pos, levels)
    after = build_pose_graph(pos @ turn.T + 4.0, levels)
    for a, b in zip(before.levels, after.levels, strict=True):
        torch.testing.assert_close(b.pos, a.pos @ turn.T + 4.0, atol=1e-8, rtol=0)
        torch.testing.assert_close(b.rot, turn @ a.rot, atol=1e-8, rtol=0)
        assert torch.equal(a.weight, b.weight)
    torch.testing.assert_close(before.levels[0].lift, after.levels[0].lift, atol=1e-8, rtol=0)


def test_law_3_scale_where_normalised(levels_of, network, make_blob):
    model, normalize = network(levels_of()), NormalizeScale()
    before, after = (
        logits(model, normalize(Data(pos=scale * make_blob(30))).pos) for scale in (1.0, 70.0)
    )
    torch.testing.assert_close(before, after, atol=1e-9, rtol=0)


# 4. A cloud alone is the same cloud in a batch.


@pytest.mark.parametrize("budget", [{"num": 12}, {"num": None, "ratio": 0.05}], ids=str)
def test_law_4_alone_as_in_a_batch(budget, levels_of, network, make_blob):
    model = network(levels_of(**budget))  # with a ratio, counts differ from cloud to cloud
    graphs = [build_pose_graph(make_blob(n, n), model.levels) for n in (3, 40, 17)]
    with torch.no_grad():
        together = model(PoseGraph.batch(graphs))
        alone = torch.cat([model(graph) for graph in graphs])
    print(f"batch against alone: {float((together - alone).abs().max()):.1e}")
    torch.testing.assert_close(together, alone)


# 5. FPS; tests/ops/test_fps.py compares it with a reference on ties and copies.


def test_law_5_fps_is_greedy_and_exact(generator):
    x = torch.randn(60, 4, dtype=torch.float64, generator=generator)
    index, assignment, distance = farthest_point_sampling(x, 20)
    apart = torch.cdist(x, x)
    for m in range(1, 20):
        assert apart[:, index[:m]].min(1).values.argmax() == index[m]
    assert len(index.unique()) == 20
    assert torch.equal(assignment, apart[:, index].argmin(1))
    torch.testing.assert_close(distance, apart[:, index].min(1).values, atol=1e-7, rtol=0)


# 6. Coalesced as uncoalesced; weights move. (Cached graphs: tests/test_graph_store.py.)


@pytest.mark.parametrize("sampler", [GridPoses("O"), TangentPoses(6)], ids=str)
@pytest.mark.parametrize("blend", [1, 4])
def test_law_6_coalesced_as_uncoalesced(sampler, blend, levels_of, make_blob, generator):
    levels = levels_of(sampler, num=15, blend=blend)
    pos = make_blob(25)
    graph, sampled = build_pose_graph(pos, levels, embeddings=True)
    full = build_pose_graph(pos, dense(levels))
    x = torch.randn(15, 3, dtype=torch.float64, generator=generator)
    z = sparse_product(x, graph.levels[1], graph.levels[0].count)
    spread = sampled[0].chosen.spread(x)
    every = sparse_product(spread, full.levels[1], full.levels[0].count)
    torch.testing.assert_close(z, every[sampled[1].chosen.index])
    assert len(graph.levels[1].val) < len(full.levels[1].val)


def test_law_6_weights_move_between_the_three_ways(levels_of, network, make_blob):
    trained = network(levels_of(num=12))
    pos = make_blob(20)
    for levels in (levels_of(num=None), levels_of(num=12), levels_of(num=5, refine=2, blend=3)):
        other = network(levels, seed=9)
        assert not torch.allclose(logits(other, pos), logits(trained, pos, levels))
        other.load_state_dict(trained.state_dict(), strict=True)
        torch.testing.assert_close(logits(other, pos), logits(trained, pos, levels))
        with torch.no_grad():
            trained_online = copy.deepcopy(trained)
            trained_online.levels = levels
            expected = forward_online(trained_online, [pos])
            torch.testing.assert_close(forward_online(other, [pos]), expected)


# 7. Gradients; tests/nn checks each layer.


def test_law_7_gradcheck_of_a_network(levels_of, network, make_blob):
    model = network(levels_of(TangentPoses(4), num=8))
    graph = build_pose_graph(make_blob(15), model.levels)

    def run(lift):
        graph.levels[0].lift = lift
        return model(graph)

    lift = graph.levels[0].lift.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (lift,), fast_mode=True)

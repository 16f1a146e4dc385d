"""What the levels of a graph take from each other and from their settings."""

import warnings

import pytest
import torch

from pcequi.errors import ScaleWarning
from pcequi.models.online import online_graph
from pcequi.nn import GroupConvBlock
from pcequi.normals import estimate_normals
from pcequi.ops import farthest_point_sampling
from pcequi.pose_graph import GraphBuilder, Level, build_pose_graph, pose_edges
from pcequi.pose_graph.scale import warn_of_scale
from pcequi.poses import GridPoses, TangentPoses
from pcequi.rotations import finite_group, random_rotations
from pcequi.sampling import FeatureSampler


def test_values_of_the_matrix_stay_in_32_bits(levels_of, network, make_blob):
    model = network(levels_of(num=8)).to(torch.bfloat16)
    assert all(
        level.val is None or level.val.dtype == torch.float32
        for level in online_graph(model, [make_blob(20)] * 2).levels
    )


def test_a_pointwise_layer_of_zeros_leaves_the_convolution(make_blob, levels_of):
    levels = levels_of(num=6)
    below, level = build_pose_graph(make_blob(12), levels, dtype=torch.float64).levels[:2]
    block = GroupConvBlock(2, 5, levels[1].kernel()).double().eval()
    torch.nn.init.zeros_(block.pointwise.weight)
    x = torch.randn(below.num, 2, dtype=torch.float64)
    conv = block.conv.compressed(x, level, below.count, constant=True)
    torch.testing.assert_close(block(x, level, below.count), block.norm(conv).relu())


def test_the_more_points_the_smaller_a_radius_may_be():
    one, levels = torch.tensor(1.0), [Level(0.05)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale(one, 2500, levels)  # points about 0.02 apart
    with pytest.warns(ScaleWarning):
        warn_of_scale(one * 5, 400, levels)  # about 0.25 apart
    with pytest.warns(ScaleWarning):
        warn_of_scale(one * 5, torch.tensor([400]), levels)


def test_a_level_has_no_more_points_than_the_one_below(make_blob):
    levels = [Level(0.5, GridPoses("D2"), num_points=n) for n in (12, 7, 10, None)]
    _, sampled = build_pose_graph(make_blob(20), levels, embeddings=True)
    assert [len(level.points) for level in sampled] == [12, 7, 7, 7]


def test_each_level_estimates_normals_from_as_many_neighbours_as_it_asks_for(make_blob):
    pos, numbers = make_blob(60), (8, 16)
    levels = [Level(0.5, TangentPoses(4, num_neighbors=n)) for n in numbers]
    _, sampled = build_pose_graph(pos, levels, embeddings=True)
    for level, num in zip(sampled, numbers):
        wanted = estimate_normals(pos, num)[level.points]
        torch.testing.assert_close(level.poses.rot[:, 0, :, 2], wanted)


def test_grids_that_are_fixed_in_the_world_stay_there(make_blob):
    levels = [Level(0.5, GridPoses(name, "none")) for name in ("C8", "O")]
    for seed in range(6):
        _, sampled = build_pose_graph(make_blob(20, seed), levels, embeddings=True)
        for level, name in zip(sampled, ("C8", "O")):
            group = finite_group(name, dtype=torch.float64)
            apart = (level.poses.rot[0][:, None] - group).abs().amax((2, 3))
            assert apart.min(1).values.max() < 1e-9


def test_seeds_are_taken_where_all_points_carry_poses(make_blob):
    level = Level(0.5, GridPoses("D2"), FeatureSampler(num=20, refine=1, seeds=12))
    builder = GraphBuilder(make_blob(40), [level])
    step = builder.level(0)
    points = step.sample().index // 4
    assert torch.isin(points, farthest_point_sampling(builder.pos, 12)[0]).all()


def test_the_lift_of_a_mean_is_the_mean_of_what_its_poses_see(make_blob):
    level = Level(0.5, GridPoses("D2"), FeatureSampler(num=9, refine=1, center="mean"))
    graph, (sampled,) = build_pose_graph(make_blob(20), [level], embeddings=True)
    rows, own = sampled.embedding.flatten(0, 1), sampled.chosen.assignment
    wanted = torch.stack([rows[own == m].mean(0) for m in range(9)])
    torch.testing.assert_close(graph.levels[0].lift, wanted)


def test_the_pose_nearest_in_rotation_is_read(make_blob, generator):
    source, level = TangentPoses(60)(make_blob(10), None), Level(0.9)
    rot = random_rotations(10, generator=generator, dtype=torch.float64)
    edges = pose_edges(source.pos, rot, source, level)
    pose, target = edges.edge_index
    trace = torch.einsum("eij,ekij->ek", rot[target], source.rot[pose // 60])
    read = trace.gather(1, (pose % 60)[:, None])[:, 0]
    torch.testing.assert_close(read, trace.max(1).values, atol=1e-4, rtol=0)


def test_what_a_point_reads_sums_to_one(make_blob, levels_of):
    graph = build_pose_graph(make_blob(20), levels_of(num=9), points=True)
    for number, level in enumerate(graph.levels):
        ones = torch.ones(level.num, 1, dtype=torch.float64)
        torch.testing.assert_close(graph.to_points(ones, number), torch.ones(20, 1).double())


def test_a_row_of_a_mean_is_the_mean_of_its_members_rows(make_blob):
    sampling = FeatureSampler(num=9, refine=1, center="mean")
    levels = [Level(0.5, GridPoses("D2"), sampling), Level(0.8, GridPoses("D2"), sampling)]
    builder = GraphBuilder(make_blob(20), levels)
    first = builder.level(0)
    builder.finish(first, first.sample())
    step = builder.level(1)
    chosen = step.sample()

    def rows(ptr, col, val):
        row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
        return val.new_zeros(len(ptr) - 1, 9).index_put_((row, col), val).view(-1, 15, 9)

    every, means = rows(*step.operator()), rows(*step.operator(chosen))
    wanted = torch.stack([every[chosen.assignment == m].mean(0) for m in range(9)])
    torch.testing.assert_close(means, wanted)


class Counted(GridPoses):
    """A sampler of a user's own, which is a grid as well."""

    seen: list

    def __call__(self, pos, normal=None):
        self.seen.append(normal is None)
        return super().__call__(pos, normal)


def test_grids_are_found_once_but_those_of_a_user_are_asked_for_each_level(make_blob):
    own = Counted("D2", "principal")
    own.__class__.seen = []
    levels = [Level(0.5, own), Level(0.8, own, normals=True)]
    build_pose_graph(make_blob(20), levels)
    assert own.seen == [True, False]
    grid = GridPoses("D2", "principal")
    builder = GraphBuilder(make_blob(20), [Level(0.5, grid), Level(0.8, grid)])
    builder.finish(first := builder.level(0), first.sample())
    assert builder.level(1).poses is first.poses

"""What representatives stand for: the rows that give all poses back with the least error."""

import pytest
import torch

from pcequi import centers
from pcequi.centers import center_rows, center_weights
from pcequi.errors import ArgumentError, ShapeError
from pcequi.ops import coalesce_rows, combined_rows, faded, row_pointer, turned_rows
from pcequi.orbits import basis_turns, group_products
from pcequi.pose_graph import GraphBuilder, Level, build_pose_graph, orbit_turns
from pcequi.poses import GridPoses, TangentPoses
from pcequi.rotations import finite_group, random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.testing import symmetric_clouds

FREE, ORBITS = {"orbits": False}, {"orbits": True}
CASES = [
    (GridPoses("D2", "manhattan"), ORBITS),  # characters are real
    (GridPoses("C2", "principal"), ORBITS),
    (GridPoses("C4", "principal"), ORBITS),  # they are not
    (GridPoses("O", "principal"), ORBITS),  # nor does the group commute
    (GridPoses("D2", "manhattan"), FREE),
    (TangentPoses(4), ORBITS),
    (TangentPoses(6), FREE),
]


def builder_of(cloud, poses, num=24, blend=6, **more):
    """A builder, its second level before it samples, and the choice there."""
    sampling = FeatureSampler(num=num, refine=2, center="mean", blend=blend, **more)
    builder = GraphBuilder(cloud, [Level(0.6, poses, sampling), Level(0.9, poses, sampling)])
    first = builder.level(0)
    builder.finish(first, first.sample())
    step = builder.level(1)
    return builder, step, step.sample()


def shares(chosen):
    """S, as a matrix."""
    every = chosen.share.new_zeros(len(chosen.shared), chosen.num)
    return every.scatter_add_(1, chosen.shared, chosen.share)


def matrix(rows, columns):
    """[R, S] of CSR."""
    ptr, col, val = rows
    row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
    return val.new_zeros(len(ptr) - 1, columns).index_put_((row, col.long()), val)


@pytest.fixture(params=CASES, ids=str)
def built(request, make_blob):
    poses, options = request.param
    return builder_of(make_blob(30), poses, **options)


def test_nothing_is_left_that_other_rows_of_the_representatives_could_explain(built, generator):
    _, step, chosen = built
    rows = torch.randn(step.poses.num, 3, dtype=torch.float64, generator=generator)
    products, spread = step._products(), shares(chosen)
    if products is not None:  # what orbits share is blind to rows that are no functions on them
        rows = step.embedding.flatten(0, 1)
    left = rows - chosen.spread(center_rows(chosen, rows, products))
    assert left.norm() > 1e-3
    torch.testing.assert_close(spread.T @ left, torch.zeros(chosen.num, left.shape[1]).double())


@pytest.mark.parametrize("blend", [1, 6])
@pytest.mark.parametrize("poses, options", CASES, ids=str)
def test_weights_make_the_rows(poses, options, blend, make_blob, monkeypatch):
    monkeypatch.setattr(centers, "LEAST", 0.0)
    _, step, chosen = builder_of(make_blob(30), poses, blend=blend, **options)
    rows, products = step.embedding.flatten(0, 1), step._products()
    weight = center_weights(chosen, products)
    torch.testing.assert_close(weight @ rows, center_rows(chosen, rows, products))
    torch.testing.assert_close(weight @ shares(chosen), torch.eye(chosen.num).double())
    if products is not None:
        first = center_weights(chosen, products, first=True)
        torch.testing.assert_close(first, weight[:: len(products)])
    if blend == 1:
        members = torch.nn.functional.one_hot(chosen.assignment, chosen.num).double()
        torch.testing.assert_close(weight, (members / members.sum(0)).T)


def test_the_compiled_fit_is_that_of_torch(built, monkeypatch):
    if not centers.HAS_NUMBA:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(centers, "LEAST", 0.0)
    _, step, chosen = built
    products, rows = step._products(), step.embedding.flatten(0, 1)

    def found():
        return center_rows(chosen, rows, products), center_weights(chosen, products)

    compiled = found()
    monkeypatch.setattr(centers, "HAS_NUMBA", False)
    for one, other in zip(compiled, found()):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_derivatives_go_through_the_fit(built, generator):
    """Forward and backward; kernels have none and leave it to torch."""
    _, step, chosen = built
    products = step._products()
    rows, tangent = torch.randn(2, step.poses.num, 3, dtype=torch.float64, generator=generator)

    def fit(rows):
        return center_rows(chosen, rows, products)

    for one, other in zip(torch.func.jvp(fit, (rows,), (tangent,)), (fit(rows), fit(tangent))):
        torch.testing.assert_close(one, other)
    mapped = torch.func.vmap(fit)(torch.stack([rows, tangent]))
    torch.testing.assert_close(mapped, torch.stack([fit(rows), fit(tangent)]))
    with torch.autograd.forward_ad.dual_level():
        dual = fit(torch.autograd.forward_ad.make_dual(rows, tangent))
        seen = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(seen, fit(tangent))
    rows.requires_grad_()
    (gradient,) = torch.autograd.grad((fit(rows) * fit(tangent)).sum(), rows)
    torch.testing.assert_close((gradient * tangent).sum(), fit(tangent).square().sum())


def test_few_weights_are_kept_and_little_is_lost(built):
    _, step, chosen = built
    products, rows = step._products(), step.embedding.flatten(0, 1)
    weight = center_weights(chosen, products)
    assert weight.count_nonzero() < 0.9 * weight.numel()
    exact = center_rows(chosen, rows, products)
    assert (weight @ rows - exact).norm() < 0.05 * exact.norm()
    medoids = rows - chosen.spread(rows[chosen.index])
    assert (rows - chosen.spread(weight @ rows)).norm() < 0.95 * medoids.norm()


def test_the_rows_of_a_are_those_of_all_poses_weighted(built, monkeypatch):
    for module in ("pcequi.centers", "pcequi.pose_graph.step"):
        monkeypatch.setattr(f"{module}.LEAST", 0.0)
    builder, step, chosen = built
    below = builder.below.num
    every = matrix(step.operator(), below).view(step.poses.num, -1)
    made = matrix(step.operator(chosen), below).view(chosen.num, -1)
    torch.testing.assert_close(made, center_weights(chosen, step._products()) @ every)
    spread, error = shares(chosen), {}
    for name, rows in (("fitted", made), ("medoids", every[chosen.index])):
        error[name] = (every - spread @ rows).norm()
    assert error["fitted"] < 0.95 * error["medoids"]


def test_small_entries_of_a_fade(built, monkeypatch):
    builder, step, chosen = built
    below = builder.below.num
    few = step.operator(chosen)
    monkeypatch.setattr("pcequi.pose_graph.step.LEAST", 0.0)
    every = step.operator(chosen)
    assert len(few[1]) < len(every[1])
    wanted = faded(matrix(every, below), centers.LEAST, 1)
    torch.testing.assert_close(matrix(few, below), wanted)


def test_a_graph_of_first_poses_is_that_of_all(make_blob):
    sampling = FeatureSampler(num=24, refine=2, center="mean", blend=6, orbits=True)
    levels = [Level(r, GridPoses("D2", "manhattan"), sampling) for r in (0.6, 0.9)]
    assert orbit_turns(*levels) is not None
    every, first = (GraphBuilder(make_blob(30), levels) for _ in range(2))
    first.first_only = {1}
    rows = []
    for builder in (every, first):
        for number in (0, 1):
            step = builder.level(number)
            chosen = step.sample()
            if number == 0:
                builder.finish(step, chosen)
        rows.append(step.operator(chosen))
    turned = turned_rows(*rows[1], *orbit_turns(*levels))
    torch.testing.assert_close(matrix(turned, 24), matrix(rows[0], 24))


@pytest.mark.parametrize("name", sorted(symmetric_clouds()))
@pytest.mark.parametrize("orbits", [True, False])
def test_logits_stay_on_symmetric_clouds(name, orbits, levels_of, generator):
    from pcequi.models import GroupConvClassifier

    cloud = symmetric_clouds()[name].double()
    levels = levels_of(
        GridPoses("D2", "manhattan"), num=24, refine=2, blend=6, center="mean", orbits=orbits
    )
    model = GroupConvClassifier(levels, 5, channels=[8] * len(levels)).double().eval()
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    order = torch.randperm(len(cloud), generator=generator)
    with torch.no_grad():
        plain, moved = (
            model(build_pose_graph(pos, levels)) for pos in (cloud, cloud[order] @ turn.T + 3)
        )
    torch.testing.assert_close(moved, plain, atol=1e-8, rtol=1e-8)


def test_all_poses_as_representatives_are_dense(make_blob, levels_of):
    cloud, poses = make_blob(12), GridPoses("D2", "manhattan")
    dense = levels_of(poses, num=None)
    full = levels_of(poses, num=10_000, center="mean", blend=6, orbits=True)
    graphs = [build_pose_graph(cloud, levels).levels for levels in (dense, full)]
    torch.testing.assert_close(graphs[1][0].lift, graphs[0][0].lift)
    for one, other in zip(graphs[0][1:], graphs[1][1:]):
        rows = [(row_pointer(lv.entries.long()), lv.col, lv.val) for lv in (one, other)]
        wanted, found = (matrix(row, 48) for row in rows)
        torch.testing.assert_close(found, wanted)


@pytest.fixture
def sparse(generator):
    """Rows of 6 poses with 5 functions each, of a matrix with 8 columns."""
    entry = torch.randint(0, 30 * 8, (90,), generator=generator)
    value = torch.randn(90, dtype=torch.float64, generator=generator)
    return coalesce_rows(entry // 8, entry % 8, value, 30, 8)


@pytest.mark.parametrize("compiled", [True, False])
def test_combined_rows_are_sums_of_rows(sparse, compiled, generator, monkeypatch):
    if not compiled:
        monkeypatch.setattr("pcequi.ops.sparse.HAS_NUMBA", False)
    weight = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    weight[weight.abs() < 0.5] = 0
    wanted = (weight @ matrix(sparse, 8).view(6, -1)).view(-1, 8)
    torch.testing.assert_close(matrix(combined_rows(weight, *sparse, 8), 8), wanted)
    few = matrix(combined_rows(weight, *sparse, 8, least=0.3), 8)
    torch.testing.assert_close(few, faded(wanted, 0.3, 1))


@pytest.mark.parametrize("compiled", [True, False])
def test_combined_rows_of_turned_poses(compiled, generator, monkeypatch):
    if not compiled:
        monkeypatch.setattr("pcequi.ops.sparse.HAS_NUMBA", False)
    group = finite_group("D2", dtype=torch.float64)
    turns = basis_turns(group, 7), group_products(group)
    entry = torch.randint(0, 21 * 8, (60,), generator=generator)
    value = torch.randn(60, dtype=torch.float64, generator=generator)
    first = coalesce_rows(entry // 8, entry % 8, value, 21, 8)
    weight = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    wanted = combined_rows(weight, *turned_rows(*first, *turns), 8)
    found = combined_rows(weight, *first, 8, turns=turns)
    torch.testing.assert_close(matrix(found, 8), matrix(wanted, 8))


def test_columns_that_are_no_whole_points_are_refused(sparse):
    ptr, turns = (
        torch.arange(7),
        (torch.zeros(4, 3, dtype=torch.long), group_products(finite_group("D2"))),
    )
    with pytest.raises(ArgumentError, match=r"`columns` \(=5\) must be .* multiple of the 4"):
        combined_rows(torch.ones(1, 8), ptr, ptr[:6] * 0, torch.ones(6), 5, turns=turns)


def test_combined_rows_of_small_numbers_and_of_nothing(sparse):
    ptr, col, val = sparse
    weight = torch.ones(4, 6, dtype=torch.float64)
    found = combined_rows(weight, ptr, col.to(torch.uint16), val, 8)
    for one, other in zip(found, combined_rows(weight, *sparse, 8)):
        assert torch.equal(one, other)
    ptr, col, val = combined_rows(weight, torch.zeros_like(ptr), col[:0], val[:0], 0)
    assert len(ptr) == 21 and len(col) == len(val) == int(ptr[-1]) == 0


def test_rows_that_do_not_fit_are_refused(sparse):
    ptr, col, val = sparse
    with pytest.raises(ShapeError, match=r"`weight` \(=\[4, 7\]\) must be \[M, P\]"):
        combined_rows(torch.ones(4, 7), ptr, col, val, 8)
    with pytest.raises(ShapeError, match=r"`ptr` .* must rise from 0 to .*`col` \(=1\) and `val`"):
        combined_rows(torch.ones(4, 6), ptr, col[:1], val, 8)
    with pytest.raises(ShapeError, match=r"`ptr` \(from 0 to .* must rise"):
        combined_rows(
            torch.ones(4, 6), torch.cat([ptr[:1], ptr[1:2] + 10**11, ptr[2:]]), col, val, 8
        )
    with pytest.raises(ArgumentError, match=r"`col` \(from .* must be in \[0, 3\)"):
        combined_rows(torch.ones(4, 6), ptr, col, val, 3)


@pytest.mark.parametrize("tolerance", [0.3, 1e-200])
def test_a_tolerance_bounds_the_distance_to_the_nearest_pose(tolerance, make_blob, levels_of):
    poses, cloud = GridPoses("D2", "manhattan"), make_blob(30)
    settings = {"num": 1000, "refine": 2, "blend": 6, "orbits": True, "tolerance": tolerance}
    fitted, medoids = (
        build_pose_graph(cloud, levels_of(poses, center=center, **settings), embeddings=True)
        for center in ("mean", "medoid")
    )
    for one, other in zip(fitted[1], medoids[1]):
        assert torch.equal(one.chosen.index, other.chosen.index)
        assert one.chosen.covering_radius <= max(tolerance, 1e-12)
    few = fitted[1][0].chosen.num < fitted[1][0].poses.num
    assert few == (tolerance == 0.3)
    assert torch.equal(fitted[0].levels[0].lift, medoids[0].levels[0].lift) != few

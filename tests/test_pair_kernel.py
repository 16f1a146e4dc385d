"""The kernel on pairs of points with normals: what it may see, and what it sums to."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.nn import GroupConv
from pcequi.pair_kernel import PairKernel, invariant_basis, pair_basis
from pcequi.pose_graph import Level, build_pose_graph, edges, pose_operator
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, TangentPoses
from pcequi.rotations import random_rotations

PAIRS = [(3, 3, 3, 1), (3, 2, 5, 3), (1, 1, 1, 1), (2, 4, 1, 2)]


def pairs_of_points(generator, num=200):
    offset = torch.randn(num, 3, dtype=torch.float64, generator=generator) / 2
    axis = torch.randn(num, 3, dtype=torch.float64, generator=generator)
    return offset, torch.nn.functional.normalize(axis, dim=1)


@pytest.mark.parametrize("pairs", PAIRS)
def test_functions_are_positive_and_add_up(pairs, generator):
    offset, axis = pairs_of_points(generator)
    phi = pair_basis(offset, axis, pairs)
    assert phi.shape == (200, PairKernel(pairs).num) and (phi >= 0).all()
    inside = (1 - offset.square().sum(1)).clamp_min(0)
    torch.testing.assert_close(phi.sum(1), inside)
    torch.testing.assert_close(PairKernel(pairs).mass(offset), inside)
    assert (inside == 0).any() and (inside > 0).any()


@pytest.mark.parametrize("pairs", PAIRS)
def test_neither_signs_nor_turns_about_the_normal_change_it(pairs, generator):
    offset, axis = pairs_of_points(generator)
    before = pair_basis(offset, axis, pairs)
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)  # half a turn: z becomes -z
    torch.testing.assert_close(pair_basis(offset, -axis, pairs), before)
    torch.testing.assert_close(pair_basis(offset * flip, axis * flip, pairs), before)
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = angle.cos()
    turn[1, 0], turn[0, 1] = angle.sin(), -angle.sin()
    torch.testing.assert_close(pair_basis(offset @ turn.T, axis @ turn.T, pairs), before)


def a_pair(here, there, between):
    """An offset of length 0.6 and a normal with these cosines to it and to z."""
    v = torch.tensor([(1 - here**2) ** 0.5, 0.0, here], dtype=torch.float64)
    side = torch.tensor([-here, 0.0, (1 - here**2) ** 0.5], dtype=torch.float64)
    up = (between - here * there) / (1 - here**2) ** 0.5
    across = torch.tensor([0.0, (1 - there**2 - up**2) ** 0.5, 0.0], dtype=torch.float64)
    return 0.6 * v[None], (there * v + up * side + across)[None]


def test_it_tells_hills_from_valleys_but_not_mirror_images():
    pairs, mirror = (2, 2, 3, 2), torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    hill, valley = a_pair(0.5, 0.3, 0.4), a_pair(0.5, -0.3, 0.4)
    assert (pair_basis(*hill, pairs) - pair_basis(*valley, pairs)).abs().max() > 0.02
    mirrored = pair_basis(hill[0] * mirror, hill[1] * mirror, pairs)
    torch.testing.assert_close(mirrored, pair_basis(*hill, pairs))


@pytest.mark.parametrize("pairs", PAIRS)
def test_nothing_jumps(pairs, generator):
    """Also where a sign is lost, at the point itself and at the edge of the support."""
    offset, axis = pairs_of_points(generator, 60)
    offset[:10, 2] = 0  # perpendicular here
    there = torch.nn.functional.normalize(offset[10:20], dim=1)
    axis[10:20] -= (axis[10:20] * there).sum(1, keepdim=True) * there  # perpendicular there
    axis[10:20] = torch.nn.functional.normalize(axis[10:20], dim=1)
    axis[20:30, 2] = 0
    axis[20:30] = torch.nn.functional.normalize(axis[20:30], dim=1)
    offset[30:40] = 0
    offset[40:50] = torch.nn.functional.normalize(offset[40:50], dim=1)
    before = pair_basis(offset, axis, pairs)
    change = 0.0
    for step in (1e-9, -1e-9):
        change = max(change, float((pair_basis(offset + step, axis, pairs) - before).abs().max()))
        change = max(change, float((pair_basis(offset, axis + step, pairs) - before).abs().max()))
    assert 0 < change < 1e-2


@pytest.mark.parametrize("pairs", PAIRS)
def test_second_derivatives_are_finite_where_points_coincide(pairs, generator):
    offset, axis = pairs_of_points(generator, 40)
    offset[7] = 0
    offset.requires_grad_()
    weight = torch.randn(40, PairKernel(pairs).num, dtype=torch.float64, generator=generator)

    def derivatives(basis):
        loss = (basis(offset) * weight).sum()
        (first,) = torch.autograd.grad(loss, offset, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), offset)
        return basis(offset), first, second

    def by_the_norm(offset):
        numbers = offset.norm(dim=1), offset[:, 2], (offset * axis).sum(1), axis[:, 2]
        return invariant_basis(*numbers, pairs)

    found = derivatives(lambda offset: pair_basis(offset, axis, pairs))
    assert all(bool(part.isfinite().all()) for part in found)
    elsewhere = torch.arange(40) != 7
    for one, other in zip(found, derivatives(by_the_norm), strict=True):
        torch.testing.assert_close(one[elsewhere], other[elsewhere], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0], by_the_norm(offset))  # at zero too


@pytest.mark.parametrize("pairs", PAIRS)
def test_operator_of_numba_equals_its_torch_twin(pairs, make_blob, generator, monkeypatch):
    if not edges.HAS_NUMBA:
        pytest.skip("numba is not installed")
    poses = NormalPoses(0.5)(make_blob(20))
    shared = torch.randint(0, 9, (20, 1, 3), generator=generator)
    share = torch.rand(20, 1, 3, dtype=torch.float64, generator=generator)
    level = Level(0.9, NormalPoses(0.5), pairs=pairs)

    def dense():
        ptr, col, val = pose_operator(
            poses.pos[:7], poses.rot[:7, 0], poses, shared, share, 9, level
        )
        matrix = val.new_zeros(7 * level.basis, 9)
        row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr[1:] - ptr[:-1])
        return matrix.index_put_((row, col), val, accumulate=True)

    compiled = dense()
    monkeypatch.setattr(edges, "HAS_NUMBA", False)
    torch.testing.assert_close(dense(), compiled, atol=1e-12, rtol=0)
    mass = compiled.view(7, -1).sum(1)
    assert (mass > 0.1).all()


def test_explicit_edges_give_the_compressed_layer(make_blob, generator):
    pos, sampler, pairs = make_blob(15), NormalPoses(0.5), (3, 2, 3, 2)
    levels = [Level(0.5, sampler, pairs=pairs), Level(0.8, sampler, pairs=pairs)]
    graph, sampled = build_pose_graph(pos, levels, embeddings=True)
    poses = sampled[1].poses
    found = edges.pose_edges(poses.pos, poses.rot[:, 0], poses, levels[1])
    conv = GroupConv(3, 4, levels[1].kernel()).double()
    x = torch.randn(15, 3, dtype=torch.float64, generator=generator)
    explicit = conv(x, found.edge_index, (found.offset, found.rotation))
    compressed = conv.compressed(x, graph.levels[1], graph.levels[0].count)
    torch.testing.assert_close(explicit, compressed, atol=1e-10, rtol=0)


def test_the_embedding_is_a_distribution_that_moves_with_nothing(make_blob, generator):
    pos = make_blob(30)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    level = Level(0.5, NormalPoses(0.5), pairs=(3, 3, 5, 3))
    first, moved = (
        build_pose_graph(p, [level], embeddings=True)[1][0].embedding for p in (pos, pos @ turn.T)
    )
    torch.testing.assert_close(first[..., :-3].sum(2), torch.ones(30, 1, dtype=torch.float64))
    place = pos.norm(dim=1) / pos.norm(dim=1).max()
    torch.testing.assert_close(first[..., -2].flatten().sort().values, place.sort().values)
    assert (first[..., -1] <= first[..., -2]).all() and (first[..., -3] <= 1).all()
    torch.testing.assert_close(moved, first, atol=1e-10, rtol=0)


def test_levels_survive_json():
    level = Level(0.5, NormalPoses(), pairs=[3, 3, 3, 1])
    assert Level.from_dict(level.to_dict()) == level
    assert (level.basis, level.lift_channels) == (27, 30)


@pytest.mark.parametrize("pairs", [(3, 3, 3), (3, 3, 2, 1), (0, 1, 1, 1), "3331", (99, 99, 99, 9)])
def test_numbers_that_make_no_basis(pairs):
    with pytest.raises(ArgumentError, match="`pairs`"):
        Level(0.5, NormalPoses(), pairs=pairs)


@pytest.mark.parametrize("sampler", [GridPoses("D2"), TangentPoses(2), CentroidPoses("O")], ids=str)
def test_poses_that_have_no_one_normal(sampler):
    with pytest.raises(ArgumentError, match="`poses`"):
        Level(0.5, sampler, pairs=(3, 3, 3, 1))


def test_a_level_on_pairs_needs_normals_below(make_blob):
    levels = [Level(0.5, GridPoses("D2")), Level(0.8, NormalPoses(), pairs=(3, 3, 3, 1))]
    with pytest.raises(ArgumentError, match="level below"):
        build_pose_graph(make_blob(10), levels)
    with pytest.raises(ArgumentError, match="`normals`"):
        Level(0.5, NormalPoses(), pairs=(3, 3, 3, 1), normals=True)
    with pytest.raises(ArgumentError, match="`radius`"):
        NormalPoses(0)

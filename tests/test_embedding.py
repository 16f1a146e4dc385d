"""Embeddings: the formula itself, written as loops, and what leaves it unchanged."""

import pytest
import torch

from pcequi import embedding
from pcequi.embedding import feature_projection, geometric_embedding, pair_embedding
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.kernels import kernel_points, space_basis
from pcequi.normals import estimate_normals
from pcequi.pose_graph import Level, pose_operator
from pcequi.poses import GridPoses, NormalPoses, PairPoses, Poses, TangentPoses
from pcequi.rotations import random_rotations


@pytest.fixture(params=("numba", "torch"))
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(embedding, "HAS_NUMBA", False)
    elif not embedding.HAS_NUMBA:
        pytest.skip("numba is not installed")


def reference(poses, pos, radius, num_points, normal=None):
    """One pose at a time, all points of the cloud, as the docstring has it."""
    points, width = kernel_points(num_points)
    rows = []
    for i in range(len(poses.pos)):
        for k in range(poses.num_rotations):
            frame = poses.rot[i, k]
            phi = space_basis((pos - poses.pos[i]) @ frame / radius, points.to(pos), width)
            feature = torch.ones(len(pos), 1, dtype=pos.dtype)
            if normal is not None:
                feature = torch.cat([feature, normal @ frame], 1)
            rows.append((phi.T @ feature / phi.sum()).flatten())
    return torch.stack(rows).view(len(poses.pos), poses.num_rotations, -1)


@pytest.mark.parametrize("sampler", [GridPoses("O"), TangentPoses(8), PairPoses(3)], ids=str)
@pytest.mark.parametrize("num_points", [7, 15, 25])
@pytest.mark.parametrize("with_normals", [False, True])
@pytest.mark.backend
def test_geometric_embedding_is_the_formula(backend, sampler, num_points, with_normals, make_blob):
    pos = make_blob(25)
    poses, normal = sampler(pos), estimate_normals(pos) if with_normals else None
    z = geometric_embedding(poses, pos, 0.7, num_points, normal)
    torch.testing.assert_close(z, reference(poses, pos, 0.7, num_points, normal))


def test_group_short_cut_changes_nothing(make_blob):
    poses = GridPoses("I")(pos := make_blob(20))
    plain = geometric_embedding(Poses(poses.pos, poses.rot), pos, 0.6, 27)
    torch.testing.assert_close(geometric_embedding(poses, pos, 0.6, 27), plain)


def test_a_chunked_sum_is_the_same(monkeypatch, make_blob):
    pos = make_blob(25)
    poses = TangentPoses(4)(pos)
    whole = geometric_embedding(poses, pos, 0.8)
    monkeypatch.setattr(embedding, "HAS_NUMBA", False)
    torch.testing.assert_close(geometric_embedding(poses, pos, 0.8), whole)


def test_masses_of_a_pose_sum_to_one(make_blob):
    pos = make_blob(30)
    z = geometric_embedding(GridPoses("T")(pos), pos, 0.5, 15, estimate_normals(pos))
    mass = z.view(30, 12, 15, 4)[..., 0].sum(-1)
    torch.testing.assert_close(mass, torch.ones_like(mass))


def test_embedding_is_invariant_when_all_moves(make_blob, generator):
    pos = make_blob(30)
    poses, normal = TangentPoses(4)(pos), estimate_normals(pos)
    z = geometric_embedding(poses, pos, 0.7, 15, normal)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    moved = Poses(poses.pos @ turn.T + 2, turn @ poses.rot, poses.group)
    again = geometric_embedding(moved, pos @ turn.T + 2, 0.7, 15, normal @ turn.T)
    torch.testing.assert_close(again, z, atol=1e-10, rtol=0)
    # and it does see the difference when only the cloud moves
    assert (geometric_embedding(poses, pos @ turn.T, 0.7, 15) - z[..., ::4]).abs().max() > 0.01


def test_points_outside_the_radius_do_not_count(make_blob):
    pos = make_blob(30)
    poses = GridPoses("T")(pos)
    far = torch.cat([pos, pos[:5] + 10])
    torch.testing.assert_close(
        geometric_embedding(poses, far, 0.6), geometric_embedding(poses, pos, 0.6)
    )


def test_a_lone_point_sees_itself_in_the_centre(backend):
    pos = torch.zeros(1, 3, dtype=torch.float64)
    z = geometric_embedding(GridPoses("T")(pos), pos, 1.0, 7)
    assert (z[..., 0] == z.max()).all() and torch.isfinite(z).all()


def test_projection_is_orthonormal_fixed_and_identity_when_wide():
    narrow = feature_projection(20, 6, torch.float64)
    torch.testing.assert_close(narrow.T @ narrow, torch.eye(6, dtype=torch.float64))
    torch.manual_seed(99)
    assert torch.equal(narrow, feature_projection(20, 6, torch.float64))
    for dim in (5, 9):
        assert torch.equal(feature_projection(5, dim), torch.eye(5))


def test_gradients_do_not_depend_on_numba(make_blob, monkeypatch):
    weight = torch.linspace(0, 1, 15, dtype=torch.float64)
    found = []
    for numba in (embedding.HAS_NUMBA, False):
        monkeypatch.setattr(embedding, "HAS_NUMBA", numba)
        pos = make_blob(25).requires_grad_()
        z = geometric_embedding(GridPoses("D2")(pos), pos, 0.7, 15)
        (z * weight).sum().backward()
        found.append(pos.grad)
        with torch.no_grad():
            torch.testing.assert_close(geometric_embedding(GridPoses("D2")(pos), pos, 0.7, 15), z)
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(*found)


def lift(source, target):
    return geometric_embedding(target, source, 1.0)


def lift_pairs(source, target):
    return pair_embedding(target, source, torch.ones_like(source), 1.0, (2, 2, 3, 2))


def operator(source, target, pairs=None):
    level = Level(1.0, NormalPoses() if pairs else TangentPoses(1), pairs=pairs)
    below = Poses(source, torch.eye(3, dtype=source.dtype).expand(len(source), 1, 3, 3))
    own = torch.zeros(len(source), 1, 1, dtype=torch.long)
    rows = (target.pos, target.rot[:, 0], below, own, torch.ones_like(own).to(source), 1, level)
    return pose_operator(*rows)[2]


def operator_on_pairs(source, target):
    return operator(source, target, (2, 2, 3, 2))


@pytest.mark.parametrize("what", [lift, lift_pairs, operator, operator_on_pairs])
def test_gradients_are_finite_where_all_neighbours_are_at_the_edge(what):
    """Two poses: the functions of one vanish at all points within its radius."""
    source = torch.tensor([[1.0, 0, 0], [3, 0, 0], [3.1, 0.2, 0]], dtype=torch.float64)
    source.requires_grad_()
    frames = torch.eye(3, dtype=torch.float64).expand(2, 1, 3, 3)
    value = what(source, Poses(torch.tensor([[0.0, 0, 0], [3, 0, 0.1]]).double(), frames))
    (gradient,) = torch.autograd.grad((value - 30).square().sum(), source)
    assert torch.isfinite(value).all() and torch.isfinite(gradient).all()
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"pos": torch.zeros(9, 2)}, ShapeError, r"`pos` \(=\[9, 2\]\) must be"),
        ({"pos": torch.zeros(9, 3).long()}, ShapeError, "`pos` .* must be floating"),
        ({"pos": torch.zeros(9, 3).half()}, ShapeError, "`pos` .* float32 or float64"),
        ({"pos": torch.full((9, 3), torch.nan)}, DataError, "`pos` has 9 points that are NaN"),
        ({"radius": 0.0}, ArgumentError, r"`radius` \(=0.0\) must be positive"),
        ({"radius": float("nan")}, ArgumentError, "`radius` .* must be positive"),
        ({"num_points": 4}, ArgumentError, r"`num_points` \(=4\) must be one of"),
        ({"normal": torch.zeros(5, 3)}, ShapeError, r"`normal` \(=\[5, 3\]\) must match `pos`"),
        ({"x": torch.zeros(5, 1)}, ShapeError, r"`x` \(=\[5, 1\]\) must be \[points of `pos`"),
    ],
)
def test_what_a_pose_cannot_see_is_refused(backend, make_blob, change, error, words):
    pos = make_blob(9)
    with pytest.raises(error, match=words):
        geometric_embedding(**{"poses": TangentPoses(2)(pos), "pos": pos, "radius": 0.5} | change)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"pos": torch.zeros(9, 2)}, ShapeError, r"`pos` \(=\[9, 2\]\) must be"),
        ({"axes": torch.zeros(5, 3)}, ShapeError, r"`axes` \(=\[5, 3\]\) must match `pos`"),
        ({"radius": -1.0}, ArgumentError, r"`radius` \(=-1.0\) must be positive"),
        ({"pairs": (3, 3)}, ArgumentError, r"`pairs` \(=\(3, 3\)\) must be four numbers"),
        ({"poses": 2}, ArgumentError, r"`poses` \(=2 a point\) must be one a point"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(backend, make_blob, change, error, words):
    pos = make_blob(9)
    poses = NormalPoses()(pos)
    known = {"poses": poses, "pos": pos, "axes": poses.rot[:, 0, :, 2]}
    if "poses" in change:
        change = {"poses": TangentPoses(change["poses"])(pos)}
    with pytest.raises(error, match=words):
        pair_embedding(**known | {"radius": 0.5, "pairs": (3, 3, 3, 1)} | change)

"""Pose sets: proper frames that move with the cloud, on every kind of cloud."""

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.normals import any_perpendicular, estimate_normals, frames_from_two
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import (
    CentroidPoses,
    GridPoses,
    NormalPoses,
    PairPoses,
    TangentPoses,
    check_cloud,
    principal_frame,
    sampler_from_dict,
    sampler_to_dict,
)
from pcequi.rotations import finite_group, random_rotations
from pcequi.sampling import FeatureSampler

SAMPLERS = [
    GridPoses("O"), GridPoses("C4"), GridPoses(5), GridPoses("O", "principal"), TangentPoses(6),
    PairPoses(3), NormalPoses(), CentroidPoses("O"),
]  # fmt: skip
DATA_DRIVEN = [GridPoses("O", "principal"), TangentPoses(8), PairPoses(4), CentroidPoses("O")]


def assert_frames(rot, atol=1e-9):
    eye = torch.eye(3, dtype=rot.dtype).expand_as(rot)
    torch.testing.assert_close(rot.transpose(-1, -2) @ rot, eye, atol=atol, rtol=0)
    assert (torch.linalg.det(rot) > 0).all()


def set_distance(a, b):
    """Largest distance from a frame of one set to the nearest of the other."""
    a, b = a.flatten(-2), b.flatten(-2)
    return float(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").amin(-1).max())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frames_are_rotations_on_degenerate_clouds(sampler, dtype, degenerate_cloud):
    poses = sampler(degenerate_cloud.to(dtype))
    assert poses.rot.dtype == dtype and torch.isfinite(poses.rot).all()
    assert_frames(poses.rot, atol=1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_frames_are_rotations_and_group_factors_them(sampler, solid_cloud):
    poses = sampler(solid_cloud)
    points = 1 if isinstance(sampler, CentroidPoses) else len(solid_cloud)
    assert poses.rot.shape == (points, poses.num_rotations, 3, 3)
    assert poses.num == points * poses.num_rotations
    assert_frames(poses.rot)
    if poses.group is not None:
        torch.testing.assert_close(poses.rot[:, :1] @ poses.group, poses.rot + 0)


@pytest.mark.parametrize("sampler", DATA_DRIVEN, ids=str)
def test_pose_sets_turn_and_move_with_a_generic_cloud(sampler, make_blob, generator):
    pos = make_blob(50)
    before = sampler(pos)
    for turn in random_rotations(3, generator=generator, dtype=torch.float64):
        after = sampler(pos @ turn.T + 3.0)
        torch.testing.assert_close(after.pos, before.pos @ turn.T + 3.0)
        assert set_distance(turn @ before.rot, after.rot) < 1e-9


@pytest.mark.parametrize("name", ["T", "O", "I", "C4"])
def test_a_grid_is_mapped_to_itself_by_its_group_alone(name, make_blob):
    pos = make_blob(10)
    before = GridPoses(name)(pos)
    for turn in finite_group(name, dtype=torch.float64):
        assert set_distance(turn @ before.rot, GridPoses(name)(pos @ turn.T).rot) < 1e-12
    other = random_rotations(1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)[0]
    assert set_distance(other @ before.rot, before.rot) > 0.1


def test_normals_of_a_sphere_point_outward(named_cloud):
    pos = named_cloud("sphere")
    # Eighty points: the tangent plane is seen through a wide cap.
    assert ((estimate_normals(pos, 9) * pos).sum(1) > 0.97).all()


def test_normals_of_a_plane_are_perpendicular_and_agree(named_cloud):
    pos = named_cloud("coplanar")
    normal = estimate_normals(pos)
    assert (normal[:, 2].abs() > 1 - 1e-9).all()
    assert (normal[:, 2] == normal[0, 2]).all()


def test_normals_turn_with_the_cloud(make_blob, generator):
    pos = make_blob(60)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    normal = estimate_normals(pos, 12)
    torch.testing.assert_close(estimate_normals(pos @ turn.T + 1, 12), normal @ turn.T)


def test_inside_a_lattice_the_normal_is_the_way_out(named_cloud):
    pos = named_cloud("grid")
    axis = ((pos.abs() > 1e-9).sum(1) == 1).nonzero()[:, 0]
    normal = estimate_normals(pos, 7)[axis]
    expected = torch.nn.functional.normalize(pos[axis], dim=1)
    inner = pos[axis].norm(dim=1) < 0.4
    torch.testing.assert_close(normal[inner], expected[inner])


def test_given_normals_are_used_and_scaled(make_blob):
    pos = make_blob(12)
    poses = TangentPoses(3)(pos, pos * 5)
    expected = torch.nn.functional.normalize(pos, dim=1)
    torch.testing.assert_close(poses.rot[:, 0, :, 2], expected)


def test_tangent_poses_look_at_the_centroid(make_blob):
    pos = make_blob(30)
    base = TangentPoses(4)(pos).rot[:, 0]
    to_center = pos.mean(0) - pos
    assert (torch.einsum("nji,nj->ni", base, to_center)[:, 1].abs() < 1e-12).all()
    assert (torch.einsum("nji,nj->ni", base, to_center)[:, 0] > 0).all()


def test_pair_poses_look_at_neighbours(make_blob):
    pos = make_blob(30)
    rot = PairPoses(3, 8)(pos).rot
    offset = torch.nn.functional.normalize(pos - pos[:, None], dim=2)
    local = torch.einsum("nkji,nmj->nkmi", rot, offset.nan_to_num())
    in_plane = (local[..., 1].abs() < 1e-9) & (local[..., 0] > 0)
    assert in_plane.any(2).all()  # every frame has a point straight ahead


def test_principal_frame_orders_variances_and_turns(make_blob, generator):
    pos = make_blob(50)
    frame = principal_frame(pos)
    spread = ((pos - pos.mean(0)) @ frame).square().sum(0)
    assert spread[0] > spread[1] > spread[2]
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    group = finite_group("O", dtype=torch.float64)
    moved = principal_frame(pos @ turn.T)
    assert set_distance((turn @ frame @ group)[None], (moved @ group)[None]) < 1e-9


# In a cube the fourth moment across a diagonal is the same in every direction:
# there the canonical order decides, see tests/test_canonical.py.
@pytest.mark.parametrize("name", ["corners", "prism"])
def test_degenerate_principal_axes_differ_by_a_symmetry_of_the_cloud(name, named_cloud, generator):
    pos = named_cloud(name)
    frame = principal_frame(pos)
    for turn in random_rotations(3, generator=generator, dtype=torch.float64):
        order = torch.randperm(len(pos), generator=generator)
        moved = principal_frame((pos @ turn.T)[order])
        seen = (pos @ turn.T) @ moved  # the turned cloud in its own frame
        group = finite_group("O", dtype=torch.float64)
        group = torch.cat([group, -group])  # with mirror images
        images = torch.einsum("gij,ni->gnj", group, pos @ frame)
        nearest = torch.cdist(images, seen.expand(48, -1, -1)).amin(2).amax(1)
        assert nearest.min() < 1e-6


def test_any_perpendicular_and_frames_of_parallel_directions(generator):
    z = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator).double(), dim=1)
    z = torch.cat([z, torch.eye(3).double(), z.new_tensor([[0.81, 0.53, 0.2514]])])
    z = torch.nn.functional.normalize(z, dim=1)
    side = any_perpendicular(z)
    assert ((side * z).sum(1).abs() < 1e-12).all()
    assert ((side.norm(dim=1) - 1).abs() < 1e-12).all()
    assert_frames(frames_from_two(z, 3 * z))
    assert_frames(frames_from_two(z, torch.zeros_like(z)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_samplers_survive_a_round_trip(sampler):
    assert sampler_from_dict(sampler_to_dict(sampler)) == sampler


@pytest.mark.parametrize(
    ("pos", "error", "message"),
    [
        ([[0.0, 0, 0]], ShapeError, r"`pos` \(=list\) must be a tensor"),
        (torch.zeros(3), ShapeError, r"`pos` \(=\[3\]\) must be a tensor of shape \[points, 3\]"),
        (torch.zeros(4, 2), ShapeError, r"`pos` \(=\[4, 2\]\)"),
        (torch.zeros(4, 3, dtype=torch.long), ShapeError, "call `.float\\(\\)`"),
        (torch.zeros(0, 3), DataError, "is empty; a cloud needs at least one point"),
        (torch.tensor([[0.0, 0, 0], [0, torch.nan, 0]]), DataError, "has 1 points .* point 1 = "),
        (torch.tensor([[torch.inf, 0, 0]]), DataError, "NaN or infinite .*; remove them"),
    ],
)
def test_unusable_clouds_are_refused(pos, error, message):
    with pytest.raises(error, match=message):
        check_cloud(pos)
    for sampler in (GridPoses("T"), TangentPoses(), PairPoses(), CentroidPoses()):
        with pytest.raises(error, match=message):
            sampler(pos)


@pytest.mark.parametrize("rotations", ["C3000000", "D99999999999999999999", 200_000])
def test_settings_that_would_fill_the_memory_are_refused(rotations):
    for sampler in (GridPoses, CentroidPoses):
        with pytest.raises(ArgumentError, match=r"`rotations` .* at most 100000"):
            sampler(rotations)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_points_in_16_bits_are_refused(dtype, make_blob):
    for sampler in (GridPoses("O", "principal"), TangentPoses(2)):
        with pytest.raises(ShapeError, match="must be float32 or float64"):
            sampler(make_blob(20).to(dtype))


def test_normals_of_another_precision_are_cast(make_blob):
    pos = make_blob(20)
    normal = estimate_normals(pos)
    assert TangentPoses(2)(pos.float(), normal).rot.dtype == torch.float32


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"`align` \(='up'\) must be one of"):
        GridPoses("O", "up")
    with pytest.raises(ArgumentError, match=r"`align` \(='up'\) must be one of"):
        CentroidPoses("O", align="up")
    with pytest.raises(ArgumentError, match=r"`rotations` \(=1000000000\) must be at most 100000"):
        GridPoses(1_000_000_000)
    with pytest.raises(ArgumentError, match="X7"):
        GridPoses("X7")
    with pytest.raises(ArgumentError, match=r"`num_rotations` \(=0\) must be a whole number"):
        TangentPoses(0)
    with pytest.raises(ArgumentError, match=r"`num_rotations` \(=9\) must be between 1 and .*=5"):
        PairPoses(9, 5)
    with pytest.raises(ArgumentError, match=r"`type` \(='Nothing'\) must be one of"):
        sampler_from_dict({"type": "Nothing"})
    with pytest.raises(ShapeError, match=r"`normal` \(=\[2, 3\]\) must match `pos` \(=\[4, 3\]\)"):
        TangentPoses()(torch.rand(4, 3), torch.rand(2, 3))
    with pytest.raises(DataError, match="zero, NaN or infinite; drop it to estimate"):
        PairPoses()(torch.rand(4, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sampler",
    [*SAMPLERS, GridPoses("D2", "manhattan"), CentroidPoses("O", "manhattan")],
    ids=str,
)
def test_gradients_flow_through_positions_alone(sampler, dtype, degenerate_cloud):
    pos = degenerate_cloud.to(dtype).clone().requires_grad_()
    poses = sampler(pos)
    assert not poses.rot.requires_grad
    (gradient,) = torch.autograd.grad(poses.pos.sum(), pos)
    assert torch.isfinite(gradient).all() and gradient.sum() > 0


def test_a_tie_for_the_last_neighbour_turns_no_tangent_frame(generator):
    # Points of a grid on the plane x = 0 look to its middle along their normals where they lie
    # above it: then the neighbourhood decides, whose rim is equally far.
    lattice = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64)] * 3)
    order = torch.randperm(64, generator=generator)
    here, there = (TangentPoses(1)(cloud).rot for cloud in (lattice, lattice[order]))
    torch.testing.assert_close(here[order], there)


@pytest.mark.parametrize("num_neighbors", [3, 4, 5])
def test_neighbours_that_are_all_equally_far_decide_nothing(num_neighbors, generator):
    axis = torch.arange(3, dtype=torch.float64)
    cloud = torch.cartesian_prod(axis, axis, axis)[:19]
    before = estimate_normals(cloud, num_neighbors)
    for turn in random_rotations(8, generator=generator, dtype=torch.float64):
        after = estimate_normals(cloud @ turn.T, num_neighbors)
        torch.testing.assert_close(after, before @ turn.T, rtol=0, atol=1e-6)


def test_the_middle_of_the_face_of_a_box_is_exact_in_a_pose_graph_alone(network, generator):
    # The directions to the centroid and to the neighbours' mean lie along the normal there; the
    # box fixes the x axis up to half turns, the sampler by a world axis.
    grid = torch.cartesian_prod(
        *(torch.linspace(-h, h, n, dtype=torch.float64) for h, n in ((0.8, 9), (0.5, 7), (0.3, 5)))
    )
    pos = grid[(grid.abs() > grid.new_tensor([0.79, 0.49, 0.29])).any(1)]
    middle = int((pos - pos.new_tensor([0, 0, 0.3])).norm(dim=1).argmin())
    sampler = TangentPoses(2)
    levels = [Level(0.4, sampler, FeatureSampler(num=30)), Level(0.8, sampler)]
    model, frames = network(levels), sampler(pos).rot[middle]
    before = model(build_pose_graph(pos, levels)).detach()
    for turn in random_rotations(3, generator=generator, dtype=torch.float64):
        order = torch.randperm(len(pos), generator=generator)
        assert set_distance(turn @ frames, sampler(pos @ turn.T).rot[middle]) > 0.1
        after = model(build_pose_graph((pos @ turn.T + 2.0)[order], levels))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-9 * float(before.abs().max()))

"""Each cause is planted, and the checker names it."""

import math

import numpy as np
import pytest
import torch

from pcequi.errors import ArgumentError, DataError
from pcequi.pose_graph import build_pose_graph
from pcequi.testing import (
    CAUSES,
    as_points,
    as_vectors,
    assert_equivariant,
    check_equivariance,
    generic_clouds,
    symmetric_clouds,
)


def profile(distance):
    """Smooth invariant features of distances [N, K]."""
    return torch.exp(-distance.square()[..., None] * distance.new_tensor([1.0, 4.0, 16.0]))


def neighbour_offsets(pos, k=8):
    order = torch.cdist(pos, pos).argsort(dim=1, stable=True)[:, 1 : k + 1]
    return pos[order] - pos[:, None]


def honest(pos):
    return profile(torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")).mean((0, 1))


def capped_in_tree_order(pos, cap=32, radius=0.4):
    """As a k-d tree would: along x, and it stops at the cap."""
    order = pos[:, 0].argsort()
    return capped_in_index_order(pos[order], cap, radius)


def capped_in_index_order(pos, cap=32, radius=0.4):
    distance = torch.cdist(pos, pos)
    inside = distance < radius
    kept = inside & (inside.cumsum(1) <= cap)
    return (profile(distance) * kept[..., None]).sum(1).mean(0)


def nearest_one(pos):
    """Picks *the* nearest neighbour: on a lattice there are several."""
    offset = neighbour_offsets(pos, 1)[:, 0]
    return torch.stack([((pos - pos.mean(0)) * offset).sum(1).square().mean(), offset.norm()])


def cancelling(pos):
    square = pos.square().sum(1)
    distance = (square[:, None] + square - 2 * pos @ pos.T).clamp_min(0)
    distance = distance + 9 * torch.eye(len(pos)).to(pos)
    return distance.amin(1).sqrt().sort().values


def uncentred(pos):
    return profile(pos.norm(dim=1)).mean(0)


def normals(pos):
    offsets = neighbour_offsets(pos)
    return torch.linalg.eigh(offsets.mT @ offsets).eigenvectors[..., 0]


def unsigned_normals(pos):
    side = (normals(pos) * (pos - pos.mean(0))).sum(1)
    return torch.stack([side.clamp_min(0).mean(), side.square().mean()])


def outward_normals(pos):
    normal = normals(pos)
    side = (normal * (pos - pos.mean(0))).sum(1, keepdim=True)
    return normal * side.sign()


def numpy_axes(pos):
    centred = (pos - pos.mean(0)).double().numpy()
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return torch.from_numpy(np.square((centred @ axes.T).clip(0)).mean(0)).to(pos)


def chiral(pos):
    a, b, c = (pos[i] - pos.mean(0) for i in farthest_three(pos))
    return torch.stack([torch.linalg.cross(a, b) @ c, a.norm(), b.norm()])


def voxels(pos):
    return ((pos - pos.mean(0)) * 2).round().amax(0).cumsum(0)


def farthest_three(pos):
    return (pos - pos.mean(0)).norm(dim=1).argsort()[-3:]


PLANTED = {
    "neighbour cap, in tree order": (capped_in_tree_order, "neighbour cap"),
    "neighbour cap, in index order": (capped_in_index_order, "neighbour cap"),
    "ties": (nearest_one, "ties"),
    "missing centring": (uncentred, "missing centring"),
    "sign of normals": (unsigned_normals, "sign of normals"),
    "sign of numpy's axes": (numpy_axes, "sign of normals"),
    "coordinates": (lambda pos: (pos - pos.mean(0)).abs().mean(0).cumsum(0), "world axes"),
    "first point": (lambda pos: profile((pos - pos[0]).norm(dim=1)).mean(0), "point order"),
    "not a number": (lambda pos: (pos[:, 0] - 3 * pos.norm()).sqrt().sum(), "not finite"),
    "random": (lambda pos: torch.rand(3), "randomness"),
    "rows": (lambda pos: (pos - pos.mean(0)).norm(dim=1), "wrong action"),
    "a vector": (lambda pos: (pos - pos.mean(0))[farthest_three(pos)[-1]], "wrong action"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_cause_is_found(name):
    function, cause = PLANTED[name]
    report = check_equivariance(function)
    print(report)
    assert not report.ok and not report
    assert report.cause == cause
    assert CAUSES[cause] in report.explanation and report.evidence
    assert max(report.errors.values()) > 1e-6


def test_a_float32_cancellation_is_found():
    report = check_equivariance(cancelling)
    assert report.cause == "dtype" and max(report.errors.values()) < 1e-6
    assert report.errors_float32["translation"] > 1e-3
    # Rounding the points alone is harmless: it is the arithmetic inside.
    rounding = report.evidence["change in float64 of points rounded to float32"]
    assert rounding < 1e-3 * report.errors_float32["translation"] + 1e-4
    assert report.evidence["change with the centroid subtracted"] < 1e-3


def test_a_function_that_rounds_to_float32_inside_is_judged_in_float32():
    def rounding(pos):
        return (pos.float() - pos.float().mean(0)).norm(dim=1).sum()

    report = check_equivariance(rounding)
    assert report.ok and "gave an output in float32" in report.notes[0]
    assert not report.errors_float32  # what was measured is under ``errors``
    assert check_equivariance(lambda pos: rounding(pos) + pos.float()[0, 0]).cause is not None


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-12, 1e-30])
def test_small_outputs_are_judged_by_their_own_size(size):
    def axes(pos):
        return size * (pos - pos.mean(0)).abs() @ pos.new_tensor([0.3, -1.2, 0.7])

    for function in (axes, lambda pos: axes(pos.float()), lambda pos: axes(pos).sum()):
        report = check_equivariance(function, per_point=function(torch.ones(4, 3)).dim() > 0)
        assert not report.ok and report.errors["rotation"] > 0.1
    assert check_equivariance(lambda pos: size * honest(pos), group="E(3)").ok
    assert check_equivariance(lambda pos: size * honest(pos.float())).ok
    for bent in (1e-2, 1e-5):
        report = check_equivariance(lambda pos, bent=bent: size * (honest(pos) + bent * pos[0, 0]))
        assert not report.ok and bent / 100 < report.errors["rotation"] < 100 * bent


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_outputs_that_vanish_by_symmetry_pass(size):
    """What is left of them is rounding, which no rule moves."""

    def heavy_side(pos):
        offset = pos - pos.mean(0)
        return size * (offset * offset.norm(dim=1, keepdim=True)).sum(0)

    clouds = list(symmetric_clouds().values())
    assert heavy_side(clouds[0]).norm() < 1e-12 * size
    for given in (None, clouds, clouds[0]):
        assert check_equivariance(heavy_side, given, action=as_vectors).ok
        assert not check_equivariance(
            lambda pos: heavy_side(pos) + size * pos.new_ones(3), given, action=as_vectors
        )


def test_an_output_that_is_zero_but_for_rounding_passes():
    def nothing(pos):
        return (pos - pos.mean(0)).mean(0)

    for function in (nothing, lambda pos: nothing(pos.float()), lambda pos: 0 * pos):
        assert check_equivariance(function).ok


def test_honest_functions_pass():
    report = check_equivariance(honest, group="E(3)")
    assert report.ok and report and report.cause is None and str(report).startswith("equivariant")
    assert set(report.errors) == {"rotation", "translation", "permutation", "reflection"}
    assert set(report.errors_float32) == set(report.errors)
    generic = generic_clouds(2, least=30, most=40, generator=torch.Generator().manual_seed(3))
    assert check_equivariance(lambda p: p - p.mean(0), action=as_vectors, per_point=True).ok
    assert check_equivariance(lambda p: p.mean(0) + 0, action=as_points).ok
    outward = check_equivariance(
        outward_normals, generic, action=as_vectors, per_point=True, tolerance_float32=None
    )
    assert outward.ok and not outward.errors_float32
    assert check_equivariance(lambda p: torch.cdist(p, p).sum().sqrt()).ok, "a single number"


def test_normals_from_elsewhere_are_judged_row_by_row():
    def elsewhere(pos):
        """Right lines, and the sign of whatever the world's x axis says."""
        normal = outward_normals(pos)
        return normal * normal[:, :1].sign()

    clouds = generic_clouds(1, least=40, most=40, generator=torch.Generator().manual_seed(0))
    report = check_equivariance(elsewhere, clouds, action=as_vectors, per_point=True)
    assert report.cause == "sign of normals"


def test_a_wrong_expectation_is_told_from_a_wrong_function():
    def offsets(pos):
        return pos - pos.mean(0)

    for settings, hint in (
        ({}, "with action=as_vectors and per_point=True"),
        ({"per_point": True}, "with action=as_vectors"),
        ({"action": as_vectors}, "with per_point=True"),
        ({"action": lambda out, turn, shift: out @ turn, "per_point": True}, "=as_vectors"),
    ):
        report = check_equivariance(offsets, **settings)
        assert report.cause == "wrong action"
        assert any(hint in name for name in report.evidence), report


def test_mirror_images_count_only_when_asked_for():
    clouds = generic_clouds(2, least=20, most=30, generator=torch.Generator().manual_seed(0))
    turned = check_equivariance(chiral, clouds)
    assert turned.ok and any("mirror" in note for note in turned.notes)
    both = check_equivariance(chiral, clouds, group="E(3)")
    assert not both.ok and both.cause == "reflection"

    def axial(pos):
        a, b, _ = (pos[i] - pos.mean(0) for i in farthest_three(pos))
        return torch.linalg.cross(a, b)

    report = check_equivariance(axial, clouds, action=as_vectors, group="E(3)")
    assert report.cause == "reflection" and any("axial" in name for name in report.evidence)


def test_frames_fixed_in_the_world_are_recognised():
    axes = torch.eye(3, dtype=torch.float64)

    def grid(pos):
        projections = torch.cat([axes, -axes]).to(pos) @ (pos - pos.mean(0)).T
        return projections.relu().square().mean(1).sort().values

    report = check_equivariance(grid)
    assert report.cause == "world axes" and any("cube" in name for name in report.evidence)


def test_pcequi_itself_passes_whatever_the_signs(levels_of, network):
    model = network(levels_of(num=10))
    clouds = [generic_clouds(1, least=30, most=30)[0], symmetric_clouds()["grid"]]

    def logits(pos):
        return model(build_pose_graph(pos, model.levels).to(torch.float64))[0]

    report = check_equivariance(logits, clouds, num=2, tolerance_float32=None)
    print(report)
    assert report.ok


def test_a_module_is_checked_in_both_types():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)

        def forward(self, pos):
            return self.linear(honest(pos))

    layer = Layer()
    report = check_equivariance(layer)
    assert report.ok and report.errors_float32 and layer.linear.weight.dtype == torch.float32
    closed = check_equivariance(lambda pos: layer(pos))  # its weights cannot follow
    assert closed.ok and "float64 could not be tried" in closed.notes[0]


def test_two_causes_are_named_one_at_a_time():
    report = check_equivariance(lambda pos: torch.cat([uncentred(pos), voxels(pos)]))
    assert report.cause == "missing centring"
    assert report.explanation.endswith("explains translation; then check again for rotation.")


def test_ties_do_not_hide_another_cause():
    def from_the_first(pos):
        """Farthest-point sampling that starts at the first point: ties, and an order."""
        distance, picks = torch.full((len(pos),), math.inf).to(pos), [0]
        for _ in range(len(pos) // 10):
            distance = torch.minimum(distance, (pos - pos[picks[-1]]).norm(dim=1))
            picks.append(int(distance.argmax()))
        return torch.cdist(pos, pos[picks]).amin(1).sort().values

    report = check_equivariance(from_the_first, tolerance_float32=None)
    assert report.errors["rotation"] > 1e-6, "the lattice ties"
    assert report.cause == "point order"


def test_the_action_that_was_asked_about_is_no_explanation():
    def leader(pos):
        """The point farthest from the centroid, which on a lattice ties."""
        centered = pos - pos.mean(0)
        return centered[centered.norm(dim=1).argmax()]

    report = check_equivariance(leader, action=as_vectors, tolerance_float32=None)
    assert not report.ok and report.cause == "ties"


def test_the_default_radius_search_of_torch_cluster_is_caught():
    torch_cluster = pytest.importorskip("torch_cluster")

    def crowding(pos):
        target, source = torch_cluster.radius(pos, pos, 0.4)  # at most 32, in tree order
        distance = (pos[target] - pos[source]).norm(dim=1)
        return torch.stack([profile(distance)[:, 0].sum(), distance.sum()]) / len(pos)

    report = check_equivariance(crowding)
    assert report.cause == "neighbour cap"
    assert report.evidence["passes with points in a patch"] == 32


def test_what_nothing_explains_is_unknown():
    """Voxels: rotation makes them jump, and no experiment repairs them."""
    report = check_equivariance(voxels)
    assert report.cause == "unknown" and "one at a time" in report.explanation


def test_the_inverse_rotation_is_recognised():
    def second_moment(pos):
        return (pos - pos.mean(0)).T @ (pos - pos.mean(0))

    report = check_equivariance(second_moment, action=lambda out, turn, shift: turn.T @ out @ turn)
    assert report.cause == "wrong action"
    assert any("inverse rotation" in name for name in report.evidence)


def test_assert_equivariant_carries_the_report():
    assert_equivariant(honest)
    with pytest.raises(AssertionError, match="likely cause: missing centring"):
        assert_equivariant(uncentred)


def test_nan_and_another_shape_fail():
    assert check_equivariance(lambda pos: pos.sum(0) * math.nan).errors["rotation"] == math.inf
    shapes = check_equivariance(lambda pos: pos[pos[:, 0] > pos.mean()].norm(dim=1))
    assert not shapes.ok and shapes.errors["rotation"] == math.inf


def test_reports_are_plain_values():
    values = check_equivariance(uncentred).to_dict()
    assert values["cause"] == "missing centring" and isinstance(values["notes"], list)


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match=r"`group` \(='SO\(2\)'\) must be one of"):
        check_equivariance(honest, group="SO(2)")
    with pytest.raises(ArgumentError, match=r"`num` \(=0\)"):
        check_equivariance(honest, num=0)
    with pytest.raises(ArgumentError, match=r"`tolerance` \(=0\)"):
        check_equivariance(honest, tolerance=0)
    with pytest.raises(ArgumentError, match=r"`pos` \(=\[\]\)"):
        check_equivariance(honest, [])
    with pytest.raises(ArgumentError, match="returned a tuple; return one tensor"):
        check_equivariance(lambda pos: (pos, pos))
    with pytest.raises(DataError, match="empty"):
        check_equivariance(honest, torch.zeros(0, 3))


def test_a_function_that_works_in_place_leaves_the_cloud_alone(make_blob):
    cloud = make_blob(20)
    before = cloud.clone()

    def centered(pos):
        pos -= pos.mean(0)
        return pos.norm(dim=1).sum()

    assert check_equivariance(centered, cloud).ok
    assert torch.equal(cloud, before)

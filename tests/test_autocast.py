"""Geometry within ``torch.autocast`` is that outside of it, to the bit: 16 bits are for layers."""

import pytest
import torch

from pcequi import embedding, frames, normals
from pcequi.align import align_clouds, kabsch
from pcequi.batched_poses import batched_poses
from pcequi.canonical import canonical_pose
from pcequi.embedding import geometric_embedding, pair_embedding
from pcequi.frames import manhattan_frame, principal_frame
from pcequi.normals import estimate_normals, frames_from_two
from pcequi.ops import blend_centers, blending, clusters, nearest_center, neighbors
from pcequi.ops.precision import own_precision
from pcequi.pose_graph import Level, build_pose_graph, build_pose_graphs, edges, pose_edges
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, PairPoses, Poses, TangentPoses
from pcequi.rotations import geodesic_distance, random_rotations, super_fibonacci

NONE = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NONE])]
SAMPLERS = [
    TangentPoses(4),
    PairPoses(3),
    NormalPoses(),
    GridPoses("D2", "manhattan"),
    GridPoses("O", "principal"),
    GridPoses("O"),
    CentroidPoses(),
]


@pytest.fixture(params=("numba", "torch"))
def backend(request, monkeypatch):
    for module in (embedding, frames, normals, neighbors, edges, clusters, blending):
        if request.param == "torch":
            monkeypatch.setattr(module, "HAS_NUMBA", False)
        elif not module.HAS_NUMBA:
            pytest.skip("numba is not installed")


@pytest.fixture(params=DEVICES)
def same(request, backend):
    """Compares what a function gives within automatic casts and outside of them."""

    def compare(function, *arguments):
        arguments = [one.to(request.param) for one in arguments]
        wanted = function(*arguments)
        with torch.autocast(request.param, torch.bfloat16):
            assert (arguments[0][:1] @ arguments[0][:1].mT).dtype == torch.bfloat16
            found = function(*arguments)
        pairs = [(found, wanted)] if isinstance(found, torch.Tensor) else zip(found, wanted)
        for one, other in pairs:
            assert one.dtype == other.dtype and not one.dtype == torch.bfloat16
            # Sums on a GPU are in no order that stays.
            near = 0 if request.param == "cpu" else 1e-5
            torch.testing.assert_close(one, other, atol=near, rtol=near)

    return compare


@pytest.fixture
def pos(make_blob):
    return make_blob(60).float()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_poses_and_embeddings(sampler, same, pos):
    same(lambda pos: sampler(pos).rot, pos)
    same(
        lambda pos: batched_poses(sampler, pos, torch.arange(60, device=pos.device) // 30).rot, pos
    )
    frame = sampler(pos).rot

    def embedded(pos):
        poses = sampler(pos)
        poses = Poses(poses.pos, frame.to(pos), poses.group)
        return geometric_embedding(poses, pos, 0.5, 7, torch.nn.functional.normalize(pos))

    same(embedded, pos)


@pytest.mark.parametrize("sampler", [TangentPoses(4), PairPoses(3), NormalPoses()], ids=str)
def test_poses_with_gradients_and_given_normals(sampler, same, pos):
    same(lambda pos: sampler(pos, differentiable=True).rot, pos)
    same(lambda pos, normal: sampler(pos, normal).rot, pos, torch.randn_like(pos))


def test_normals_and_frames(same, pos):
    same(lambda pos: estimate_normals(pos), pos)
    same(lambda pos: frames_from_two(torch.nn.functional.normalize(pos), pos.roll(1, 0)), pos)
    same(lambda pos: (principal_frame(pos), manhattan_frame(pos)), pos)
    same(lambda pos: canonical_pose(pos - pos.mean(0), None, None)[0], pos)


def test_pairs_and_edges(same, pos):
    axes = estimate_normals(pos)
    pairs = (2, 2, 3, 1)
    same(
        lambda pos, axes: pair_embedding(NormalPoses()(pos, axes), pos, axes, 0.5, pairs), pos, axes
    )
    level = Level(0.5, TangentPoses(3), kernel_points=7, kernel_rotations=4)

    def seen(pos, rot):
        found = pose_edges(pos, rot[:, 0], Poses(pos, rot), level)
        return found.offset, found.rotation, found.edge_index

    same(seen, pos, TangentPoses(3)(pos).rot)


def test_centers_and_angles(same, generator):
    x, center = torch.randn(50, 6, generator=generator), torch.randn(9, 6, generator=generator)
    same(nearest_center, x, center)
    same(lambda x, center: blend_centers(x, center, 3), x, center)
    turns = super_fibonacci(20)
    same(lambda turns: geodesic_distance(turns, turns.roll(1, 0)), turns)


@pytest.mark.parametrize("build", [build_pose_graph, lambda pos, lv: build_pose_graphs([pos], lv)])
def test_graphs(build, same, pos, levels_of):
    def tensors(pos):
        levels = build(pos, levels_of(TangentPoses(3), 12)).levels
        return [levels[0].lift, *(part for lv in levels[1:] for part in (lv.pos, lv.rot, lv.val))]

    same(tensors, pos)


def test_alignment(same, pos, network, levels_of, generator):
    model = network(levels_of(num=8)).float()
    turn = random_rotations(1, generator=generator)[0]
    moved = pos @ turn.T + 1

    def aligned(pos, moved):
        found = align_clouds(model.to(pos.device), pos, moved, candidates=2, iterations=3)
        return found.rotation, found.translation

    same(aligned, pos, moved)
    same(kabsch, pos, moved)


def test_casts_are_off_and_on_again():
    @own_precision
    def seen():
        return torch.is_autocast_enabled("cpu")

    with torch.autocast("cpu", torch.bfloat16):
        assert not seen() and torch.is_autocast_enabled("cpu")
        with pytest.raises(TypeError):
            seen(1)
        assert torch.is_autocast_enabled("cpu")
    assert seen.__name__ == "seen"

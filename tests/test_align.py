"""Rotations between clouds: exact for copies, close for other samples."""

import math

import pytest
import torch

from pcequi.align import align_clouds, kabsch, match_frames
from pcequi.errors import ArgumentError, ShapeError
from pcequi.models import extract_features
from pcequi.poses import GridPoses
from pcequi.rotations import geodesic_distance, random_rotations


@pytest.fixture
def model(levels_of, network):
    return network(levels_of(num=16))


def surface(num, seed):
    """Points of one bumpy ellipsoid, drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(num, 3, dtype=torch.float64, generator=generator)
    pos = torch.nn.functional.normalize(pos, dim=1)
    bump = 1 + 0.35 * torch.sin(3 * pos @ pos.new_tensor([0.4, -0.9, 1.3]) + 0.5)
    return pos * bump[:, None] * pos.new_tensor([1.0, 0.65, 0.4])


def motions(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    turns = random_rotations(num, generator=generator, dtype=torch.float64)
    return zip(turns, torch.randn(num, 3, dtype=torch.float64, generator=generator), strict=True)


@pytest.mark.parametrize("iterations", [0, 50])
def test_a_copy_gives_the_rotation_exactly(model, make_blob, iterations):
    pos = make_blob(60)
    for turn, shift in motions(4):
        order = torch.randperm(60)
        found = align_clouds(model, pos, (pos @ turn.T + shift)[order], iterations=iterations)
        angle = geodesic_distance(found.rotation, turn)
        print(f"copy: {float(angle):.1e} rad off, residual {found.residual:.1e}")
        assert angle < 1e-6 and (found.translation - shift).abs().max() < 1e-6
        assert found.residual < 1e-6 and found.feature_distance < 1e-6
        torch.testing.assert_close(found(pos), pos @ turn.T + shift, atol=1e-6, rtol=0)


def test_frames_alone_find_a_copy(model, make_blob):
    pos = make_blob(60)
    ((turn, shift),) = motions(1)
    ends = [extract_features(model, p).levels[-1] for p in (pos, pos @ turn.T + shift)]
    with torch.no_grad():
        turns, distances = match_frames(*ends)
    assert turns.shape == (24, 3, 3) and torch.equal(distances, distances.sort().values)
    assert geodesic_distance(turns[0], turn) < 1e-6
    assert distances[0] < 1e-8 < 1e-2 < distances[1], "one frame fits, and no other"


def test_another_sample_gives_it_nearly(model):
    angles = []
    for seed, (turn, shift) in enumerate(motions(4, seed=1)):
        one, other = surface(400, 2 * seed), surface(400, 2 * seed + 1)
        found = align_clouds(model, one, other @ turn.T + shift)
        angles.append(math.degrees(geodesic_distance(found.rotation, turn)))
    print(f"another sample: {[f'{angle:.1f}' for angle in angles]} degrees off")
    assert max(angles) < 6


def test_refinement_helps(model):
    ((turn, shift),) = motions(1, seed=1)
    one, other = surface(400, 0), surface(400, 1) @ turn.T + shift
    rough, fine = (align_clouds(model, one, other, iterations=n) for n in (0, 50))
    assert fine.residual < rough.residual
    assert geodesic_distance(fine.rotation, turn) < geodesic_distance(rough.rotation, turn)


def test_more_candidates_find_no_worse(model):
    ((turn, shift),) = motions(1, seed=1)
    one, other = surface(200, 0), surface(200, 1) @ turn.T + shift
    few, all_of_them = (align_clouds(model, one, other, candidates=n) for n in (1, 24))
    assert all_of_them.residual <= few.residual


def test_kabsch_is_exact_and_never_reflects(generator):
    pos = torch.randn(10, 3, dtype=torch.float64, generator=generator)
    for turn, shift in motions(3):
        rotation, moved = kabsch(pos, pos @ turn.T + shift)
        torch.testing.assert_close(rotation, turn)
        torch.testing.assert_close(moved, shift)
    mirrored, _ = kabsch(pos, pos * pos.new_tensor([1.0, 1, -1]))
    assert torch.det(mirrored) > 0.999
    flat = pos * pos.new_tensor([1.0, 1, 0])
    torch.testing.assert_close(flat @ kabsch(flat, flat @ turn.T)[0].T, flat @ turn.T)


def test_wrong_arguments_are_named(model, levels_of, network, make_blob):
    pos = make_blob(20)
    with pytest.raises(ArgumentError, match=r"`candidates` \(=0\) .* whole number, at least 1"):
        align_clouds(model, pos, pos, candidates=0)
    with pytest.raises(ArgumentError, match=r"`iterations` \(=-1\) .* whole number, at least 0"):
        align_clouds(model, pos, pos, iterations=-1)
    model.train()
    with pytest.raises(ArgumentError, match=r"call model.eval\(\)"):
        align_clouds(model, pos, pos)
    levels = levels_of(num=8, last=GridPoses("O", "principal"))
    with pytest.raises(ArgumentError, match="must be CentroidPoses, as in the presets"):
        align_clouds(network(levels), pos, pos)
    with pytest.raises(ShapeError, match=r"`source` \(=\[3, 3\]\) and `target` \(=\[2, 3\]\)"):
        kabsch(torch.zeros(3, 3), torch.zeros(2, 3))

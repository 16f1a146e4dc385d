"""One pose and one order for all copies of a cloud."""

import math

import pytest
import torch

from pcequi import canonical
from pcequi.canonical import canonical_pose
from pcequi.rotations import finite_group, random_rotations


def copies(pos, generator, rotations):
    for turn in rotations:
        order = torch.randperm(len(pos), generator=generator)
        yield turn, order, (pos @ turn.T)[order]


def test_all_copies_become_one(solid_cloud, generator):
    pos = solid_cloud - solid_cloud.mean(0)
    _, _, first, *_ = canonical_pose(pos, None)
    turns = random_rotations(6, generator=generator, dtype=torch.float64)
    for _, _, copy in copies(pos, generator, turns):
        frame, rows, turned, *_ = canonical_pose(copy, None)
        torch.testing.assert_close(turned, first, atol=1e-9, rtol=0)
        torch.testing.assert_close(turned, copy[rows] @ frame)
        torch.testing.assert_close(torch.linalg.det(frame), torch.ones_like(frame[0, 0]))


@pytest.mark.parametrize("name", ["T", "O", "C4"])
def test_a_group_allows_its_own_frames_alone(name, solid_cloud, generator):
    pos = solid_cloud - solid_cloud.mean(0)
    group = finite_group(name, dtype=torch.float64)
    frame, _, first, *_ = canonical_pose(pos, group)
    assert (group - frame).abs().amax((1, 2)).min() == 0
    for _, _, copy in copies(pos, generator, group[:6]):
        torch.testing.assert_close(canonical_pose(copy, group)[2], first, atol=1e-12, rtol=0)


def test_a_mirror_image_is_another_cloud(make_blob):
    pos = make_blob(30)
    mirrored = pos * pos.new_tensor([-1.0, 1.0, 1.0])
    seen = [canonical_pose(p, None)[2] for p in (pos, mirrored)]
    assert (seen[0] - seen[1]).abs().max() > 0.05


def test_normals_decide_where_points_do_not(named_cloud, generator):
    pos = named_cloud("corners")
    normal = torch.nn.functional.normalize(torch.randn(8, 3, generator=generator).double(), dim=1)
    _, _, first, first_normal, _ = canonical_pose(pos, None, normal)
    for turn in random_rotations(6, generator=generator, dtype=torch.float64):
        order = torch.randperm(8, generator=generator)
        _, _, again, again_normal, _ = canonical_pose(
            (pos @ turn.T)[order], None, (normal @ turn.T)[order]
        )
        torch.testing.assert_close(again, first, atol=1e-9, rtol=0)
        torch.testing.assert_close(again_normal, first_normal, atol=1e-9, rtol=0)


def test_directions_are_told_apart_one_by_one(generator):
    ring = torch.randint(0, 40, (300,), generator=generator).double() * (math.pi / 20)
    ring = ring + torch.tensor([0, 1e-4, 1e-3]).double()[torch.arange(300) % 3]
    unit = torch.stack([ring.cos(), ring.sin()], 1)
    expected: list[int] = []
    for row in range(300):
        if all(abs(float(unit[row] @ unit[one])) < 1 - 1e-7 for one in expected):
            expected.append(row)
    assert canonical._distinct(unit.numpy()) == expected and 30 < len(expected) < 60


def test_degenerate_clouds_have_one_too(degenerate_cloud):
    pos = degenerate_cloud - degenerate_cloud.mean(0)
    frame, rows, turned, *_ = canonical_pose(pos, None)
    assert torch.isfinite(turned).all() and sorted(rows.tolist()) == list(range(len(pos)))
    torch.testing.assert_close(frame.T @ frame, torch.eye(3, dtype=frame.dtype))


@pytest.mark.parametrize("with_normals", [False, True])
def test_the_compiled_score_is_that_of_torch(make_blob, with_normals, monkeypatch):
    if not canonical.HAS_NUMBA:
        pytest.skip("numba is not installed")
    pos = make_blob(50)
    normal = torch.nn.functional.normalize(pos.flip(0), dim=1) if with_normals else None
    frames = finite_group("O", dtype=torch.float64)
    compiled = canonical._score(pos, normal, frames)
    monkeypatch.setattr(canonical, "HAS_NUMBA", False)
    plain = canonical._score(pos, normal, frames)
    torch.testing.assert_close(compiled, plain, atol=1e-14, rtol=0)
    assert plain.unique().numel() == 24


def test_rows_are_sorted_by_every_column(generator):
    values = torch.randint(0, 3, (60, 3), generator=generator).double()
    rows = canonical._lexicographic(values).tolist()
    assert rows == sorted(range(60), key=lambda row: (*values[row].tolist(), row))

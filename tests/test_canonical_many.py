"""Canonical poses of regular clouds, on which thousands of directions tie."""

import math

import pytest
import torch
from scipy.spatial import cKDTree

from pcequi import canonical
from pcequi.canonical import canonical_pose
from pcequi.rotations import random_rotations

F64 = torch.float64


def spiral(num):
    step = torch.arange(num, dtype=F64) + 0.5
    z, turn = 1 - 2 * step / num, math.pi * (1 + math.sqrt(5)) * step
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * turn.cos(), ring * turn.sin(), z], 1)


def ring(num):
    turn = torch.arange(num, dtype=F64) * (2 * math.pi / num)
    return torch.stack([turn.cos(), turn.sin(), 0 * turn], 1)


def icosphere(halvings):
    """Corners of an icosahedron whose edges are halved, again and again, on the sphere."""
    golden = (1 + math.sqrt(5)) / 2
    pos = torch.tensor([[0.0, a, b * golden] for a in (-1, 1) for b in (-1, 1)], dtype=F64)
    pos = torch.nn.functional.normalize(torch.cat([pos.roll(n, 1) for n in range(3)]), dim=1)
    for _ in range(halvings):
        apart = torch.cdist(pos, pos).fill_diagonal_(math.inf)
        # Edges of a triangle differ by a fifth, all others are longer by half.
        first, second = (apart < 1.3 * apart.amin(1, keepdim=True)).nonzero().T
        middle = (pos[first] + pos[second])[first < second]
        pos = torch.cat([pos, torch.nn.functional.normalize(middle, dim=1)])
    return pos


def lattice(num):
    return torch.cartesian_prod(*[torch.linspace(-1, 1, num, dtype=F64)] * 3)


CLOUDS = {
    "spiral 800": lambda: spiral(800),  # many tie in long waves by chance alone
    "spiral 2000": lambda: spiral(2000),
    "icosphere": lambda: icosphere(3),
    "ring": lambda: ring(4000),
    "lattice": lambda: lattice(11),
}


def given(kind, pos, generator):
    """Unit normals and numbers of the points that know no symmetry of theirs, or not."""
    normal = x = None
    if kind == "normals":
        spread = torch.randn(pos.shape, generator=generator, dtype=F64)
        normal = torch.nn.functional.normalize(pos + 0.3 * spread, dim=1)
    if kind == "numbers":
        x = torch.randint(3, (len(pos), 2), generator=generator).double()
    return normal, x


def apart(found, other):
    """How far the points with all that they bring are from those of another pose, in any order."""
    rows = (torch.cat([p for p in parts[2:] if p is not None], 1) for parts in (found, other))
    return cKDTree(next(rows)).query(next(rows))[0].max()


@pytest.mark.parametrize("brought", ["nothing", "normals", "numbers"])
@pytest.mark.parametrize("name", CLOUDS)
def test_copies_of_regular_clouds_become_one_by_few_frames(name, brought, generator, monkeypatch):
    pos, score, asked = CLOUDS[name](), canonical._score, []
    normal, x = given(brought, pos, generator)

    def counted(pos, normal, frames, *more, **named):
        asked.append(len(frames))
        return score(pos, normal, frames, *more, **named)

    monkeypatch.setattr(canonical, "_score", counted)
    first = canonical_pose(pos, None, normal, x)
    for turn in random_rotations(2, generator=generator, dtype=F64):
        order = torch.randperm(len(pos), generator=generator)
        copy = (pos @ turn.T, None if normal is None else normal @ turn.T, x)
        place, *others = (None if part is None else part[order] for part in copy)
        again = canonical_pose(place, None, *others)
        assert apart(again, first) < 1e-9
    # Pairs of all directions that tie would be up to millions of frames.
    assert len(asked) >= 3 and max(asked) <= 24 * canonical._SPEAK


@pytest.mark.parametrize("name", CLOUDS)
def test_copies_in_single_precision_become_one_too(name, generator):
    pos = CLOUDS[name]()
    first = canonical_pose(pos - pos.mean(0), None)
    for turn in random_rotations(2, generator=generator, dtype=F64):
        copy = (pos @ turn.T).float().double()
        assert apart(canonical_pose(copy - copy.mean(0), None), first) < 1e-6


def test_waves_along_a_direction_know_no_sign_and_turn_along(make_blob, generator):
    pos = make_blob(40)
    normal, _ = given("normals", pos, generator)
    _, x = given("numbers", pos, generator)
    direction = torch.nn.functional.normalize(torch.randn(9, 3, dtype=F64, generator=generator))
    turn = random_rotations(1, generator=generator, dtype=F64)[0]
    for own_normal in (None, normal):
        for own_x in (None, x):
            first = canonical._strength_along(direction, pos, own_normal, own_x, 7.0)
            turned_normal = None if own_normal is None else own_normal @ turn.T
            for sign in (1, -1):
                again = canonical._strength_along(
                    sign * direction @ turn.T, pos @ turn.T, turned_normal, own_x, 7.0
                )
                torch.testing.assert_close(again, first, atol=1e-13, rtol=0)
            assert first.unique().numel() == 9


def test_some_pairs_speak_for_all_where_their_best_frames_tie_alone(generator):
    pos = ring(2000)
    frames = canonical._principal_candidates(pos)
    few = canonical._spoken_for(frames, pos, None, None)
    assert len(few) < len(frames)
    best = canonical._score(pos, None, frames).max()
    torch.testing.assert_close(canonical._score(pos, None, few).max(), best, atol=1e-12, rtol=0)
    uneven = torch.cat([pos, pos.new_tensor([[0.3, 0.2, 0.1]])])
    assert canonical._spoken_for(frames, uneven, None, None) is frames


def test_what_repeats_is_left_out_without_a_loop(generator):
    unit = torch.nn.functional.normalize(torch.randn(50, 2, dtype=F64, generator=generator), dim=1)
    rows = canonical._once(torch.cat([unit, -unit, unit]).numpy())
    assert rows.tolist() == list(range(50))

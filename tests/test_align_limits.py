"""Which match an alignment takes, and where it ends."""

import pytest
import torch

from pcequi import align
from pcequi.align import align_clouds
from pcequi.rotations import random_rotations


@pytest.fixture
def model(levels_of, network):
    return network(levels_of(num=16))


def test_matches_that_nearly_agree_are_tried_and_the_least_residual_wins(
    model, make_blob, monkeypatch
):
    pos = make_blob(60)
    right = torch.eye(3, dtype=torch.float64)
    wrong = torch.diag(pos.new_tensor([-1.0, -1.0, 1.0]))
    matches = torch.stack([wrong, right]), pos.new_tensor([0.02, 0.03])
    monkeypatch.setattr(align, "match_frames", lambda *ends: matches)
    found = align.align_clouds(model, pos, pos, candidates=2)
    torch.testing.assert_close(found.rotation, right)


@pytest.mark.parametrize("iterations", [0, 5])
def test_the_residual_is_of_both_directions(model, make_blob, iterations):
    pos = make_blob(60)
    found = align_clouds(model, pos[:45], pos, iterations=iterations)
    near = torch.cdist(found(pos[:45]), pos)
    square = torch.cat([near.min(1).values, near.min(0).values]).square()
    assert found.residual == pytest.approx(float(square.mean().sqrt()))


def test_refinement_ends_where_another_step_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    for turn in random_rotations(20, generator=generator, dtype=torch.float64):
        one, other = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
        rotation, shift, _ = align._refine(one, other, turn, 500)
        there, back = align._nearest(one @ rotation.T + shift, other)
        again, _ = align.kabsch(torch.cat([one, one[back]]), torch.cat([other[there], other]))
        torch.testing.assert_close(again, rotation)

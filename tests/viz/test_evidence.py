"""Evidence is what the logit changes by, and it turns with the cloud."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import build_pose_graph
from pcequi.rotations import random_rotations
from pcequi.viz.evidence import representative_evidence, with_evidence, with_removal
from pcequi.viz.level_scene import level_scene
from pcequi.viz.levels import sample_level


@pytest.mark.parametrize("number", [0, 1, 2])
def test_it_is_the_derivative_of_the_logit_by_the_size_of_a_feature(
    make_blob, levels_of, network, number
):
    levels = levels_of()
    model = network(levels)
    graph = build_pose_graph(make_blob(), levels)
    shares, logits = representative_evidence(model, graph, 2)
    size = torch.ones(graph.levels[number].num, dtype=torch.float64, requires_grad=True)

    def logit(size):
        x, below, pooled = None, None, []
        for place, level in enumerate(graph.levels):
            x, below = model.run_level(place, x, level, below), level.count
            if place == number:  # a constant times the size, so that no gradient goes below
                x = x.detach() * size[:, None]
            pooled.append(model.pool(x if place >= number else x.detach(), level))
        return model.head(torch.cat(pooled[1:], 1))[0, 2]

    torch.testing.assert_close(logits[2], logit(size).detach())
    (expected,) = torch.autograd.grad(logit(size), size)
    torch.testing.assert_close(shares[number], expected)
    assert shares[number].abs().max() > 1e-4
    assert all(p.requires_grad for p in model.parameters()), "the model is left as it was"


@pytest.mark.parametrize("blend", [1, 6])
def test_points_add_up_to_their_representatives(make_blob, levels_of, network, blend):
    levels = levels_of(refine=1, blend=blend)
    model = network(levels)
    for level in (1, 2):
        view = sample_level(make_blob(), levels, level)
        view, figures = with_evidence(view, model, levels, level)
        graph = build_pose_graph(make_blob(), levels)
        target = figures["target"]
        shares, logits = representative_evidence(model, graph, target)
        assert target == int(logits.argmax()) and figures["probability"] > 1 / 4
        assert view.evidence.shape == view.sampled.points.shape
        assert float(view.evidence.sum()) == pytest.approx(float(shares[level - 1].sum()))
        assert figures["total"] == pytest.approx(float(view.evidence.sum()))
        # What each representative gives away is what it has.
        chosen, each = view.sampled.chosen, torch.zeros(len(shares[level - 1]))
        for row in range(chosen.num):
            each[row] = 1
            given = chosen.spread(each[:, None].double()).sum()
            assert float(given) == pytest.approx(float(chosen.multiplicity[row]))
            each[row] = 0


def test_a_turned_cloud_has_the_same_evidence(make_blob, levels_of, network):
    levels = levels_of()
    model, pos = network(levels), make_blob()
    generator = torch.Generator().manual_seed(3)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    order = torch.randperm(len(pos), generator=generator)
    found = []
    for cloud in (pos, (pos @ turn.T + 2.0)[order]):
        view, _ = with_evidence(sample_level(cloud, levels), model, levels, 1, 1)
        rows = torch.full((len(pos),), float("nan"), dtype=torch.float64)
        rows[view.sampled.points] = view.evidence
        found.append(rows)
    torch.testing.assert_close(found[1], found[0][order], equal_nan=True)
    assert found[0].nan_to_num().abs().max() > 1e-4


def test_colours_and_errors(make_blob, levels_of, network):
    levels = levels_of()
    plain = sample_level(make_blob(), levels)
    view, _ = with_evidence(plain, network(levels), levels, 1, 0)
    scene = level_scene([view], [""], coloring="evidence", class_name="cup")
    assert "cup" in scene.legend and scene.colormap == "coolwarm"
    assert scene.scale == ("against", "for")
    color = scene.parts[0].color[view.sampled.points.numpy()]
    warm = color[:, 0] - color[:, 2]
    clear = np.abs(view.evidence.numpy()) > 0.2 * view.evidence.abs().max().item()
    assert clear.any() and (np.sign(warm) == np.sign(view.evidence.numpy()))[clear].all()
    # A cloud keeps its colours beside another, of ten times the evidence.
    louder = replace(view, evidence=10 * view.evidence)
    both = level_scene([louder, view], ["", ""], coloring="evidence", class_name="cup")
    np.testing.assert_allclose(both.parts[1].color, scene.parts[0].color)
    np.testing.assert_allclose(both.parts[0].color, scene.parts[0].color, atol=0.01)
    assert "scale of its own" in both.legend and "scale of its own" not in scene.legend
    with pytest.raises(ArgumentError, match="needs the evidence of a trained network"):
        level_scene([view, plain], ["", ""], coloring="evidence")
    with pytest.raises(ArgumentError, match=r"`target` \(=4\) must be a class, 0 to 3"):
        with_evidence(plain, network(levels), levels, 1, 4)


def test_removal_is_what_the_logit_loses(make_blob, levels_of, network):
    levels = levels_of()
    model, pos = network(levels), make_blob()
    generator = torch.Generator().manual_seed(3)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    calls, found = [], []
    for cloud in (pos, pos @ turn.T):
        view, figures = with_removal(
            sample_level(cloud, levels),
            model,
            levels,
            1,
            radius=0.3,
            progress=lambda *done: calls.append(done),
        )
        found.append(view.evidence)
    torch.testing.assert_close(found[0], found[1])
    assert calls[19] == (20, 20) and len(calls) == 40
    place = view.pos[view.sampled.points[7]]
    kept = pos[(view.pos - place).norm(dim=1) > 0.3]
    assert 0 < len(kept) < len(pos)
    with torch.no_grad():
        logits = [model(build_pose_graph(cloud, levels))[0, 1] for cloud in (pos, kept)]
    torch.testing.assert_close(found[0][7], logits[0] - logits[1])
    assert figures["logit"] == pytest.approx(float(logits[0])) and figures["radius"] == 0.3
    scene = level_scene([view], [""], coloring="removal", class_name="cup")
    assert "the logit of cup falls" in scene.legend and scene.scale == ("rises", "falls")
    with pytest.raises(ArgumentError, match=r"`radius` \(=-1.0\) must be positive"):
        with_removal(view, model, levels, radius=-1.0)
    headless = GroupConvClassifier(levels, 0, channels=[4] * len(levels)).double()
    with pytest.raises(ArgumentError, match="has no head"):
        with_removal(view, headless, levels)
    with pytest.raises(ArgumentError, match=r"`radius` \(=9\) must leave points"):
        with_removal(view, model, levels, radius=9.0)
    with pytest.raises(ArgumentError, match=r"`target` \(=4\) must be a class, 0 to 3"):
        with_removal(view, model, levels, 4)
    with pytest.raises(ArgumentError, match="with_removal"):
        level_scene([sample_level(pos, levels)], [""], coloring="removal")

"""A turned copy is sampled by itself and gets the same colours."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.poses import GridPoses, NormalPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.viz import level_scene as level_scene_module
from pcequi.viz.colors import (
    MEMBER,
    PALE,
    REPRESENTATIVE,
    UNLIKE,
    highlight_colors,
    representative_palette,
)
from pcequi.viz.level_scene import COLORINGS, OF_TRAINED, level_scene
from pcequi.viz.levels import describe, sample_level
from pcequi.viz.matching import match_copy, match_shape
from pcequi.viz.nearest import first_equals, nearest_rows

SAMPLED = [coloring for coloring in COLORINGS if coloring not in OF_TRAINED]  # need no network


def compare(pos, levels, level=1, rotation=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    view = sample_level(pos, levels, level, rotation)
    copy, figures = match_copy(view, sample_level(pos @ turn.T, levels, level, rotation), turn)
    return view, copy, figures, turn


@pytest.mark.parametrize("coloring", SAMPLED)
@pytest.mark.parametrize("poses", [GridPoses("O", "principal"), TangentPoses(4)])
def test_a_turned_copy_has_the_same_colours(make_blob, levels_of, coloring, poses):
    view, copy, figures, _ = compare(make_blob(), levels_of(poses), rotation=2)
    first, second = level_scene([view, copy], ["", ""], coloring=coloring).parts
    np.testing.assert_allclose(first.color, second.color, atol=1e-6)
    np.testing.assert_array_equal(first.size > first.size.min(), second.size > second.size.min())
    assert figures["same_representative"] == 1 and figures["points_in_both"] == 20
    assert figures["embedding_difference"] < 1e-9


def test_points_with_normals_have_colours_and_no_frames(make_blob, levels_of):
    view, copy, figures, _ = compare(make_blob(), levels_of(NormalPoses(0.5)))
    first, second = level_scene([view, copy], ["", ""]).parts
    np.testing.assert_allclose(first.color, second.color, atol=1e-6)
    assert figures["same_representative"] == 1
    with pytest.raises(ArgumentError, match="`frames`"):
        level_scene([view], [""], frames=True)


SYMMETRIC = ("rings", "cube", "grid", "prism", "corners")


@pytest.fixture(params=SYMMETRIC)
def symmetric(request, named_cloud):
    """Clouds that turns exchange with themselves."""
    if request.param != "rings":
        return named_cloud(request.param)
    turn = torch.arange(24, dtype=torch.float64) * (2 * np.pi / 24)
    ring = torch.stack([turn.cos(), turn.sin(), torch.zeros_like(turn)], 1)
    sizes = [(0.3, 0.0), (0.3, 0.3), (0.3, 0.6), (0.2, 0.8), (0.1, 1.0)]
    return torch.cat([r * ring + ring.new_tensor([0, 0, z]) for r, z in sizes])


@pytest.mark.parametrize("poses", [GridPoses("D2", "manhattan"), NormalPoses(0.5)])
def test_a_turned_copy_of_a_symmetric_cloud(symmetric, levels_of, poses):
    levels = levels_of(poses, num=400)  # more than there are different ones
    levels[0] = replace(levels[0], num_points=None)
    view, copy, figures, _ = compare(symmetric, levels)
    assert figures["same_representative"] == 1 and figures["embedding_difference"] < 1e-9
    # Equal representatives are one in the picture, whichever the copy takes.
    first, second = level_scene([view, copy], ["", ""]).parts
    np.testing.assert_allclose(first.color, second.color, atol=1e-6)
    center = view.centers()
    spread = (center - center.mean(0)).norm(dim=1).max()
    apart = torch.cdist(center, center, compute_mode="donot_use_mm_for_euclid_dist")
    equal = apart <= 1e-4 * spread + 1e-6 * center.norm(dim=1).max()
    assert torch.equal(view.names[:, None] == view.names, equal)
    assert equal.sum() > len(equal), "or the test says nothing"
    assert len(np.unique(first.color.round(6), axis=0)) == describe(view)["representatives_shown"]
    for name in (0, len(view.names) // 2, len(view.names) - 1):
        members = [cloud.members_of(name).any(1) for cloud in (view, copy)]
        rows = [set(c.sampled.points[m].tolist()) for c, m in zip((view, copy), members)]
        assert rows[0] == rows[1]
        found = [describe(cloud, name)["highlight"] for cloud in (view, copy)]
        assert found[0]["poses"] == found[1]["poses"] == int(view.members_of(name).sum())
        first, second = level_scene([view, copy], ["", ""], highlight=name).parts
        lit = [~np.isclose(part.color, PALE).all(1) for part in (first, second)]
        np.testing.assert_array_equal(lit[0], lit[1])


def test_a_copy_in_single_precision_is_equal(make_blob, levels_of):
    turn = random_rotations(1, dtype=torch.float64)[0]
    view = sample_level(make_blob(), levels_of())
    copy = sample_level((make_blob() @ turn.T).float(), levels_of())
    _, figures = match_copy(view, copy, turn)
    assert figures["same_representative"] == 1
    assert 1e-9 < figures["embedding_difference"] < 1e-4


def test_arrays_and_tensors_with_a_gradient_are_clouds(make_blob, levels_of):
    pos = make_blob()
    wanted = sample_level(pos, levels_of())
    for cloud in (pos.numpy(), pos.numpy()[::-1][::-1], pos.clone().requires_grad_()):
        view = sample_level(cloud, levels_of())
        torch.testing.assert_close(view.centers(), wanted.centers(), rtol=0, atol=0)
        assert not view.pos.requires_grad and level_scene([view], [""]).parts


def test_distances_between_embeddings_are_exact(generator):
    """Not to the limit within which the sampler takes distances for equal."""
    center = torch.randn(30, 7, generator=generator, dtype=torch.float64) + 100
    near = center[:1] + 1e-7 * torch.randn(1, 7, generator=generator, dtype=torch.float64)
    center = torch.cat([near, center])  # the sampler's rule would take the first of the two
    index, distance = nearest_rows(center[1:], center)
    assert index.tolist() == list(range(1, 31)) and (distance == 0).all()
    assert first_equals(center).tolist() == [0, 0, *range(2, 31)]
    line = torch.cat([torch.linspace(0, 1e-3, 40), torch.ones(1)])[:, None]
    first = first_equals(line)
    assert torch.equal(first, first[first]) and first[-1] == 40


def test_second_level(make_blob, levels_of):
    view, _, figures, _ = compare(make_blob(), levels_of(), level=2, rotation=23)
    assert figures["same_representative"] == 1 and len(view.sampled.points) == 14


def test_colours_follow_the_points(make_blob, levels_of, generator):
    pos = make_blob()
    order = torch.randperm(len(pos), generator=generator)
    for coloring in SAMPLED:
        colors = [
            level_scene([sample_level(cloud, levels_of())], [""], coloring=coloring).parts[0].color
            for cloud in (pos, pos[order])
        ]
        np.testing.assert_allclose(colors[1], colors[0][order.numpy()], atol=1e-6)


def test_what_is_not_equivariant_shows(make_blob, levels_of):
    """Frames fixed in the world: the copy's colours must differ, or the picture lies."""
    _, _, figures, _ = compare(make_blob(), levels_of(GridPoses("O", "none")))
    assert figures["same_representative"] < 0.9
    assert figures["embedding_difference"] > 1e-3


def test_another_shape_takes_the_names_of_the_nearest_embeddings(make_blob, levels_of):
    view = sample_level(make_blob(), levels_of())
    other = match_shape(view, sample_level(make_blob(seed=5), levels_of(num=40)))
    apart = torch.cdist(other.centers(), view.centers())
    assert torch.equal(other.names, apart.argmin(1))
    assert [other.index_of(name) for name in range(24)] == apart.argmin(0).tolist()
    torch.testing.assert_close(other.gap, apart.min(0).values)
    # The members highlighted on the other shape are that representative's own.
    for name in (0, 11, 23):
        first, second = level_scene([view, other], ["", ""], highlight=name).parts
        orange = np.isclose(second.color, MEMBER).all(1) | np.isclose(
            second.color, REPRESENTATIVE
        ).all(1)
        members = (other.assignment == apart[:, name].argmin()).any(1)
        assert orange.sum() == members.sum() > 0
        assert set(np.flatnonzero(orange)) == set(other.sampled.points[members].tolist())
        assert second.size[orange].min() > second.size[~orange].max(), "or others would hide them"
        found = describe(other, name)["highlight"]
        assert found["points"] == members.sum() and found["distance"] > 0
    with pytest.raises(ArgumentError, match=r"`highlight` \(=24\) .* 0 to 23"):
        level_scene([view, other], ["", ""], highlight=24)


def test_a_shape_under_its_own_names_is_unchanged(make_blob, levels_of):
    view = sample_level(make_blob(), levels_of())
    again = match_shape(view, sample_level(make_blob(), levels_of()))
    assert torch.equal(again.names, view.names) and torch.equal(again.namesake, view.namesake)
    assert again.gap.max() < 1e-9
    with pytest.raises(ShapeError, match="same level of the same network"):
        match_shape(view, sample_level(make_blob(), levels_of(), level=2))


def test_what_is_like_nothing_of_the_first_shape_is_grey(make_blob, levels_of):
    levels = levels_of(NormalPoses(0.5), num=6)
    view = sample_level(make_blob(), levels)
    flat = make_blob(seed=5) * torch.tensor([1.0, 1.0, 0.7])
    other = match_shape(view, sample_level(flat, levels))
    apart = torch.cdist(other.sampled.embedding.flatten(0, 1), view.centers()).min(1).values
    torch.testing.assert_close(other.apart.flatten(), apart)
    own = view.sampled.chosen.distance
    like = other.shown(apart.view_as(other.assignment)) <= own.max() * (1 + 1e-4)
    assert 0 < like.sum() < len(like)
    scene = level_scene([view, other], ["", ""])
    assert "grey where none" in scene.legend
    color = scene.parts[1].color[other.sampled.points]
    grey = np.isclose(color, UNLIKE).all(1)
    np.testing.assert_array_equal(grey, ~like.numpy())
    found = describe(other)
    assert found["matched"] == pytest.approx(float((other.apart <= own.max()).double().mean()))
    assert found["mean_distance_to_first"] == pytest.approx(float(apart.mean()))
    assert found["mean_distance_to_first"] > describe(view)["mean_distance"]
    # A shape is wholly like itself, and a copy is never grey.
    again = match_shape(view, sample_level(make_blob(), levels))
    assert describe(again)["matched"] == 1
    view, copy, _, _ = compare(make_blob(), levels_of(GridPoses("O", "none")))
    assert "matched" not in describe(copy)
    assert "grey" not in level_scene([view, copy], ["", ""]).legend


def test_colours_that_cannot_be_told_apart_are_said(make_blob, levels_of, monkeypatch):
    view = sample_level(make_blob(), levels_of())
    seen = describe(view)["representatives_shown"]
    assert "look alike" not in level_scene([view], [""]).legend
    monkeypatch.setattr(level_scene_module, "MOST_COLORS", seen - 1)
    assert f"of {seen} colours neighbours look alike" in level_scene([view], [""]).legend
    # The whole range of hues is for those that are shown.
    names = view.shown_names.unique()
    wanted = representative_palette(view.centers()[names])
    found = level_scene([view], [""]).parts[0].color[view.sampled.points]
    at = torch.searchsorted(names, view.shown_names)
    np.testing.assert_array_equal(found, wanted[at])


def test_one_frame_a_point_or_those_of_the_highlighted_one(make_blob, levels_of):
    view = sample_level(make_blob(), levels_of(GridPoses("D2", "manhattan"), orbits=True), 1, 2)
    scene = level_scene([view], [""], frames=True)
    part, shown = scene.parts[0], view.shown(view.sampled.poses.rot).numpy()
    assert len(part.frame_pos) == len(np.unique(part.frame_pos, axis=0)) == 6  # 24 in orbits of 4
    for place, frame in zip(part.frame_pos, part.frame_rot):
        (row,) = np.flatnonzero((view.sampled.poses.pos.numpy() == place).all(1))
        np.testing.assert_array_equal(frame, shown[row])
    assert "axes (x red, y green, z blue) of 6 of 20 poses" in scene.legend
    members = describe(view, 3)["highlight"]["poses"]
    legend = level_scene([view], [""], frames=True, highlight=3).legend
    assert f"of {min(24, members)} of {members} poses" in legend


def test_names_come_from_embeddings_not_from_order(make_blob, levels_of):
    view, copy, _, turn = compare(make_blob(), levels_of())
    backwards = torch.arange(view.sampled.chosen.num).flip(0)
    copy.sampled.chosen.index = copy.sampled.chosen.index[backwards]
    copy.sampled.chosen.assignment = backwards[copy.sampled.chosen.assignment]
    renamed, figures = match_copy(view, copy, turn)
    assert figures["same_representative"] == 1
    assert torch.equal(renamed.names, backwards)


def test_highlight_and_frames_turn_with_the_cloud(make_blob, levels_of):
    view, copy, _, turn = compare(make_blob(), levels_of())
    for highlight in (None, 3):
        scene = level_scene([view, copy], ["a", "b"], highlight=highlight, frames=True)
        first, second = scene.parts
        assert 1 <= len(first.frame_pos) <= 24
        wanted, found = (
            np.concatenate([pos[:, :, None], rot], axis=2).reshape(-1, 12)
            for pos, rot in (
                (first.frame_pos @ turn.numpy().T, turn.numpy() @ first.frame_rot),
                (second.frame_pos, second.frame_rot),
            )
        )
        # As sets: poses at equal distances from a representative have no order.
        apart = np.abs(wanted[:, None] - found[None]).max(-1)
        assert apart.min(0).max() < 1e-6 and apart.min(1).max() < 1e-6
        np.testing.assert_allclose(first.color, second.color, atol=1e-6)
    found = describe(view, 3)
    weight = int(view.sampled.chosen.multiplicity[3])
    assert found["highlight"]["poses"] == weight and found["representatives"] == 24
    assert found["highlight"]["points"] <= found["points_with_poses"] == 20


@pytest.mark.parametrize("coloring", SAMPLED)
def test_orbits_that_blend(make_blob, levels_of, coloring):
    levels = levels_of(GridPoses("D2", "manhattan"), num=20, refine=1, blend=6, orbits=True)
    view, copy, figures, _ = compare(make_blob(), levels, rotation=1)
    scene = level_scene([view, copy], ["", ""], coloring=coloring)
    first, second = scene.parts
    np.testing.assert_allclose(first.color, second.color, atol=1e-6)
    assert figures["same_representative"] == 1 and figures["embedding_difference"] < 1e-9
    # A pose shares several outputs: only of the nearest may the legend speak.
    assert "share" not in scene.legend and ("nearest" in scene.legend) == (coloring != "feature")
    # The representatives of an orbit stand for the same points, each in frames of its own.
    found = [level_scene([view], [""], highlight=number, frames=True) for number in range(4, 8)]
    for other in found:
        np.testing.assert_array_equal(other.parts[0].color, found[0].parts[0].color)
        assert "whose nearest it is" in other.legend
    frames = np.stack([np.sort(other.parts[0].frame_rot[:, 0, 0]) for other in found])
    assert len(np.unique(frames.round(6), axis=0)) > 1


def test_the_legend_of_outputs_that_are_shared_whole(make_blob, levels_of):
    view = sample_level(make_blob(), levels_of())
    assert "share the output of one representative" in level_scene([view], [""]).legend
    assert "share its output" in level_scene([view], [""], highlight=3).legend
    assert "nearest" not in level_scene([view], [""], coloring="distance").legend


def test_degenerate_clouds_have_a_scene(degenerate_cloud, levels_of):
    view, copy, _, _ = compare(degenerate_cloud, levels_of())
    for coloring in SAMPLED:
        scene = level_scene([view, copy], ["", ""], coloring=coloring, frames=True)
        assert all(np.isfinite(part.color).all() and part.radius > 0 for part in scene.parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0}, r"`level` \(=0\) must be one of 1, 2: "),
        ({"level": 4}, r"`level` \(=4\) must be one of 1, 2: "),
        ({"level": 3}, r"`level` \(=3\) .* 1, 2: .* 3 levels, counted from 1; level 3 is at the"),
        ({"rotation": 24}, r"`rotation` \(=24\) must be 0 to 23"),
    ],
)
def test_levels_that_cannot_be_shown(make_blob, levels_of, options, message):
    with pytest.raises(ArgumentError, match=message):
        sample_level(make_blob(), levels_of(), **options)


def test_dense_levels_cannot_be_shown_but_for_the_first(make_blob, levels_of):
    levels = levels_of(num=None)
    assert sample_level(make_blob(), levels).sampled.chosen.num == 20 * 24
    with pytest.raises(ArgumentError, match=r"\(=2\) must be one of 1: .* level 2 is dense"):
        sample_level(make_blob(), levels, 2)


def test_of_many_pale_points_some_are_drawn(make_blob, levels_of, monkeypatch):
    monkeypatch.setattr(level_scene_module, "MOST_PALE", 7)
    pos = make_blob()
    view, copy, _, turn = compare(pos, levels_of())
    first, second = level_scene([view, copy], ["", ""], highlight=3, frames=True).parts
    assert len(first.pos) == len(second.pos) == 20 + 7 < len(pos)
    # The same ones in the copy, and all points with poses, in their colours.
    np.testing.assert_allclose(second.pos, first.pos @ turn.numpy().T)
    np.testing.assert_allclose(second.color, first.color)
    whole = highlight_colors(view.assignment, view.sampled.chosen.index, 3)
    for row, color in zip(view.sampled.points.tolist(), whole):
        (place,) = np.flatnonzero((first.pos == pos[row].numpy()).all(1))
        np.testing.assert_array_equal(first.color[place], color)
    with_poses = pos[view.sampled.points].numpy()
    pale = ~(first.pos[:, None] == with_poses).all(2).any(1)
    assert pale.sum() == 7 and (first.color[pale] == PALE).all()


def test_colourings_that_do_not_exist(make_blob, levels_of):
    view = sample_level(make_blob(), levels_of())
    with pytest.raises(ArgumentError, match=r"`coloring` \(='rainbow'\) must be one of"):
        level_scene([view], [""], coloring="rainbow")
    with pytest.raises(ArgumentError, match=r"`highlight` \(=99\) must be a representative"):
        level_scene([view], [""], highlight=99)

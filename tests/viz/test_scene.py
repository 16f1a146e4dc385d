"""Scenes are plain arrays, and the camera sees all of them."""

import numpy as np
import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.viz import CloudPart, Scene
from pcequi.viz.scene import sphere_resolution
from pcequi.viz.worker import ABOVE, RIGHT, camera


def part(num=5, **options):
    return CloudPart(np.random.default_rng(0).normal(size=(num, 3)), np.zeros((num, 3)), **options)


def test_saved_and_loaded(tmp_path):
    scene = Scene([part(size=0.1, frame_pos=[[1.0, 2, 3]], frame_rot=[np.eye(3)]), part(7)])
    scene.save(tmp_path / "scene.npz")
    again = Scene.load(tmp_path / "scene.npz")
    for one, other in zip(scene.parts, again.parts, strict=True):
        for name in ("pos", "color", "size", "frame_pos", "frame_rot"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("num", [1, 2, 3, 5, 13])
@pytest.mark.parametrize("height", [200, 400, 1000])
def test_the_camera_sees_every_cloud_however_it_is_turned(num, height):
    scene = Scene([part(scale) for scale in range(40, 40 + num)])
    width = 400
    intrinsic, extrinsic = camera(scene.radius, width, height, scene.columns, scene.rows)
    ball = np.random.default_rng(1).normal(size=(500, 3))
    ball *= scene.radius / np.linalg.norm(ball, axis=1, keepdims=True)
    places = []
    for offset in scene.offsets(RIGHT, ABOVE):
        seen = (ball + offset) @ extrinsic[:3, :3].T + extrinsic[:3, 3]
        assert (seen[:, 2] > 0).all()
        pixel = (seen @ intrinsic.T)[:, :2] / seen[:, 2:]
        assert (pixel > 0).all() and (pixel < [width, height]).all()
        places.append(pixel.mean(0))
    # In the order of reading: to the right in a row, each row below the one before.
    for number, (one, other) in enumerate(zip(places, places[1:]), 1):
        below = number % scene.columns == 0
        assert other[1] > one[1] + 5 if below else other[0] > one[0] + 5
    assert np.isclose(np.linalg.det(extrinsic[:3, :3]), 1)


@pytest.mark.parametrize(
    ("num", "grid"),
    [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (8, (2, 4)), (12, (3, 4)), (13, (3, 5)), (60, (6, 10))],
)
def test_more_than_four_clouds_stand_in_rows(num, grid):
    scene = Scene([part()] * num)
    assert (scene.rows, scene.columns) == grid
    # No row is empty.
    assert (scene.rows - 1) * scene.columns < num <= scene.rows * scene.columns


@pytest.mark.parametrize("where", [0.0, 1.0, 0.1, -317.3])
def test_a_single_place_is_a_small_ball(where):
    for num in (1, 3, 50):
        found = CloudPart(np.full((num, 3), where), np.zeros((num, 3)))
        assert found.radius == 1
        assert found.reach > 5 * found.size.max()
    # Two places, however near, are no single one.
    near = CloudPart(np.array([[1.0, 0, 0], [1.0, 2e-6, 0]]), np.zeros((2, 3)))
    assert near.radius == pytest.approx(1e-6)


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_the_axis_that_is_up(up):
    frames = {"frame_pos": [[1.0, 2, 3]], "frame_rot": [np.eye(3)], "title": "a title"}
    cloud = part(size=0.1, **frames)
    found = cloud.standing(up)
    np.testing.assert_array_equal(found.pos[:, 2], cloud.pos[:, "xyz".index(up)])
    turn = found.frame_rot[0]
    assert np.linalg.det(turn) == 1, "turned, not mirrored"
    np.testing.assert_array_equal(found.pos, cloud.pos @ turn.T)
    np.testing.assert_array_equal(found.frame_pos, cloud.frame_pos @ turn.T)
    assert found.title == cloud.title and (found.size == cloud.size).all()
    with pytest.raises(ArgumentError, match=r"`up` \(='w'\) must be one of x, y, z"):
        cloud.standing("w")


def test_many_spheres_are_coarse():
    numbers = [1, 20_000, 50_000, 100_000, 200_000, 1_000_000]
    found = [sphere_resolution(num) for num in numbers]
    assert found[0] == found[1] == 8 and found[-1] == 2
    assert found == sorted(found, reverse=True)
    assert all(4 * r * (r - 1) * num <= 5e6 for r, num in zip(found[:-1], numbers))


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"`pos` \(=\[0, 3\]\) must be \[N, 3\]"):
        part(0)
    with pytest.raises(ShapeError, match=r"`color` \(=\[4, 3\]\) must be \[5, 3\]"):
        CloudPart(np.zeros((5, 3)), np.zeros((4, 3)))
    with pytest.raises(ShapeError, match=r"`frame_rot` \(=\[0, 3, 3\]\) must be \[1, 3, 3\]"):
        part(frame_pos=np.zeros((1, 3)))
    with pytest.raises(ArgumentError, match=r"`parts` \(=\[\]\) must hold at least one cloud"):
        Scene([])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"pos": [[0, 0, 0], [0, np.nan, 0]]},
            DataError,
            r"`pos` must be finite .*1 of its 6.*1, 1",
        ),
        ({"color": [[0, 0, 0], [0, np.inf, 0]]}, DataError, "`color` must be finite"),
        ({"size": np.nan}, DataError, "`size` must be finite"),
        ({"color": [200, 3, 0]}, ArgumentError, r"`color` \(0 to 200\) .* divide by 255"),
        ({"color": [0.5, -1, 0]}, ArgumentError, r"`color` \(-1 to 0.5\) must be from 0 to 1"),
        ({"color": [0.5, 300, 0]}, ArgumentError, "into that range"),
        ({"size": -1.0}, ArgumentError, r"`size` \(=-1\) must not be negative"),
        ({"size": [1.0, 1, 1]}, ShapeError, r"`size` \(=\[3\]\) must be a number, or .* 2 points"),
        (
            {"pos": [[0, 0, 0], [1e200, 0, 0]]},
            ArgumentError,
            r"`pos` \(up to 1e\+200\) .* scale it",
        ),
        (
            {"frame_pos": [[0, 0, 0]], "frame_rot": [np.full((3, 3), np.nan)]},
            DataError,
            "`frame_rot` must be finite",
        ),
    ],
)
def test_what_would_be_drawn_wrongly_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        CloudPart(**{"pos": np.eye(3)[:2], "color": np.zeros((2, 3)), **options})


def test_one_colour_and_tensors_of_any_kind():
    pos = torch.randn(4, 3, requires_grad=True)
    color = torch.rand(4, 3).bfloat16()
    found = CloudPart(pos, color, size=torch.ones(4, requires_grad=True))
    np.testing.assert_array_equal(found.pos, pos.detach().numpy())
    np.testing.assert_array_equal(found.color, color.double().numpy())
    orange = CloudPart(pos, (1, 0.5, 0)).color
    np.testing.assert_array_equal(orange, [[1, 0.5, 0]] * 4)

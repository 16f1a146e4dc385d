"""Scenes are plain arrays, and the camera sees all of them."""

import numpy as np
import pytest

from pcequi.errors import ArgumentError, ShapeError
from pcequi.viz import CloudPart, Scene
from pcequi.viz.worker import RIGHT, camera


def part(num=5, **options):
    return CloudPart(np.random.default_rng(0).normal(size=(num, 3)), np.zeros((num, 3)), **options)


def test_saved_and_loaded(tmp_path):
    scene = Scene([part(size=0.1, frame_pos=[[1.0, 2, 3]], frame_rot=[np.eye(3)]), part(7)])
    scene.save(tmp_path / "scene.npz")
    again = Scene.load(tmp_path / "scene.npz")
    for one, other in zip(scene.parts, again.parts, strict=True):
        for name in ("pos", "color", "size", "frame_pos", "frame_rot"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("height", [200, 400, 1000])
def test_the_camera_sees_every_cloud_however_it_is_turned(num, height):
    scene = Scene([part(scale) for scale in range(40, 40 + num)])
    width = 400
    intrinsic, extrinsic = camera(scene, width, height)
    ball = np.random.default_rng(1).normal(size=(500, 3))
    ball *= scene.radius / np.linalg.norm(ball, axis=1, keepdims=True)
    for offset in scene.offsets(RIGHT):
        seen = (ball + offset) @ extrinsic[:3, :3].T + extrinsic[:3, 3]
        assert (seen[:, 2] > 0).all()
        pixel = (seen @ intrinsic.T)[:, :2] / seen[:, 2:]
        assert (pixel > 0).all() and (pixel < [width, height]).all()
    assert np.isclose(np.linalg.det(extrinsic[:3, :3]), 1)


def test_a_single_place_has_a_size():
    assert CloudPart(np.ones((3, 3)), np.zeros((3, 3))).radius == 1


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"`pos` \(=\[0, 3\]\) must be \[N, 3\]"):
        part(0)
    with pytest.raises(ShapeError, match=r"`color` \(=\[4, 3\]\) must be \[5, 3\]"):
        CloudPart(np.zeros((5, 3)), np.zeros((4, 3)))
    with pytest.raises(ShapeError, match=r"`frame_rot` \(=\[0, 3, 3\]\) must be \[1, 3, 3\]"):
        part(frame_pos=np.zeros((1, 3)))
    with pytest.raises(ArgumentError, match=r"`parts` \(=\[\]\) must hold at least one cloud"):
        Scene([])

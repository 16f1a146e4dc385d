"""Pictures have what they should show; what prevents one is said clearly."""

import contextlib
import importlib.util
import itertools
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcequi.errors import ArgumentError, FileError, MissingPackageError
from pcequi.viz import CloudPart, RenderError, Scene, has_display, save_picture, show_window
from pcequi.viz import render as rendering
from pcequi.viz.worker import BAD_PICTURE, NO_CONTEXT, NO_OPEN3D, white_corners


def pixels(picture, size):
    return np.asarray(picture.convert("RGB"), dtype=int)[:size]


@pytest.mark.render
def test_a_picture_shows_both_clouds(first_picture):
    with Image.open(first_picture) as picture:
        assert picture.width == 240 and picture.height > 120
        image = pixels(picture, 120)
    assert (image[0] == 255).all() and (image[:, 120] == 255).all()
    covered = (image < 250).any(2)
    left, right = image[:, :120][covered[:, :120]], image[:, 120:][covered[:, 120:]]
    assert 0.05 < covered[:, :120].mean() < 0.9 and 0.05 < covered[:, 120:].mean() < 0.9
    assert np.median(left[:, 0] - left[:, 2]) > 60  # red
    assert np.median(right[:, 2] - right[:, 0]) > 60  # blue
    # The green axis of the frame; no point is green. Shaded: more than one red.
    assert (left[:, 1] - left[:, [0, 2]].max(1) > 20).any()
    assert len(np.unique(left[:, 0])) > 10


@pytest.mark.render
def test_a_picture_with_another_axis_up(first_picture, tmp_path):
    rod = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * [0.1, 1.0, 0.1]
    scene = Scene([CloudPart(rod, (0.9, 0.1, 0.1))])
    for up, upright in (("y", True), ("z", False)):
        with Image.open(save_picture(scene, tmp_path / f"{up}.png", size=100, up=up)) as picture:
            covered = (pixels(picture, 100) < 250).any(2)
        high, wide = covered.any(1).sum(), covered.any(0).sum()
        assert (high > 2 * wide) if upright else (wide > 1.3 * high)


@pytest.mark.render
def test_a_gif_turns(first_picture, two_clouds, tmp_path):
    file = save_picture(two_clouds, tmp_path / "out.gif", size=60, frames=3)
    with Image.open(file) as picture:
        assert picture.n_frames == 3 and picture.info["loop"] == 0
        images = []
        for number in range(3):
            picture.seek(number)
            images.append(pixels(picture, 60))
    assert (images[0][0, 0] == 255).all()
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert (np.abs(images[one] - images[other]).max(2) > 60).mean() > 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "out.jpg"}, r"`path` \(='.*out.jpg'\) must end in .png or .gif"),
        ({"renderer": "crayon"}, r"`renderer` \(='crayon'\) must be one of auto, egl"),
        ({"size": 3}, r"`size` \(=3\) must be a whole number, at least 32"),
        ({"up": "w"}, r"`up` \(='w'\) must be one of x, y, z"),
        ({"frames": 1}, r"`frames` \(=1\) must be a whole number, at least 2"),
        ({"size": 8193}, r"`size` \(=8193\) must be at most 8192 for 2 clouds"),
        ({"size": 5000, "path": "out.gif"}, r"`size` .* at most 2730 for 2 clouds in 36 frames"),
    ],
)
def test_arguments_that_cannot_be(two_clouds, tmp_path, options, message):
    options = {"path": "out.png"} | options
    options["path"] = tmp_path / options["path"]
    with pytest.raises(ArgumentError, match=message):
        save_picture(two_clouds, **options)


def test_the_folder_must_exist(two_clouds, tmp_path):
    with pytest.raises(FileError, match="its folder does not exist"):
        save_picture(two_clouds, tmp_path / "none" / "out.png")


def test_a_picture_of_a_folder_or_where_nothing_may_be_written(tmp_path, monkeypatch):
    (tmp_path / "here.png").mkdir()
    for folder in (tmp_path, tmp_path / "here.png"):
        with pytest.raises(FileError, match="is a folder: name a file in it"):
            rendering.check_picture_path(folder)
    asked = []
    monkeypatch.setattr(rendering.os, "access", lambda path, mode: asked.append(path))
    (tmp_path / "old.png").write_bytes(b"")
    for name in ("new.png", "old.png"):
        with pytest.raises(FileError, match=f"`path` .*{name}'\\) cannot be written"):
            rendering.check_picture_path(tmp_path / name)
    # A file that is there is written over; else one is made in the folder.
    assert asked == [tmp_path, tmp_path / "old.png"]


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(part) for part in (noise, noise[::-1].copy())]
    for name in ("out.png", "out.gif"):
        path = tmp_path / name
        rendering._write(path, pictures)
        before = path.read_bytes()
        with Image.open(path) as picture:
            assert picture.n_frames == 1 + (name == "out.gif") and picture.size == (8, 8)
        with monkeypatch.context() as full:
            full.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
            with pytest.raises(FileError, match=f"{name} cannot be written .No space"):
                rendering._write(path, pictures[::-1])
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
        path.unlink()


def test_code_of_the_folder_with_the_scans_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("random", "open3d", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'w')")
    draw = ["draw", tmp_path / "none.npz", tmp_path, 64, 1]
    with contextlib.suppress(MissingPackageError):  # it looks for Open3D
        rendering._run_worker(draw, dict(os.environ), 60)
    assert not (tmp_path / "RAN").exists()


def test_a_worker_that_hangs_is_given_up_and_watched(monkeypatch, tmp_path):
    waiting = tmp_path / "waiting.py"
    waiting.write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(rendering.worker, "__name__", "waiting")
    environment, told = {**os.environ, "PYTHONPATH": str(tmp_path)}, []
    found = rendering._run_worker([], environment, 3.2, lambda: told.append(1))
    assert found == "gave up after 3 s" and len(told) >= 2


@pytest.mark.render
def test_equal_clouds_have_equal_pictures_wherever_they_stand(first_picture, tmp_path):
    pos = np.random.default_rng(0).normal(size=(60, 3))
    red = np.tile([0.9, 0.1, 0.1], (60, 1))
    half = CloudPart(pos / 2, red)
    scene = Scene([CloudPart(pos, red), half, *[CloudPart(pos + 9, red)] * 4])
    file = save_picture(scene, tmp_path / "out.png", size=80)
    with Image.open(file) as picture:
        assert picture.width == 3 * 80
        image = np.asarray(picture.convert("RGB"), dtype=int)
    clouds = [image[y : y + 80, x : x + 80] for y in (0, 80) for x in (0, 80, 160)]
    for number in (2, 3, 4, 5):
        assert np.abs(clouds[number] - clouds[0]).mean() < 0.5
    # One scale for all: a cloud of half the size looks half as large.
    wide = [(cloud < 250).any(2).any(0).sum() for cloud in clouds[:2]]
    assert wide[1] == pytest.approx(wide[0] / 2, rel=0.15)


@pytest.mark.parametrize(("size", "drawn"), [(100, 200), (4096, 8192), (4100, 8192), (8192, 8192)])
def test_what_would_be_too_large_is_drawn_with_less_oversampling(
    two_clouds, monkeypatch, tmp_path, size, drawn
):
    found = []
    monkeypatch.setattr(rendering, "check_open3d", lambda: None)
    monkeypatch.setattr(
        rendering, "_run_worker", lambda arguments, *_: found.append(arguments) or "stopped"
    )
    with pytest.raises(RenderError):
        save_picture(two_clouds, tmp_path / "out.png", size=size, renderer="egl")
    assert found[0][3:] == [drawn, 1]


def test_a_black_picture_is_noticed():
    image = np.full((40, 50, 3), 255, dtype=np.uint8)
    image[5:-5, 5:-5] = 10
    assert white_corners(image)
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        spoilt = image.copy()
        spoilt[y, x] = 0
        assert not white_corners(spoilt)
    assert not white_corners(np.zeros((0, 0, 3)))


def test_without_open3d(two_clouds, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "open3d" else found(name)
    )
    with pytest.raises(MissingPackageError, match=r'pip install "\.\[viz\]".*libusb'):
        save_picture(two_clouds, tmp_path / "out.png")


def test_without_a_display(two_clouds, monkeypatch):
    monkeypatch.setattr(rendering.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    with pytest.raises(RenderError, match="no display .* --save out.png"):
        show_window(two_clouds)


@pytest.fixture
def broken_worker(monkeypatch):
    """Replace the process that draws; returns the environments that it was given."""
    monkeypatch.setattr(rendering, "check_open3d", lambda: None)
    monkeypatch.setattr(rendering, "has_display", lambda: False)
    monkeypatch.setenv("DISPLAY", ":7")

    def replace(status=0, error=None):
        environments, clock = [], itertools.count(step=100)

        class Worker(contextlib.nullcontext):
            returncode = status

            def __init__(self, command, env, **_):
                super().__init__(self)
                environments.append(env)

            def communicate(self, timeout):
                if error:
                    raise error
                return "", "some words\nlast words\n"

            def kill(self):
                pass

        monkeypatch.setattr(rendering.subprocess, "Popen", Worker)
        monkeypatch.setattr(rendering.time, "monotonic", lambda: next(clock))
        return environments

    return replace


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (-11, None, r"egl: the driver crashed \(signal 11\)"),
        (1, None, "status 1: last words"),
        (NO_CONTEXT, None, "no graphics context"),
        (0, None, "it wrote no picture"),
        (BAD_PICTURE, None, "the driver drew a bad picture"),
        (0, subprocess.TimeoutExpired("x", 70), "gave up after 70 s"),
    ],
)
def test_a_driver_that_fails_is_reported(
    two_clouds, broken_worker, tmp_path, status, error, message
):
    environments = broken_worker(status, error)
    with pytest.raises(RenderError, match=message) as caught:
        save_picture(two_clouds, tmp_path / "out.png")
    assert "libgl1-mesa-dri" in str(caught.value) and "window: no display" in str(caught.value)
    # First the machine's driver, then the CPU; never the display.
    assert [env.get("LIBGL_ALWAYS_SOFTWARE") for env in environments] == [None, "1"]
    assert not any("DISPLAY" in env for env in environments)
    assert not (tmp_path / "out.png").exists()


def test_a_renderer_can_be_chosen(two_clouds, broken_worker, tmp_path):
    environments = broken_worker(-6)
    with pytest.raises(RenderError, match="software: the driver crashed"):
        save_picture(two_clouds, tmp_path / "out.png", renderer="software")
    assert len(environments) == 1


def test_an_open3d_that_does_not_load(two_clouds, broken_worker, tmp_path):
    broken_worker(NO_OPEN3D)
    with pytest.raises(MissingPackageError, match=r"does not load \(last words\).*libusb-1.0-0"):
        save_picture(two_clouds, tmp_path / "out.png")


def test_the_package_loads_without_torch_and_open3d():
    code = "import sys, pcequi.viz; print('torch' in sys.modules, 'open3d' in sys.modules)"
    root = Path(rendering.__file__).parents[2]
    done = subprocess.run(
        [rendering.sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=60
    )
    assert done.stdout.split() == ["False", "False"], done.stderr

"""A first picture, which skips what cannot be drawn on this machine; a display."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pcequi.errors import MissingPackageError
from pcequi.viz import CloudPart, RenderError, Scene, save_picture


@pytest.fixture(scope="session")
def two_clouds():
    """A red cloud with one frame, its green axis up, and a blue cloud."""
    pos = np.random.default_rng(0).normal(size=(60, 3))
    red, blue = np.tile([0.9, 0.1, 0.1], (60, 1)), np.tile([0.1, 0.1, 0.9], (60, 1))
    top = pos[pos[:, 2].argmax()]
    frame = [[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]
    first = CloudPart(pos, red, frame_pos=[top], frame_rot=[frame], title="red")
    return Scene([first, CloudPart(pos, blue)], "a legend")


@pytest.fixture(scope="session")
def first_picture(two_clouds, tmp_path_factory):
    """Skips, with the reason, where Open3D or every renderer is missing."""
    file = tmp_path_factory.mktemp("viz") / "out.png"
    try:
        # Once a session: starting Open3D takes most of the time.
        return save_picture(two_clouds, file, size=120)
    except (MissingPackageError, RenderError) as error:
        pytest.skip(str(error))


@pytest.fixture
def display(first_picture, tmp_path, monkeypatch):
    """A virtual display that $DISPLAY names; skips where Xvfb or Open3D is missing."""
    spec = importlib.util.spec_from_file_location("display", Path(__file__).with_name("display.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.virtual_display(tmp_path) as display:
        monkeypatch.setenv("DISPLAY", display.name)
        monkeypatch.setenv("LIBGL_ALWAYS_SOFTWARE", "1")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        yield display

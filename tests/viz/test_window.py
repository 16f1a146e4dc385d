"""The interactive window, opened on a virtual display, looked at, and closed again."""

import subprocess
import sys

import pytest

from pcequi.viz import RenderError, show_window

pytestmark = pytest.mark.render


PROGRAM = """
import sys
from pcequi.viz import Scene, show_window
show_window(Scene.load(sys.argv[1]), "a chair")
print("closed")
"""


@pytest.mark.parametrize("way", ["key", "cross"])
def test_a_window_shows_both_clouds_and_closes(display, two_clouds, tmp_path, way):
    two_clouds.save(tmp_path / "scene.npz")
    command = [sys.executable, "-c", PROGRAM, tmp_path / "scene.npz"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    user = subprocess.Popen(command, **pipes)
    try:

        def colors():
            screen = display.screen().astype(int)
            red = (screen[..., 0] - screen[..., 2] > 60).mean()
            blue = (screen[..., 2] - screen[..., 0] > 60).mean()
            white = (screen == 255).all(2).mean()
            return min(red, blue) > 0.005 and white > 0.2

        assert display.until(lambda: colors() or user.poll() is not None), "nothing was drawn"
        assert user.poll() is None, "it ended by itself"
        window = display.window("a chair")
        assert window is not None
        display.press(window, "q") if way == "key" else display.close(window)
        assert user.communicate(timeout=60)[0] == "closed\n"
        assert user.returncode == 0
        assert display.window("a chair") is None
    finally:
        user.kill()
        user.communicate()


def test_a_display_that_is_not_there(first_picture, two_clouds, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RenderError, match="opened .*':4711' .* does not answer.* save a picture"):
        show_window(two_clouds)

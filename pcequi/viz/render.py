"""Pictures and windows of scenes, drawn by Open3D in a process of its own.

Without a display Open3D's visualizer draws through EGL. Graphics drivers can
crash or hang; in another process, with a time limit, that becomes an error
that says what to do.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pcequi.errors import ArgumentError, FileError, MissingPackageError, PcequiError, check_count
from pcequi.files import check_reach, expanded, write_bytes
from pcequi.viz import worker
from pcequi.viz.annotate import annotate
from pcequi.viz.scene import Scene, check_up

RENDERERS = ("auto", "egl", "software", "window")
ENDINGS = (".png", ".gif")
DEBIAN_PACKAGES = "libusb-1.0-0 libegl1 libgl1 libgl1-mesa-dri libx11-6 libudev1 libidn2-0"
_INSTALL = (
    'pip install ".[viz]" in the folder of the repository, and on Debian or Ubuntu apt-get install '
    f"{DEBIAN_PACKAGES}"
)
# Pictures are drawn larger and made smaller: the edges of the spheres are smooth.
_OVERSAMPLING = 2
# Width and height of what is drawn at once. Drivers' buffers end at 16,384, where those of
# Mesa on the CPU would take 8 GB; these take 2.
_MOST_DRAWN = 8192
_MOST_PIXELS = 2**29  # of all frames of a file together: 1.6 GB
FRAMES = 36  # of a turn, where no other number is asked
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


NO_DISPLAY = (
    "there is no display for a window ($DISPLAY is not set): save a picture instead "
    "(`pcequi view FILE --save out.png`, or out.gif)"
)


class RenderError(PcequiError, RuntimeError):
    """No picture could be drawn; the message says why, and what to try.

    **Equivariance:** does not apply.
    """


def has_display() -> bool:
    """Whether a window can be opened: on Linux, $DISPLAY or $WAYLAND_DISPLAY is set.

    **Equivariance:** does not apply.
    """
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in _DISPLAYS)


def check_display() -> None:
    """Make sure that a window can be opened, before anything is computed.

    Raises:
        RenderError: there is no display, or it does not answer.

    **Equivariance:** does not apply.
    """
    if not has_display():
        raise RenderError(NO_DISPLAY)
    if not _display_answers():
        raise RenderError(
            f"no window could be opened (the display {os.environ.get('DISPLAY')!r} of $DISPLAY "
            "does not answer): save a picture instead"
        )


def _display_answers() -> bool:
    """Whether $DISPLAY can be reached. Where it cannot, Open3D would draw off-screen instead,
    and wait for a user who sees nothing."""
    if sys.platform != "linux" or os.environ.get("WAYLAND_DISPLAY"):
        return True
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return True  # Nobody to ask: Open3D, which needs the library too, says what is missing.
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(ctypes.c_void_p(display))
    return bool(display)


def check_open3d() -> None:
    """Make sure that Open3D is installed, without importing it.

    Raises:
        MissingPackageError: it is not.

    **Equivariance:** does not apply.
    """
    if importlib.util.find_spec("open3d") is None:
        raise MissingPackageError(f"drawing needs Open3D, which is not installed: {_INSTALL}")


def save_picture(
    scene: Scene,
    path: str | Path,
    *,
    size: int = 640,
    frames: int = FRAMES,
    renderer: str = "auto",
    up: str = "z",
    timeout: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a scene into a file; no display is needed.

    Args:
        scene: what to draw.
        path: ``.png``, or ``.gif`` for clouds that turn once about the vertical.
        size: pixels for each cloud (width and height).
        frames: pictures of a turn; for ``.gif``.
        renderer: "egl" (the machine's own driver, no display), "software"
            (Mesa on the CPU, no display), "window" (a hidden window on the
            display); "auto" tries them in this order.
        up: the axis of the clouds that is up, "x", "y" or "z".
        timeout: seconds after which an attempt is given up; by default 60, and for
            each cloud of each frame 5, or more where ``size`` is above 700.
        progress: called now and then with (drawings done, drawings in all).

    Returns:
        The path.

    Raises:
        ArgumentError: an ending, a renderer, an axis or a number that cannot be, or a
            picture that is too large.
        FileError: the folder cannot be written to.
        MissingPackageError: Open3D or a system library is missing.
        RenderError: no renderer drew the picture.

    **Equivariance:** colours are those of the scene; the camera stands still. All
    clouds are drawn from one direction, in one scale.
    """
    path = check_picture_path(path)
    check_renderer(renderer)
    check_up(up)
    for name, value, least in (("size", size, 32), ("frames", frames, 2)):
        check_count(name, value, least)
    count = frames if path.suffix.lower() == ".gif" else 1
    check_picture_size(size, len(scene.parts), count)
    check_open3d()
    drawings = count * len(scene.parts)
    pixels = min(size * _OVERSAMPLING, _MOST_DRAWN)
    timeout = 60.0 + drawings * max(5, pixels**2 / 4e5) if timeout is None else timeout
    attempts = RENDERERS[1:] if renderer == "auto" else (renderer,)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "scene.npz"
        replace(scene, parts=[part.standing(up) for part in scene.parts]).save(saved)

        def tell() -> None:
            if progress:
                progress(len(list(Path(folder).glob("[0-9]*.png"))), drawings)

        for attempt in attempts:
            if attempt == "window" and not has_display():
                failures.append("window: no display ($DISPLAY is not set)")
                continue
            arguments = ["draw", saved, folder, pixels, count]
            problem = _run_worker(arguments, _environment(attempt), timeout, tell)
            drawn = sorted(Path(folder).glob("[0-9]*.png"))
            if problem is None and len(drawn) == drawings:
                _write(path, annotate(scene, drawn, size))
                return path
            failures.append(f"{attempt}: {problem or 'it wrote no picture'}")
            for file in drawn:
                file.unlink()
    raise RenderError(
        f"no picture could be drawn ({'; '.join(failures)}); install a driver for drawing on the "
        "CPU (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri), or choose another "
        f"renderer among {', '.join(RENDERERS[1:])}"
    )


def show_window(scene: Scene, title: str = "pcequi") -> None:
    """Show a scene in a window that can be turned, until the user closes it.

    Raises:
        MissingPackageError: Open3D or a system library is missing.
        RenderError: there is no display, or the window could not be opened.

    **Equivariance:** does not apply.
    """
    check_display()
    check_open3d()
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "scene.npz"
        scene.save(saved)
        problem = _run_worker(["show", saved, title], dict(os.environ), None)
    if problem:
        raise RenderError(f"no window could be opened ({problem}): save a picture instead")


def check_renderer(renderer: str) -> None:
    """Whether there is such a renderer.

    Raises:
        ArgumentError: there is none.

    **Equivariance:** does not apply.
    """
    if renderer not in RENDERERS:
        raise ArgumentError(f"`renderer` (={renderer!r}) must be one of {', '.join(RENDERERS)}")


def check_picture_path(path: str | Path) -> Path:
    """The path of a picture, checked before anything is computed.

    Raises:
        ArgumentError: not a ``.png`` or ``.gif``.
        FileError: it is a folder, or its folder does not exist or cannot be written to.

    **Equivariance:** does not apply.
    """
    path = expanded(path)
    if os.path.isdir(path):
        raise FileError(
            f"`path` (={str(path)!r}) is a folder: name a file in it, such as "
            f"{str(path / 'out.png')!r}"
        )
    if path.suffix.lower() not in ENDINGS:
        raise ArgumentError(f"`path` (={str(path)!r}) must end in {' or '.join(ENDINGS)}")
    check_reach(path)
    if not os.path.isdir(path.parent):
        raise FileError(f"`path` (={str(path)!r}): its folder does not exist; make it first")
    if not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise FileError(
            f"`path` (={str(path)!r}) cannot be written: choose a folder and a file that are yours"
        )
    return path


def check_picture_size(size: int, clouds: int, frames: int = 1) -> None:
    """Make sure that a picture can be drawn and held in memory.

    Args:
        size: pixels for each cloud (width and height).
        clouds: how many.
        frames: pictures of a turn.

    Raises:
        ArgumentError: ``size`` is too large.

    **Equivariance:** does not apply.
    """
    largest = min(_MOST_DRAWN, int((_MOST_PIXELS / clouds / frames) ** 0.5))
    if size > largest:
        raise ArgumentError(
            f"`size` (={size}) must be at most {largest} for {clouds} cloud{'s' * (clouds > 1)}"
            f"{f' in {frames} frames' * (frames > 1)}"
        )


def _environment(renderer: str) -> dict[str, str]:
    """Of the process that draws off-screen."""
    values = dict(os.environ)
    if renderer != "window":  # else Open3D would open a hidden window there
        for name in _DISPLAYS:
            values.pop(name, None)
    if renderer == "software":
        values |= {"LIBGL_ALWAYS_SOFTWARE": "1", "GALLIUM_DRIVER": "llvmpipe"}
    return values


def _run_worker(
    arguments: list, environment: dict, timeout: float | None, tell: Callable | None = None
) -> str | None:
    """What went wrong, or None; ``tell`` is called twice a second meanwhile."""
    # -P: a folder of scans may hold files named like modules, and nobody's code is to run.
    command = [sys.executable, "-P", "-m", worker.__name__, *map(str, arguments)]
    package_root = str(Path(__file__).parents[2])
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, inherited]))
    end = None if timeout is None else time.monotonic() + timeout
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as done:
        try:
            while True:
                try:
                    _, said = done.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    if end is not None and time.monotonic() > end:
                        done.kill()
                        return f"gave up after {timeout:.0f} s"
                if tell:
                    tell()
        except BaseException:
            done.kill()
            raise
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    if done.returncode == worker.NO_OPEN3D:
        raise MissingPackageError(f"drawing needs Open3D, which does not load ({last}): {_INSTALL}")
    if done.returncode == worker.NO_CONTEXT:
        return "no graphics context"
    if done.returncode == worker.BAD_PICTURE:
        return "the driver drew a bad picture (none, or its background is not white)"
    if done.returncode < 0:
        return f"the driver crashed (signal {-done.returncode})"
    return f"status {done.returncode}: {last}"


def _write(path: Path, pictures: list) -> None:
    first, content = pictures[0], io.BytesIO()
    if path.suffix.lower() == ".png":
        first.save(content, "png")
    else:
        # One palette for all frames, or colours would flicker.
        palette = first.quantize(255)
        frames = [_indexed(picture, palette) for picture in pictures]
        turn = {"duration": 3600 // len(frames), "loop": 0}
        frames[0].save(content, "gif", save_all=True, append_images=frames[1:], **turn)
    try:
        write_bytes(path.resolve(), content.getvalue())  # a link stays one
    except FileError as error:
        raise FileError(f"`path` (={str(path)!r}): {error}") from error


def _indexed(picture, palette):
    """A picture in 255 given colours and exact white, which averaging would tint."""
    from PIL import Image

    index = np.array(picture.quantize(palette=palette, dither=0))
    index[(np.asarray(picture) == 255).all(2)] = 255
    result = Image.fromarray(index)
    colors = palette.getpalette()[: 255 * 3]
    result.putpalette(colors + [255] * (256 * 3 - len(colors)))
    return result

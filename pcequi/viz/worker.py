"""Draws a saved scene: ``python -m pcequi.viz.worker``, in a process of its own.

A driver that crashes takes this process down, not the user's.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np

from pcequi.viz.scene import SPACING, Scene, part_geometry

# Exit statuses that render.py translates; above those of Python itself.
NO_OPEN3D, NO_CONTEXT, BAD_PICTURE, DEAD_DISPLAY = 40, 41, 42, 43

UP = np.array([0.0, 0.0, 1.0])
FRONT = np.array([0.55, -1.0, 0.45]) / np.linalg.norm([0.55, -1.0, 0.45])
RIGHT = np.cross(UP, FRONT) / np.linalg.norm(np.cross(UP, FRONT))
FIELD_OF_VIEW = 24.0  # degrees, vertical; narrow: both clouds are seen alike
_MARGIN = 1.04
_LIGHT = FRONT + 0.6 * UP - 0.5 * RIGHT
_AMBIENT = 0.60


def camera(scene: Scene, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole intrinsics [3, 3] and extrinsics [4, 4] that show all of a scene.

    **Equivariance:** does not apply: the camera stands still.
    """
    half = np.deg2rad(FIELD_OF_VIEW) / 2
    # A sphere is seen under an angle whose sine is radius over distance.
    high = scene.radius * _MARGIN / np.sin(half)
    half_wide = np.arctan(np.tan(half) * width / height)
    aside = SPACING * scene.radius * (len(scene.parts) - 1) / 2
    wide = scene.radius * _MARGIN / np.sin(half_wide) + aside / np.tan(half_wide)
    distance = max(high, wide)
    focal = height / 2 / np.tan(half)
    intrinsic = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])
    rotation = np.stack([RIGHT, -np.cross(FRONT, RIGHT), -FRONT])
    extrinsic = np.eye(4)
    extrinsic[:3, :3] = rotation
    extrinsic[:3, 3] = -rotation @ (FRONT * distance)
    return intrinsic, extrinsic


def shade(mesh, color: np.ndarray) -> None:
    """Colour the vertices of a mesh as a lamp above the camera would, with matte surfaces.

    Args:
        mesh: with normals [V, 3].
        color: of the vertices in full light [V, 3].

    **Equivariance:** does not apply: the lamp stands still.
    """
    import open3d as o3d

    light = np.asarray(mesh.vertex_normals) @ (_LIGHT / np.linalg.norm(_LIGHT))
    factor = _AMBIENT + (1 - _AMBIENT) * light.clip(0, 1)
    mesh.vertex_colors = o3d.utility.Vector3dVector(color * factor[:, None])


def draw_frames(scene: Scene, folder: Path, width: int, height: int, count: int) -> int:
    """Write ``count`` pictures of the turning clouds as ``0000.png`` and on."""
    import open3d as o3d

    opened = _open(scene, "pcequi", width, height, visible=False)
    if opened is None:
        return NO_CONTEXT
    visualizer, meshes, colors = opened
    offsets = scene.offsets(RIGHT)
    step = o3d.geometry.get_rotation_matrix_from_axis_angle(UP * 2 * np.pi / count)
    for number in range(count):
        if number:
            for mesh, color, offset in zip(meshes, colors, offsets):
                mesh.rotate(step, center=offset)
                shade(mesh, color)
                visualizer.update_geometry(mesh)
        visualizer.poll_events()
        visualizer.update_renderer()
        file = folder / f"{number:04d}.png"
        visualizer.capture_screen_image(str(file), do_render=True)
        if not file.exists():
            return BAD_PICTURE
    visualizer.destroy_window()
    return 0


def show(scene: Scene, title: str) -> int:
    """Open a window until the user closes it."""
    if not _display_answers():
        return DEAD_DISPLAY
    opened = _open(scene, title, 600 * len(scene.parts), 600, visible=True)
    if opened is None:
        return NO_CONTEXT
    opened[0].run()
    opened[0].destroy_window()
    return 0


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


def _open(scene: Scene, title: str, width: int, height: int, visible: bool):
    """A visualizer with the scene in view, its meshes and their colours in full light."""
    import open3d as o3d

    visualizer = o3d.visualization.Visualizer()
    if not visualizer.create_window(title, width, height, visible=visible):
        return None
    option = visualizer.get_render_option()
    if option is None:
        return None
    option.background_color = np.ones(3)
    # The renderer's own lights differ from driver to driver and wash colours out.
    option.light_on = False
    option.mesh_show_back_face = False
    meshes = [part_geometry(*pair) for pair in zip(scene.parts, scene.offsets(RIGHT))]
    colors = [np.asarray(mesh.vertex_colors).copy() for mesh in meshes]
    for mesh, color in zip(meshes, colors):
        shade(mesh, color)
        visualizer.add_geometry(mesh)
    parameters = o3d.camera.PinholeCameraParameters()
    intrinsic, parameters.extrinsic = camera(scene, width, height)
    parameters.intrinsic = o3d.camera.PinholeCameraIntrinsic(width, height, intrinsic)
    view = visualizer.get_view_control()
    view.convert_from_pinhole_camera_parameters(parameters, allow_arbitrary=True)
    return visualizer, meshes, colors


def main(arguments: list[str]) -> int:
    """``draw SCENE FOLDER WIDTH HEIGHT COUNT`` or ``show SCENE TITLE``."""
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return NO_OPEN3D
    scene = Scene.load(arguments[1])
    if arguments[0] == "show":
        return show(scene, arguments[2])
    return draw_frames(scene, Path(arguments[2]), *map(int, arguments[3:6]))


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The picture is written: a driver that fails while it is unloaded does no harm.
    os._exit(status)

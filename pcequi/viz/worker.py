"""Draws a saved scene: ``python -m pcequi.viz.worker``, in a process of its own.

A driver that crashes takes this process down, not the user's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from pcequi.viz.scene import SPACING, CloudPart, Scene, part_geometry

# Exit statuses that render.py translates; above those of Python itself.
NO_OPEN3D, NO_CONTEXT, BAD_PICTURE = 40, 41, 42

UP = np.array([0.0, 0.0, 1.0])
FRONT = np.array([0.55, -1.0, 0.45]) / np.linalg.norm([0.55, -1.0, 0.45])
RIGHT = np.cross(UP, FRONT) / np.linalg.norm(np.cross(UP, FRONT))
ABOVE = np.cross(FRONT, RIGHT)  # up in the picture
# Degrees, of the longer side; narrow, so that clouds in one window are seen alike. Open3D
# takes no less than 5 of the height: four clouds in a row leave 6.
FIELD_OF_VIEW = 24.0
_MARGIN = 1.04
_LIGHT = FRONT + 0.6 * UP - 0.5 * RIGHT
_AMBIENT = 0.60
_WINDOW = (1800, 900)  # the largest that is opened, in pixels
_CLOUD = 600  # of a window, where there is room


def camera(
    radius: float, width: int, height: int, columns: int = 1, rows: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole intrinsics [3, 3] and extrinsics [4, 4] that show rows of clouds.

    Args:
        radius: of the sphere that holds each of them.
        width, height: of the picture, in pixels.
        columns, rows: of clouds, see ``Scene.offsets``.

    **Equivariance:** does not apply: the camera stands still.
    """
    focal = max(width, height) / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW) / 2)
    distance = 0.0
    for pixels, num in ((width, columns), (height, rows)):
        half = np.arctan(pixels / 2 / focal)
        aside = SPACING * radius * (num - 1) / 2
        # A sphere is seen under an angle whose sine is radius over distance.
        distance = max(distance, radius * _MARGIN / np.sin(half) + aside / np.tan(half))
    intrinsic = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])
    rotation = np.stack([RIGHT, -ABOVE, -FRONT])
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


def draw_frames(scene: Scene, folder: Path, size: int, count: int) -> int:
    """Write ``count`` pictures of each turning cloud: ``FRAME-PART.png``, from 0000-0000.

    Each cloud is drawn alone, from one distance: equal clouds give equal pictures.
    """
    import open3d as o3d

    visualizer = _window("pcequi", size, size, visible=False)
    if visualizer is None:
        return NO_CONTEXT
    step = o3d.geometry.get_rotation_matrix_from_axis_angle(UP * 2 * np.pi / count)
    for number, part in enumerate(scene.parts):
        mesh, color = _shaded(part, np.zeros(3))
        visualizer.clear_geometries()
        visualizer.add_geometry(mesh)
        _aim(visualizer, size, size, *camera(scene.radius, size, size))
        for frame in range(count):
            if frame:
                mesh.rotate(step, center=np.zeros(3))
                shade(mesh, color)
                visualizer.update_geometry(mesh)
            visualizer.poll_events()
            visualizer.update_renderer()
            file = folder / f"{frame:04d}-{number:04d}.png"
            visualizer.capture_screen_image(str(file), do_render=True)
            if not file.exists() or not white_corners(np.asarray(o3d.io.read_image(str(file)))):
                return BAD_PICTURE
    visualizer.destroy_window()
    return 0


def white_corners(image: np.ndarray) -> bool:
    """Whether a picture [height, width, channels] has its background where no cloud reaches.

    Where it is larger than a driver's buffers, the driver fails silently, in black.
    """
    corners = image[:: max(1, image.shape[0] - 1), :: max(1, image.shape[1] - 1)]
    return corners.size > 0 and bool((corners[..., :3] == 255).all())


def show(scene: Scene, title: str) -> int:
    """Open a window until the user closes it."""
    columns, rows = scene.columns, scene.rows
    cloud = min(_CLOUD, _WINDOW[0] // columns, _WINDOW[1] // rows)
    width, height = cloud * columns, cloud * rows
    visualizer = _window(title, width, height, visible=True)
    if visualizer is None:
        return NO_CONTEXT
    for part, offset in zip(scene.parts, scene.offsets(RIGHT, ABOVE)):
        visualizer.add_geometry(_shaded(part, offset)[0])
    _aim(visualizer, width, height, *camera(scene.radius, width, height, columns, rows))
    visualizer.run()
    visualizer.destroy_window()
    return 0


def _window(title: str, width: int, height: int, visible: bool):
    """A visualizer with an empty white window; None where there is no graphics context."""
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
    return visualizer


def _shaded(part: CloudPart, offset: np.ndarray):
    """The mesh of a cloud, and its colours in full light [V, 3]."""
    mesh = part_geometry(part, offset)
    color = np.asarray(mesh.vertex_colors).copy()
    shade(mesh, color)
    return mesh, color


def _aim(visualizer, width: int, height: int, intrinsic: np.ndarray, extrinsic: np.ndarray) -> None:
    import open3d as o3d

    parameters = o3d.camera.PinholeCameraParameters()
    parameters.extrinsic = extrinsic
    parameters.intrinsic = o3d.camera.PinholeCameraIntrinsic(width, height, intrinsic)
    view = visualizer.get_view_control()
    view.convert_from_pinhole_camera_parameters(parameters, allow_arbitrary=True)


def main(arguments: list[str]) -> int:
    """``draw SCENE FOLDER SIZE COUNT`` or ``show SCENE TITLE``."""
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return NO_OPEN3D
    scene = Scene.load(arguments[1])
    if arguments[0] == "show":
        return show(scene, arguments[2])
    return draw_frames(scene, Path(arguments[2]), *map(int, arguments[3:5]))


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The picture is written: a driver that fails while it is unloaded does no harm.
    os._exit(status)

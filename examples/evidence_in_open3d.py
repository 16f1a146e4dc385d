"""From a point cloud of Open3D to a class, and to colours on that same cloud.

The cloud is yours, in its own pose, units and number of points: read from a file that
Open3D knows, or by default a chair, made here and turned; of a mesh points are sampled. The
network `modelnet40` names it, and each point is coloured by how much it speaks for the class
(red) or against it (blue), on a scale of this cloud alone.
Needs Open3D (`pip install ".[viz]"` in the repository), but no display.

    python examples/evidence_in_open3d.py [FILE] [--class NAME] [--save colored.ply]
        [--picture colored.png] [--quick]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from pcequi.datasets import make_shape
from pcequi.datasets.meshes import normalize_cloud, sample_mesh
from pcequi.errors import PcequiError
from pcequi.networks import load_network
from pcequi.pose_graph import read_carriers
from pcequi.rotations import random_rotations
from pcequi.training import predict_cloud
from pcequi.training.predict import sparse_warning
from pcequi.viz import CloudPart, RenderError, Scene, evidence_colors, save_picture
from pcequi.viz.colors import EVIDENCE_COLORMAP, evidence_limit
from pcequi.viz.evidence import with_evidence
from pcequi.viz.levels import sample_level

try:
    import open3d as o3d
except (ImportError, OSError) as error:  # not installed, or without its system libraries
    sys.exit(f'This example needs Open3D: pip install ".[viz]" in the repository ({error})')


MESHES = (".ply", ".obj", ".off", ".stl", ".glb", ".gltf")  # .ply may be either
WITH_COLORS = (".ply", ".pcd", ".pts", ".xyzrgb")  # clouds that Open3D writes with colours


def read_cloud(file: str, size: int) -> o3d.geometry.PointCloud:
    """A cloud from a file; of a mesh `size` points, by area, as `pcequi predict` takes them."""
    if Path(file).suffix.lower() in MESHES:
        with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
            mesh = o3d.io.read_triangle_mesh(file)
        if mesh.has_triangles():
            faces, rng = np.asarray(mesh.triangles), np.random.default_rng(0)
            points, _ = sample_mesh(np.asarray(mesh.vertices), faces, size, rng)
            return o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    return o3d.io.read_point_cloud(file)


def make_chair(size: int) -> o3d.geometry.PointCloud:
    """A chair in some pose, in centimetres, as a scanner might leave it."""
    rng = np.random.default_rng(2)
    points, _ = sample_mesh(*make_shape("chair", rng), size, rng)
    turn = random_rotations(1, generator=torch.Generator().manual_seed(5))[0].numpy()
    return o3d.geometry.PointCloud(o3d.utility.Vector3dVector(90 * points @ turn.T + 300))


def color_by_evidence(cloud: o3d.geometry.PointCloud, name: str | None) -> str:
    """Colour the points of a cloud for a class, by default the likeliest; returns its name."""
    network = load_network("modelnet40")
    points = np.asarray(cloud.points)
    # The network was trained on 1,024 points of unit radius; poses are no matter.
    some = np.random.default_rng(0).permutation(len(points))[:1024]
    if warning := sparse_warning(network, torch.from_numpy(points[some])):
        print(f"Warning: {warning}", file=sys.stderr)
    for answer in predict_cloud(network, points[some]):
        print(f"{answer['class']}: {answer['probability']:.1%}")
        name = name or answer["class"]
    if name not in network.classes:
        sys.exit(f"--class {name} must be one of {', '.join(network.classes)}")
    pos = torch.from_numpy(normalize_cloud(points[some]))
    levels = list(network.model.levels)
    target = network.classes.index(name)
    view, _ = with_evidence(sample_level(pos, levels), network.model, levels, 1, target)
    # Level 1 has poses on some of the points: all others take a mean of the nearest three.
    carriers = torch.from_numpy(points[some])[view.sampled.points]
    near, weight = read_carriers(carriers, torch.from_numpy(points))
    evidence = (view.evidence[near] * weight).sum(1)
    cloud.colors = o3d.utility.Vector3dVector(evidence_colors(evidence))
    print(f"full red from {evidence_limit(evidence):.2g}, full blue from as much below 0")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help=".ply .pcd .xyz .obj ...; by default a chair")
    parser.add_argument("--class", dest="name", help="by default the likeliest")
    parser.add_argument("--save", default="colored.ply", help=" or ".join(WITH_COLORS))
    parser.add_argument("--picture", help="a .png of the cloud, which needs OpenGL")
    parser.add_argument("--quick", action="store_true", help="a smaller chair")
    args = parser.parse_args()
    if Path(args.save).suffix.lower() not in WITH_COLORS:
        sys.exit(f"--save {args.save} must end in {', '.join(WITH_COLORS)}: others keep no colours")
    size = 2**11 if args.quick else 2**14
    cloud = read_cloud(args.file, size) if args.file else make_chair(size)
    cloud.remove_non_finite_points()
    if cloud.is_empty():
        sys.exit(f"{args.file} has no points that Open3D can read")
    try:
        name = color_by_evidence(cloud, args.name)
        if not o3d.io.write_point_cloud(args.save, cloud):
            sys.exit(f"{args.save} cannot be written")
        print(f"{args.save}: {len(cloud.points):,} points, red where they speak for a {name}")
        if args.picture:
            pos = normalize_cloud(np.asarray(cloud.points))
            part = CloudPart(pos, np.asarray(cloud.colors), title=name)
            ends = {"scale": ("against", "for"), "colormap": EVIDENCE_COLORMAP}
            print(save_picture(Scene([part], f"evidence for {name}", **ends), args.picture))
    except (PcequiError, RenderError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

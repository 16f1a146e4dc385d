"""Data sets of labelled point clouds, and readers for single files.

**Equivariance:** clouds come in the pose in which they are stored.
"""

from pcequi.datasets.folder import FolderClouds
from pcequi.datasets.modelnet import ModelNet
from pcequi.datasets.readers import read_points
from pcequi.datasets.roots import default_root
from pcequi.datasets.scanobjectnn import ScanObjectNN
from pcequi.datasets.shapenet_part import ShapeNetPart
from pcequi.datasets.shapes import SHAPE_CLASSES, Shapes, make_shape

__all__ = [
    "SHAPE_CLASSES",
    "FolderClouds",
    "ModelNet",
    "ScanObjectNN",
    "ShapeNetPart",
    "Shapes",
    "default_root",
    "make_shape",
    "read_points",
]

"""Pictures of clouds and of what a network's sampling makes of them.

Importing this package needs neither torch nor Open3D: Open3D (``pip install
".[viz]"`` in the folder of the repository) is used when something is drawn, in a process of its
own.

**Equivariance:** pictures of copies are drawn from the copies' own graphs.
"""

from pcequi.viz.colors import (
    distance_colors,
    evidence_colors,
    feature_basis,
    feature_colors,
    highlight_colors,
    representative_palette,
)
from pcequi.viz.render import RENDERERS, RenderError, has_display, save_picture, show_window
from pcequi.viz.scene import CloudPart, Scene

__all__ = [
    "RENDERERS",
    "CloudPart",
    "RenderError",
    "Scene",
    "distance_colors",
    "evidence_colors",
    "feature_basis",
    "feature_colors",
    "has_display",
    "highlight_colors",
    "representative_palette",
    "save_picture",
    "show_window",
]

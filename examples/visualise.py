"""See what a network samples: the representatives of a chair, as a picture.

Twice: through the views of a level, as `pcequi view` does it, and with colours
of one's own on the same points. Writes `chair-1.png` (a chair and a turned copy) and
`chair-2.png` (own colours) into the folder where it is started, over files of these
names. Needs Open3D (`pip install ".[viz]"` in the repository), but no display.

    python examples/visualise.py [--quick]
"""

import sys

import numpy as np
import torch

from pcequi.datasets import make_shape
from pcequi.datasets.meshes import normalize_cloud, sample_mesh
from pcequi.errors import MissingPackageError
from pcequi.models import preset
from pcequi.rotations import random_rotations
from pcequi.viz import CloudPart, RenderError, Scene, distance_colors, save_picture
from pcequi.viz.level_scene import level_scene
from pcequi.viz.levels import sample_level
from pcequi.viz.matching import match_copy


def main(quick: bool) -> None:
    rng = np.random.default_rng(2)
    points, _ = sample_mesh(*make_shape("chair", rng), 300 if quick else 1024, rng)
    pos = torch.from_numpy(normalize_cloud(points, "chair"))
    generator = torch.Generator().manual_seed(5)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]

    levels = preset("small")["levels"]
    levels[0] = levels[0].with_budget(num=24)
    view = sample_level(pos, levels)
    copy, figures = match_copy(view, sample_level(pos @ turn.T, levels), turn)
    print(f"{figures['same_representative']:.0%} of the copy's points: the same representative")
    scene = level_scene([view, copy], ["a chair", "a turned copy"])

    # Colours of one's own: the mean distance of each point's poses to their representatives.
    chosen, points = view.sampled.chosen, view.sampled.points
    distance = chosen.distance.view(len(points), -1).mean(1)
    part = CloudPart(pos[points].numpy(), distance_colors(distance), title="mean distance")
    own = Scene([part], "dark: well represented")

    try:
        for number, drawn in enumerate((scene, own), 1):
            print(save_picture(drawn, f"chair-{number}.png", size=120 if quick else 480))
    except (MissingPackageError, RenderError) as error:
        print(f"No picture: {error}")


if __name__ == "__main__":
    main("--quick" in sys.argv)

"""The numbers of docs/visualising.md are those of the shapes that it names."""

from pathlib import Path

import numpy as np
import trimesh

from pcequi.datasets import make_shape
from pcequi.datasets.readers import read_points
from pcequi.models import preset
from pcequi.viz.levels import describe, sample_level
from pcequi.viz.matching import match_shape

PAGE = Path(__file__).parents[2] / "docs" / "visualising.md"


def test_the_furniture_has_the_distances_of_the_page(tmp_path):
    levels = preset("small")["levels"]
    levels[0] = levels[0].with_budget(num=24)
    views = []
    for name, seed in {"chair": 2, "table": 3, "stool": 7}.items():
        file = tmp_path / f"{name}.off"
        vertices, faces = make_shape(name, np.random.default_rng(seed))
        trimesh.Trimesh(vertices, faces, process=False).export(file)
        views.append(sample_level(read_points(file, 1024, 0).pos, levels))
    chair, table, stool = (match_shape(views[0], view) for view in views)
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"of the chair's own poses, here {describe(chair)['mean_distance']:.3f}," in text
    away = [describe(view, 4)["highlight"]["distance"] for view in (stool, table)]
    assert f"The stool's is {away[0]:.2g} away, the table's {away[1]:.2g}:" in text

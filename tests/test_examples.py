"""Every example runs, in its quick form, from a folder of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    command = [sys.executable, str(path)]
    if "--quick" in path.read_text():
        command.append("--quick")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if "This example needs Open3D" in done.stderr:
        pytest.skip("Open3D is not installed, or does not load")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example says what it found"


def test_an_example_of_open3d_says_what_to_install(tmp_path):
    path = EXAMPLES[0].parent / "evidence_in_open3d.py"
    code = f"import runpy, sys; sys.modules['open3d'] = None; runpy.run_path({str(path)!r})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and 'pip install ".[viz]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_an_example_colours_the_points_of_the_cloud_that_it_was_given(tmp_path):
    path = EXAMPLES[0].parent / "evidence_in_open3d.py"
    points = np.random.default_rng(0).normal(size=(1500, 3)) * [1, 2, 5] + 40
    np.savetxt(tmp_path / "mine.xyz", points, fmt="%.6f")
    command = [sys.executable, str(path), "mine.xyz", "--class", "vase", "--save", "out.ply"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if "This example needs Open3D" in done.stderr:
        pytest.skip("Open3D is not installed, or does not load")
    assert done.returncode == 0, done.stderr
    saved = trimesh.load(tmp_path / "out.ply")
    assert np.allclose(saved.vertices, points, atol=1e-5)
    assert len(np.unique(saved.colors, axis=0)) > 50


def test_an_example_samples_the_faces_of_a_mesh_and_keeps_its_colours(tmp_path):
    path = EXAMPLES[0].parent / "evidence_in_open3d.py"
    trimesh.creation.box((2.0, 0.6, 0.2)).apply_translation([40, 0, 0]).export(tmp_path / "box.ply")
    np.savetxt(tmp_path / "few.xyz", np.random.default_rng(0).normal(size=(50, 3)))

    def run(*arguments):
        command = [sys.executable, str(path), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = run("box.ply", "--quick", "--save", "out.pcd")
    if "This example needs Open3D" in done.stderr:
        pytest.skip("Open3D is not installed, or does not load")
    assert done.returncode == 0 and "2,048 points" in done.stdout, done.stderr
    assert "full red from" in done.stdout and "too few" not in done.stderr
    assert "FIELDS x y z rgb" in (tmp_path / "out.pcd").read_bytes()[:300].decode(errors="replace")
    done = run("few.xyz")
    assert done.returncode == 0 and "Warning: 50 points, where the network" in done.stderr
    done = run("box.ply", "--save", "c.xyz")
    assert done.returncode == 1 and "keep no colours" in done.stderr
    assert not (tmp_path / "c.xyz").exists()


def test_there_are_examples():
    assert len(EXAMPLES) >= 3

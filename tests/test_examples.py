"""Every example runs, in its quick form, from a folder of its own."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import trimesh

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
IN_OPEN3D = EXAMPLES[0].parent / "evidence_in_open3d.py"
OWN_FOLDER = EXAMPLES[0].parent / "own_folder.py"


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """Run an example as a script; returns exit code, stdout and stderr.

    In this process, as one of its own would import torch for longer than most examples take;
    but for Open3D, whose libraries stay out of the other tests' way.
    """
    monkeypatch.chdir(tmp_path)

    def in_process(path, *arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        code, state, threads = 0, torch.random.get_rng_state(), torch.get_num_threads()
        try:
            with mock.patch.dict(os.environ):
                runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            torch.random.set_rng_state(state)
            torch.set_num_threads(threads)
        return (code, *capsys.readouterr())

    def on_its_own(path, *arguments):
        command = [sys.executable, str(path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if "This example needs Open3D" in done.stderr:
            pytest.skip("Open3D is not installed, or does not load")
        return done.returncode, done.stdout, done.stderr

    return lambda path, *given: (on_its_own if path == IN_OPEN3D else in_process)(path, *given)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, example):
    code, out, err = example(path, *["--quick"] * ("--quick" in path.read_text()))
    assert code == 0, err
    assert out.strip(), "an example says what it found"


def test_an_example_of_open3d_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(SystemExit, match=r'pip install "\.\[viz\]"'):
        runpy.run_path(str(IN_OPEN3D))


def test_an_example_colours_the_points_of_the_cloud_that_it_was_given(example):
    points = np.random.default_rng(0).normal(size=(1500, 3)) * [1, 2, 5] + 40
    np.savetxt("mine.xyz", points, fmt="%.6f")
    code, _, err = example(IN_OPEN3D, "mine.xyz", "--class", "vase", "--save", "out.ply")
    assert code == 0, err
    saved = trimesh.load("out.ply")
    assert np.allclose(saved.vertices, points, atol=1e-5)
    assert len(np.unique(saved.colors, axis=0)) > 50


def test_an_example_samples_the_faces_of_a_mesh_and_keeps_its_colours(example):
    trimesh.creation.box((2.0, 0.6, 0.2)).apply_translation([40, 0, 0]).export("box.ply")
    code, out, err = example(IN_OPEN3D, "box.ply", "--quick", "--save", "out.pcd")
    assert code == 0 and "2,048 points" in out, err
    assert "full red from" in out and "too few" not in err
    assert "FIELDS x y z rgb" in Path("out.pcd").read_bytes()[:300].decode(errors="replace")


@pytest.mark.slow
def test_an_example_says_what_is_amiss_with_a_cloud_or_a_file_to_write(example):
    np.savetxt("few.xyz", np.random.default_rng(0).normal(size=(50, 3)))
    code, _, err = example(IN_OPEN3D, "few.xyz")
    assert code == 0 and "Warning: 50 points, where the network" in err
    code, _, err = example(IN_OPEN3D, "few.xyz", "--save", "c.xyz")
    assert code == 1 and "keep no colours" in err
    assert not Path("c.xyz").exists()


def test_an_example_makes_files_to_try_things_on_once(example):
    code, _, err = example(OWN_FOLDER, "--make", "parts")
    assert code == 0, err
    assert len([path for path in Path("parts").rglob("*") if path.is_file()]) == 60
    code, _, err = example(OWN_FOLDER, "--make", "parts")
    assert code == 2 and "parts is there already" in err


def test_there_are_examples():
    assert len(EXAMPLES) >= 3

"""``pcequi view``."""

import json

import numpy as np
import pytest
import trimesh

from pcequi.cli import main
from pcequi.datasets.readers import read_points
from pcequi.models import presets
from pcequi.networks import load_network, network_names
from pcequi.training import save_checkpoint
from pcequi.viz import level_scene, render


@pytest.fixture
def view(monkeypatch, tmp_path, capsys, make_blob, levels_of):
    """Run `pcequi view` on a small cloud, with a small network and without a display."""
    monkeypatch.setitem(
        presets.PRESETS, "tiny", lambda: {"levels": levels_of(), "channels": [4, 4, 4]}
    )
    monkeypatch.setattr(render, "has_display", lambda: False)
    monkeypatch.chdir(tmp_path)
    np.savetxt("cloud.xyz", make_blob().numpy())

    def call(*arguments):
        try:
            main(["view", *map(str, arguments)])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def drawn(monkeypatch):
    """Scenes that were drawn, without drawing them."""
    scenes = []
    monkeypatch.setattr(render, "check_open3d", lambda: None)
    monkeypatch.setattr(render, "save_picture", lambda scene, *_, **options: scenes.append(scene))
    monkeypatch.setattr(render, "show_window", lambda scene, title: scenes.append(scene))
    return scenes


TINY = ["cloud.xyz", "--preset", "tiny"]


def test_a_turned_copy_as_json(view, drawn):
    options = ["--rotated", "--save", "out.png", "--frames", "--highlight", 2, "--budget", 8]
    code, out, err = view(*TINY, *options, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["copy"]["same_representative"] == 1 and found["representatives"] == 8
    assert found["highlight"]["representative"] == 2 and found["saved"] == "out.png"
    first, second = drawn[0].parts
    np.testing.assert_allclose(first.color, second.color)
    turn = np.array(found["copy"]["rotation"])
    np.testing.assert_allclose(second.pos, first.pos @ turn.T)
    # The seed turns the copy.
    code, out, _ = view(*TINY, *options, "--seed", 1, "--json")
    assert not np.allclose(json.loads(out)["copy"]["rotation"], turn)


def test_for_people_and_in_a_window(view, drawn, monkeypatch):
    monkeypatch.setattr(render, "check_display", lambda: None)
    code, out, err = view(*TINY, "--rotated", "--highlight", 0, "--color", "distance")
    assert code == 0, err
    assert len(drawn) == 1 and "same representative" in out and "100.00%" in out
    assert "stands for" in out
    # A window has no room for words: titles, legend and keys are printed.
    assert "cloud.xyz | turned copy" in out and "Representative 0 (black)" in out
    assert "Q or Esc to close" in out
    code, out, _ = view(*TINY, "--color", "distance", "--json")
    assert code == 0 and json.loads(out)["saved"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no display for a window"),
        (["--save", "out.jpg"], "must end in .png or .gif"),
        (["--save", "out.png", "--color", "x"], "`color` (='x')"),
        (["--save", "out.png", "--level", 9], "`level` (=9) must be one of 1, 2:"),
        (["--save", "."], "is a folder: name a file in it"),
        (["--save", "out.png", "--size", 9000], "`size` (=9000) must be at most 8192"),
        (["--save", "out.png", "--highlight", 500], "`highlight` (=500)"),
        (["--save", "out.png", "--run", "nowhere"], "give one of them"),
        (["--save", "out.png", "--network", "modelnet40"], "give one of them"),
    ],
)
def test_errors_come_without_a_traceback(view, monkeypatch, arguments, message):
    monkeypatch.setattr(render, "check_open3d", lambda: None)
    code, out, err = view(*TINY, *arguments)
    assert code == 1 and message in err and "Traceback" not in err and out == ""
    code, out, _ = view(*TINY, *arguments, "--json")
    assert code == 1 and message in json.loads(out)["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "`preset` (='huge') must be one of default, large, small, pairs"),
        (["--network", "huge"], "`network` (='huge') must be one of modelnet40, modelnet40-large"),
        (["--run", "nowhere"], "`run` (='nowhere') does not exist: give the folder of a run"),
        (["--run", "r", "--network", "n"], "`run` (='r') and `network` (='n'): give one of them"),
    ],
)
def test_networks_that_do_not_exist(view, monkeypatch, arguments, message):
    monkeypatch.setattr(render, "check_open3d", lambda: None)
    code, _, err = view("cloud.xyz", "--save", "out.png", *arguments)
    assert code == 1 and message in err


def test_a_display_that_is_not_there(view, monkeypatch):
    monkeypatch.setattr(render, "has_display", lambda: True)
    monkeypatch.setattr(render, "_display_answers", lambda: False)
    monkeypatch.setenv("DISPLAY", ":4711")
    # Before anything is read or computed: the file does not exist.
    code, _, err = view("nowhere.xyz")
    assert code == 1 and "':4711' of $DISPLAY does not answer" in err


@pytest.mark.parametrize("color", ["representative", "distance"])
def test_a_network_of_pcequi(view, drawn, color):
    options = ["--network", "modelnet40-small", "--color", color, "--save", "out.png"]
    code, out, err = view("cloud.xyz", *options, "--json")
    assert code == 0, err
    assert json.loads(out)["network"] == "modelnet40-small"
    code, out, _ = view("cloud.xyz", *options)
    assert code == 0 and "level 1 of modelnet40-small" in out


def test_clouds_of_few_points_come_with_a_warning(view, drawn, make_blob):
    few = len(make_blob())
    assert few < 256
    np.savetxt("many.xyz", np.random.default_rng(0).normal(size=(300, 3)))
    options = ["--network", "modelnet40-small", "--save", "out.png"]
    code, _, err = view("cloud.xyz", "many.xyz", *options)
    assert code == 0
    assert f"Warning: cloud.xyz: {few} points, where the network was trained on 1024" in err
    assert "many.xyz" not in err
    code, out, _ = view("many.xyz", "cloud.xyz", *options, "--json")
    found = json.loads(out)
    assert found["warning"] is None and "too few" in found["others"][0]["warning"]
    # As many points as the network was trained on, where no other number is asked.
    np.savetxt("large.xyz", np.random.default_rng(0).normal(size=(1300, 3)))
    assert json.loads(view("large.xyz", *options, "--json")[1])["points"] == 1024
    small = load_network("modelnet40-small")
    save_checkpoint("run", small.model, small.classes, {"num_points": 1280, "points_seen": 300})
    options[:2] = ["--run", "run"]
    assert json.loads(view("large.xyz", *options, "--json")[1])["points"] == 1280
    # An untrained network gives no answer that could be trusted.
    code, _, err = view(*TINY, "--save", "out.png")
    assert code == 0 and "Warning" not in err


def test_the_axis_that_is_up(view, drawn, tmp_path):
    trimesh.creation.box((2.0, 0.6, 0.2)).export("box.glb")
    options = ["--preset", "tiny", "--num-points", 200, "--save", "out.png", "--rotated"]
    for up in ([], ["--up", "y"], ["--up", "z"], ["--up", "x"]):
        code, _, err = view("box.glb", "cloud.xyz", *options, *up)
        assert code == 0, err
    given = read_points("box.glb", 200, 0).pos.numpy()
    plain = drawn[2].parts
    np.testing.assert_allclose(plain[0].pos, given, atol=1e-6)
    for scene, axis in ((drawn[0], 1), (drawn[1], 1), (drawn[3], 0)):
        for number in (0, 1):  # the file and its copy
            np.testing.assert_allclose(scene.parts[number].pos[:, 2], plain[number].pos[:, axis])
    # Only the format of .glb says which axis it is.
    np.testing.assert_allclose(drawn[0].parts[2].pos, plain[2].pos)
    np.testing.assert_allclose(drawn[1].parts[2].pos[:, 2], plain[2].pos[:, 1])
    code, _, err = view("box.glb", *options, "--up", "w")
    assert code == 1 and "`up` (='w') must be one of x, y, z" in err


def test_several_files(view, drawn, make_blob):
    np.save("other.npy", make_blob(seed=4).numpy())
    options = ["--preset", "tiny", "--save", "out.png", "--highlight", 1, "--json"]
    code, out, err = view("cloud.xyz", "other.npy", "--rotated", *options)
    assert code == 0, err
    found = json.loads(out)
    assert [part.title for part in drawn[0].parts][::2] == ["cloud.xyz", "other.npy"]
    assert found["copy"]["same_representative"] == 1 and "nearest one" in drawn[0].legend
    (other,) = found["others"]
    assert other["file"] == "other.npy" and other["highlight"]["distance"] > 0
    code, out, _ = view("cloud.xyz", "other.npy", *options[:-1])
    assert code == 0 and "embedding" in out and len(drawn[1].parts) == 2
    # In colours, how much of the other is like the first is written below it.
    share, own = f"{other['matched']:.0%} like the first", f"own {found['mean_distance']:.2g}"
    code, out, _ = view("cloud.xyz", "other.npy", *options[:4])
    assert code == 0 and f"{other['matched']:.0%} of the poses like the first" in " ".join(
        out.split()
    )
    title = drawn[2].parts[1].title
    assert title.startswith(f"other.npy: {share}") and own in title


def test_stray_points_are_left_out(view, drawn, make_blob):
    cloud = make_blob().numpy()
    np.save("scan.npy", np.concatenate([cloud, [[6.0, 1, 0], [0, -5, 4]]]))
    options = ["scan.npy", "--preset", "tiny", "--save", "out.png", "--json"]
    whole, cleaned = (json.loads(view(*options, *more)[1]) for more in ([], ["--drop-outliers"]))
    assert whole["points"] == len(cloud) + 2 and cleaned["points"] <= len(cloud)
    radius = np.linalg.norm(drawn[1].parts[0].pos, axis=1).max()
    assert radius == pytest.approx(1.0)  # as the presets expect it


@pytest.fixture
def run(tmp_path, levels_of, network):
    return save_checkpoint(tmp_path / "run", network(levels_of()), ["a", "b", "c", "d"]).parent


def test_a_run_where_a_file_is_expected(view, drawn, run):
    code, _, err = view(run, "cloud.xyz", "--save", "out.png")
    assert code == 1 and "is the folder of a run" in err and f"--run {run}" in err
    (run.parent / "other").mkdir()
    (run.parent / "other" / "settings.json").write_text("{}")
    code, _, err = view("other", "--save", "out.png")
    assert code == 1 and "is a folder: name files" in err
    code, _, err = view("cloud.xyz", "--run", run, "--level", 3, "--save", "out.png")
    assert code == 1 and "level 3 is at the centroid" in err


def test_evidence_of_a_run(view, drawn, run):
    options = ["--run", run, "--color", "evidence", "--rotated", "--save", "out.png"]
    code, out, err = view("cloud.xyz", *options, "--json")
    assert code == 0, err
    found = json.loads(out)["evidence"]
    assert found[0]["class"] == found[1]["class"] and found[0]["probability"] > 0.25
    assert found[0]["total"] == pytest.approx(found[1]["total"], rel=1e-5)
    first, second = drawn[0].parts
    np.testing.assert_allclose(first.color, second.color, atol=0.01)  # 256 colours
    code, out, _ = view("cloud.xyz", *options, "--class", "c")
    assert code == 0 and "evidence for c" in drawn[1].legend
    for name in ("cloud.xyz", "turned copy"):
        assert f"{name}, evidence for c" in out
    assert "add up" not in out
    code, _, err = view("cloud.xyz", *options, "--class", "e")
    assert code == 1 and "`class` (='e') must be one of a, b, c, d" in err


def test_removal_of_a_run(view, drawn, run):
    options = ["--run", run, "--color", "removal", "--class", "c", "--save", "out.png"]
    code, out, err = view("cloud.xyz", *options, "--rotated", "--json")
    assert code == 0, err
    assert [found["class"] for found in json.loads(out)["evidence"]] == ["c", "c"]
    first, second = drawn[0].parts
    np.testing.assert_allclose(first.color, second.color, atol=0.01)
    assert "the logit of c falls" in drawn[0].legend


def test_evidence_without_a_run_is_of_the_network_that_comes_with_pcequi(view, drawn):
    code, out, err = view("cloud.xyz", "--color", "evidence", "--class", "cup", "--save", "o.png")
    assert code == 0, err
    assert "evidence for cup" in out and "evidence for cup" in drawn[0].legend
    assert "level 1 of modelnet40" in out and drawn[0].parts[0].title.startswith("cloud.xyz: cup ")
    options = ["--color", "evidence", "--network", "modelnet40-small", "--save", "o.png", "--json"]
    code, out, _ = view("cloud.xyz", *options)
    found = json.loads(out)
    assert code == 0 and found["network"] == "modelnet40-small"
    assert found["evidence"][0]["cloud"] == "cloud.xyz"


def test_evidence_of_an_untrained_network_is_refused(view, drawn):
    code, _, err = view(*TINY, "--color", "evidence", "--save", "out.png")
    assert code == 1 and "pass `--run`" in err
    code, _, err = view(*TINY, "--class", "a", "--save", "out.png")
    assert code == 1 and "--color evidence" in err


def test_without_open3d(view, monkeypatch):
    monkeypatch.setattr(render.importlib.util, "find_spec", lambda name: None)
    code, _, err = view(*TINY, "--save", "out.png")
    assert code == 1 and 'pip install ".[viz]"' in err


def test_help_names_every_choice(view, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # a narrow terminal breaks names
    code, out, _ = view("--help")
    assert code == 0
    for word in (
        *(name for name in presets.PRESETS if name != "tiny"),
        *network_names(),
        *level_scene.COLORINGS,
        *render.RENDERERS,
        "x|y|z",
        "--rotated",
        "--highlight",
        "--save",
        "distance",
        "feature",
        "evidence",
        "--class",
        "--network",
        "software",
    ):
        assert word in out

"""What the benchmarks keep: published figures stay, and a commit is that of the code."""

import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pcequi.networks import network_names
from pcequi.training import RunSettings

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PUBLISHED = json.loads((BENCHMARKS / "results" / "modelnet40-accuracy.json").read_text())
RUNS = PUBLISHED["runs"]


@pytest.fixture
def script(monkeypatch):
    """Imports a benchmark, as running it by its path would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def accuracy(script, tmp_path, monkeypatch):
    """The benchmark of accuracy, with its published results in a folder of their own."""
    found = script("modelnet40_accuracy")
    monkeypatch.setattr(found, "RESULTS", tmp_path)
    (tmp_path / "modelnet40-accuracy.json").write_text(json.dumps({"runs": RUNS}))
    return found


def kept(tmp_path):
    return json.loads((tmp_path / "modelnet40-accuracy.json").read_text())["runs"]


def report(row, **fit):
    """What a training says that ended like a published one."""
    protocol = row["protocol"]
    keys = ("seed", "epochs", "parameters", "shapes", "seconds", "agreement", "settings")
    found = copy.deepcopy({key: row[key] for key in keys})
    found["accuracy"] = found["mean_class_accuracy"] = {protocol: 0.5}
    found["settings"] |= {"source": "elsewhere", "root": None}
    found["settings"]["fit"] |= fit
    return found


def test_a_training_takes_the_place_of_the_same_one(accuracy, tmp_path):
    accuracy.merge(report(RUNS[0]), RUNS[0]["preset"])
    others = kept(tmp_path)
    assert len(others) == len(RUNS) and RUNS[0] not in others
    assert others[-1]["accuracy"] == 0.5


@pytest.mark.parametrize(
    "setting",
    [{"epochs": 5}, {"lr": 1e-3}, {"weight_decay": 0.0}, {"mixup": 0.0}, {"precision": "float32"}],
)
def test_a_training_with_another_setting_leaves_the_published_one(setting, accuracy, tmp_path):
    accuracy.merge(report(RUNS[0], **setting), RUNS[0]["preset"])
    assert kept(tmp_path)[:-1] == RUNS


def test_published_runs_are_told_apart(accuracy):
    keys = [accuracy._key(row) for row in RUNS]
    assert all(one not in keys[:number] for number, one in enumerate(keys))


def test_published_runs_have_every_setting(script):
    """A new setting would make them other trainings: give them the value that they had."""
    names = set(script("common").decisive(RunSettings().to_dict()))
    trained = [one for row in PUBLISHED["together"] for one in row["trained"] if "fit" in one]
    for settings in [row["settings"] for row in RUNS] + trained:
        assert set(settings) - {"also"} == names
        assert set(settings["fit"]) == set(RunSettings().to_dict()["fit"])


def test_networks_together_take_the_place_of_the_same_ones_alone(script, tmp_path, monkeypatch):
    together = script("modelnet40_together")
    monkeypatch.setattr(together, "RESULTS", tmp_path)
    path, rows = tmp_path / "modelnet40-accuracy.json", PUBLISHED["together"]
    path.write_text(json.dumps(PUBLISHED))
    again = copy.deepcopy(rows[0]) | {"accuracy": 0.5}
    together.merge(again)
    assert json.loads(path.read_text())["together"] == [*rows[1:], again]
    other = copy.deepcopy(again)
    other["trained"][0]["fit"]["epochs"] = 5
    together.merge(other)
    found = json.loads(path.read_text())
    assert found["together"] == [*rows[1:], again, other] and found["runs"] == RUNS


def test_a_changed_file_marks_the_commit_and_written_results_do_not(script, tmp_path):
    def git(*words):
        names = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", *names, *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    benchmarks, results = tmp_path / "benchmarks", tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (benchmarks / "one.py").write_text("1\n")
    (results / "one.json").write_text("1\n")
    commit = script("common").commit
    git("init", "-q")
    assert commit(benchmarks) is None
    git("add", ".")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "--short", "HEAD").stdout.strip()
    (results / "one.json").write_text("2\n")
    assert commit(benchmarks) == head
    (benchmarks / "one.py").write_text("2\n")
    assert commit(benchmarks) == head + "+"


def test_a_quick_look_at_the_speed_keeps_the_published_one(script, monkeypatch, capsys):
    speed = script("speed")
    monkeypatch.setattr(speed, "bench_figures", lambda *a, **k: {"train_ms_per_shape": 1.0})
    monkeypatch.setattr(speed, "set_threads", lambda threads: 1)
    monkeypatch.setattr(speed, "write", lambda *a: pytest.fail("written"))
    monkeypatch.setattr(sys, "argv", ["speed", "--quick"])
    speed.main()
    assert json.loads(capsys.readouterr().out) == {"train_ms_per_shape": 1.0}


def test_a_shape_is_timed_for_each_network_and_for_those_asked_together(script, make_blob):
    figures = script("speed").network_figures([make_blob(300), make_blob(200)])
    found = figures["cpu_ms_per_shape"]
    assert {*network_names(), "modelnet40-large and modelnet40-pairs"} <= set(found)
    for one in found.values():
        assert 0 < one["least"] <= one["median"] <= one["largest"] and one["rounds"] == 2


def test_orders_keep_what_others_found_until_a_network_has_other_weights(
    script, tmp_path, monkeypatch
):
    orders = script("orders")
    monkeypatch.setattr(orders, "RESULTS", tmp_path)

    def row(name, weights, **more):
        return {"network": name, "weights": weights, **more}

    def names(found):
        return [row["network"] for row in found[0]], [team["networks"] for team in found[1]]

    new = [row("a", "1", commit="new")], [{"networks": ["a", "b"]}]
    assert orders.with_others(*new) == new  # the first results
    before = {
        "circumstances": {"commit": "old"},
        "rows": [row("a", "1"), row("b", "2"), row("c", "3")],
        "together": [{"networks": pair} for pair in (["a", "b"], ["a", "c"], ["b", "c"])],
    }
    (tmp_path / "orders.json").write_text(json.dumps(before))
    same = orders.with_others([row("a", "1", commit="new")], [])
    assert names(same) == (["a", "b", "c"], [["a", "b"], ["a", "c"], ["b", "c"]])
    assert [one["commit"] for one in same[0]] == ["new", "old", "old"]
    other = orders.with_others([row("a", "9", commit="new")], [{"networks": ["a", "b"]}])
    assert names(other) == (["a", "b", "c"], [["a", "b"], ["b", "c"]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablation", "few_shapes"])
def test_a_study_runs_in_short_and_keeps_what_is_published(
    name, script, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "claims"))
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--cache", str(tmp_path)])
    threads = torch.get_num_threads()
    found = script(name)
    monkeypatch.setattr(found, "write", lambda *given: pytest.fail("it writes results"))
    try:
        found.main()
    finally:
        torch.set_num_threads(threads)
        for module in ("results", "study"):
            sys.modules.pop(module, None)
    head = "| --- |"
    assert head in capsys.readouterr().out

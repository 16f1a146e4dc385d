"""The command: every subcommand runs, speaks JSON alone on stdout, and fails clearly."""

import errno
import io
import json
import os
import re
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest

from pcequi import __version__, check
from pcequi.cli import main
from pcequi.models import presets
from pcequi.notices import OF_PYG
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, TangentPoses
from pcequi.sampling import FeatureSampler
from pcequi.training.precision import faster_precision

COMMANDS = (
    "demo",
    "train",
    "evaluate",
    "predict",
    "precompute",
    "cache",
    "check",
    "view",
    "report",
    "bench",
)
QUICK = ["--threads", "1"]


def tiny():
    levels = [
        Level(0.6, TangentPoses(2, 8), FeatureSampler(num=8), kernel_points=7),
        Level(1.5, CentroidPoses("T"), kernel_points=7),
    ]
    return {"levels": levels, "channels": [6, 8]}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny)
    monkeypatch.setenv("PCEQUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PCEQUI_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return (code, *capsys.readouterr())

    return call


def only_json(result):
    code, out, err = result
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.fixture
def trained(run):
    options = ["--preset", "tiny", "--num-points", 24, "--limit", 2, "--epochs", 2]
    options += ["--batch-size", 8, "--workers", 1, "--run", "runs/one", "--also", "z/z"]
    return only_json(run("train", *options, "--json", *QUICK))


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run("--version")[1] == f"pcequi {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0 and "--json" in out and "--help" in out
    # Every option says what it is for.
    for line in re.findall(r"^  --[a-z].*$", out, re.MULTILINE):
        assert len(line.split("  ")) >= 2


def test_train_evaluate_and_predict(run, trained, tmp_path):
    assert set(trained["accuracy"]) == {"z/SO3", "z/z"}
    found = only_json(run("evaluate", "runs/one", "--json", "--workers", 1, *QUICK))
    assert found["protocols"]["z/SO3"]["accuracy"] == trained["accuracy"]["z/SO3"]

    found = only_json(
        run("evaluate", "runs/one", "--with", "runs/one", "--json", "--workers", 1, *QUICK)
    )["protocols"]["z/SO3"]
    assert found["accuracy"] == trained["accuracy"]["z/SO3"]
    assert found["alone"] == [found["accuracy"]] * 2
    code, _, err = run("evaluate", "runs/one", "--with", "runs/one", "--mode", "all", *QUICK)
    assert code == 1 and "--with" in err

    options = ["--mode", "all", "--budget", 4, "--budget", 8, "--limit", 1]
    table = only_json(run("evaluate", "runs/one", *options, "--json", *QUICK))["table"]
    assert [(row["mode"], row["budget"]) for row in table] == [
        ("dense", "all"), ("online", 4), ("online", 8), ("precomputed", 4), ("precomputed", 8),
    ]  # fmt: skip
    code, out, _ = run("evaluate", "runs/one", *options, *QUICK)
    assert code == 0 and "precomputed" in out and "ms: a cloud" in out

    good = tmp_path / "points.xyz"
    good.write_text("".join(f"{i % 5} {i % 7} {i % 3}\n" for i in range(100)))
    found = only_json(run("predict", "runs/one", good, "--top", 2, "--json", *QUICK))
    assert len(found["files"][0]["predictions"]) == 2


def test_a_broken_file_does_not_stop_the_others(run, trained, tmp_path):
    good, bad = tmp_path / "points.xyz", tmp_path / "bad.off"
    good.write_text("".join(f"{i % 5} {i % 7} {i % 3}\n" for i in range(100)))
    bad.write_text("nonsense")
    code, out, err = run("predict", "runs/one", bad, good, "--json", *QUICK)
    assert code == 1
    first, second = json.loads(out)["files"]
    assert "bad.off" in first["error"] and len(second["predictions"]) == 3
    assert "Error:" in err and "bad.off" in err
    code, out, _ = run("predict", "runs/one", bad, good, *QUICK)
    assert code == 1 and "cannot be used" in out and "points.xyz" in out


def test_no_name_is_folded_where_output_is_no_terminal(run, trained, tmp_path):
    folder = tmp_path.joinpath(*["a folder with a long name"] * 9)
    folder.mkdir(parents=True)
    file = folder / "points.xyz"
    file.write_text("".join(f"{i % 5} {i % 7} {i % 3}\n" for i in range(100)))
    code, out, _ = run("predict", "runs/one", file, *QUICK)
    row = next(line for line in out.splitlines() if str(file) in line)
    assert code == 0 and "%" in row and len(row) < len(str(file)) + 200


def test_files_may_be_named_by_a_list(run, trained, tmp_path, monkeypatch):
    for n in range(3):
        np.save(tmp_path / f"a file {n}.npy", np.random.default_rng(n).normal(size=(64, 3)))
    (tmp_path / "list.txt").write_text("a file 1.npy\n\n  a file 2.npy \r\nnone.npy\n")
    options = ["--files-from", "list.txt", "--json", *QUICK]
    code, out, _ = run("predict", "runs/one", "a file 0.npy", *options)
    named = [one["file"] for one in json.loads(out)["files"]]
    assert code == 1 and named == [*(f"a file {n}.npy" for n in range(3)), "none.npy"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a file 1.npy\n"))
    found = only_json(run("predict", "runs/one", "--files-from", "-", "--json", *QUICK))
    assert [one["file"] for one in found["files"]] == ["a file 1.npy"]
    code, _, err = run("predict", "--files-from", "none.txt", *QUICK)
    assert code == 1 and "`files_from` (='none.txt') cannot be read" in err
    code, _, err = run("predict", *QUICK)
    assert code == 2 and "--files-from" in err


def test_a_run_is_evaluated_on_data_of_its_classes_alone(run, tmp_path, monkeypatch):
    def make(names):
        for number, name in enumerate(names):
            for file in range(3):
                path = tmp_path / "here" / "parts" / name / f"{file}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, np.random.default_rng(9 * number + file).normal(size=(40, 3)))
        return path.parents[1]

    parts = make(["cup", "table"])
    monkeypatch.chdir(parts.parent)
    options = ["--data", "folder", "--root", "parts", "--preset", "tiny", "--num-points", 24]
    options += ["--epochs", 1, "--batch-size", 4, "--workers", 1]
    only_json(run("train", *options, "--run", tmp_path / "own", "--json", *QUICK))
    # Settings keep whole paths: another folder of that name, elsewhere, is another one.
    monkeypatch.chdir(tmp_path)
    only_json(run("evaluate", tmp_path / "own", "--workers", 1, "--json", *QUICK))
    parts.rename(tmp_path / "here" / "others")
    code, _, err = run("evaluate", tmp_path / "own", *QUICK)
    assert code == 1 and "`--root` names another place" in err
    (tmp_path / "here" / "others" / "cup").rename(tmp_path / "here" / "others" / "apple")
    for more in ([], ["--mode", "precomputed"]):
        where = ["--root", tmp_path / "here" / "others", *more]
        code, _, err = run("evaluate", tmp_path / "own", *where, *QUICK)
        assert code == 1 and "the classes cup, table" in err and "apple, table" in err


@pytest.mark.filterwarnings("default::UserWarning")
def test_test_clouds_that_a_run_was_trained_on_are_counted(run, tmp_path):
    for number in range(12):
        path = tmp_path / "parts" / ("cup", "table")[number % 2] / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(number).normal(size=(40, 3)))
    tested = tmp_path / "list.txt"
    tested.write_text("cup/0.npy\ntable/1.npy\n")
    options = ["--data", "folder", "--root", "parts", "--preset", "tiny", "--num-points", 24]
    options += ["--epochs", 1, "--batch-size", 4, "--workers", 1, "--test-list", tested]
    only_json(run("train", *options, "--run", "own", "--json", *QUICK))
    evaluate = ["evaluate", "own", "--with", "own", "--workers", 1, "--json", *QUICK]
    assert only_json(run(*evaluate))["trained_on"] == {"own": 0}
    for name in ("own/model.safetensors", "own/model.json"):  # the run by its network
        found = only_json(run("evaluate", name, "--workers", 1, "--json", *QUICK))
        assert found["trained_on"] == {name: 0}
    tested.rename(tmp_path / "moved.txt")
    code, _, err = run(*evaluate)
    assert code == 1 and "`--test-list` names another place" in err
    other = tmp_path / "other.txt"
    other.write_text("cup/0.npy\ntable/3.npy\ntable/5.npy\n")
    assert only_json(run(*evaluate, "--test-list", "moved.txt"))["trained_on"] == {"own": 0}
    code, out, err = run(*evaluate, "--test-list", other)
    assert code == 0 and "Warning: 2 of 3 test clouds were trained on by own" in err
    assert json.loads(out)["trained_on"] == {"own": 2}
    again = ["train", *options[:-1], "moved.txt", "--run", "own", "--resume", "--json", *QUICK]
    only_json(run(*again))
    code, _, err = run(*again, "--test-share", 0.3)
    assert code == 1 and "`test_share` (=0.3) does not apply where `test_list`" in err


def test_a_file_without_an_ending_and_a_folder_are_no_runs(run, trained, tmp_path):
    good = tmp_path / "points.xyz"
    good.write_text("".join(f"{i % 5} {i % 7} {i % 3}\n" for i in range(100)))
    (tmp_path / "scan17").write_text("what")
    (tmp_path / "sub").mkdir()
    for other in ("scan17", "sub"):
        code, out, _ = run("predict", other, good, "--network", "modelnet40-small", "--json")
        first, second = json.loads(out)["files"]
        assert code == 1 and other in first["error"] and second["predictions"]
    code, _, err = run("predict", "sub", good)  # and no other network answers in its place
    assert code == 1 and "holds no checkpoint" in err and "name the network" in err


def test_long_names_in_tables_are_whole(run, trained, tmp_path):
    long = tmp_path / ("very-" * 30 + "long:car:.npy")
    np.save(long, np.random.default_rng(0).normal(size=(64, 3)))
    _, out, _ = run("predict", "runs/one", long, *QUICK)
    told = "".join(line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│"))
    assert told == str(long)


@pytest.mark.filterwarnings("default:training as with `--bfloat16`")
def test_a_second_run_needs_a_word(run, trained):
    options = ["--preset", "tiny", "--num-points", 24, "--limit", 2, "--epochs", 2]
    options += ["--batch-size", 8, "--workers", 1, "--run", "runs/one", "--also", "z/z", *QUICK]
    code, out, err = run("train", *options)
    assert code == 1 and "holds a run already" in err and "Traceback" not in err
    resumed = only_json(run("train", *options, "--resume", "--json"))
    assert resumed["accuracy"] == trained["accuracy"]
    # What is not given is as it was; what is given must be.
    alone = only_json(run("train", "--run", "runs/one", "--resume", "--json", *QUICK))
    for name in ("settings", "accuracy", "last_epoch"):
        assert alone[name] == resumed[name]
    code, _, err = run("train", "--run", "runs/one", "--resume", "--epochs", 30, *QUICK)
    assert code == 1 and "epochs was 2, not 30" in err and "preset" not in err
    used, other = "float32", "bfloat16"
    if faster_precision("cpu") == other:
        used, other = other, used
    code, _, err = run("train", "--run", "runs/one", "--resume", f"--{other}", *QUICK)
    assert code == 1 and f"precision was '{used}', not '{other}'" in err
    code, out, _ = run("train", *options, "--overwrite")
    assert code == 0 and "z/SO3" in out and "runs/one" in out


def test_precompute_fills_the_cache_of_train(run, tmp_path):
    options = ["--preset", "tiny", "--num-points", 24, "--limit", 1, "--workers", 1]
    options += ["--resamplings", 1]
    found = only_json(run("precompute", *options, "--json"))
    assert [(s["split"], s["rotations"], s["clouds"]) for s in found["stores"]] == [
        ("train", "z", 16), ("train, resampling 1", "z", 16), ("test", "SO3", 16),
    ]  # fmt: skip
    code, out, _ = run("precompute", *options)
    assert code == 0 and "MB" in out
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    assert {path.name for path in made} >= {Path(s["folder"]).name for s in found["stores"]}
    only_json(run("train", *options, "--epochs", 1, "--batch-size", 8, "--json", *QUICK))
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}


def figures(passed):
    values = dict.fromkeys(check.EXPLANATIONS, 1e-12) | {
        "grid_error": {"24": 0.2, "96": 0.1},
        "grid_error_sampled": {"24": 0.3, "96": 0.3},
    }
    each = {"cube": 1e-12, "grid": 1e-12, "sphere": 1e-12}
    return values | {
        "invariance_symmetric_each": each, "passed": passed, "preset": "tiny", "seconds": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("passed", [True, False])
def test_check_prints_and_judges(run, monkeypatch, passed):
    def measure(preset, seed, num_clouds, progress):
        assert (preset, seed, num_clouds) == ("tiny", 4, 5)
        progress("invariance_float64")
        return figures(passed)

    monkeypatch.setattr(check, "equivariance_figures", measure)
    options = ["check", "--preset", "tiny", "--seed", 4, "--clouds", 5, *QUICK]
    code, out, _ = run(*options, "--json")
    assert code == (0 if passed else 1)
    assert json.loads(out) == figures(passed)
    code, out, _ = run(*options)
    assert code == (0 if passed else 1)
    assert all(name in out for name in check.EXPLANATIONS) and "Ties" in out
    assert ("All limits hold" in out) == passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--protocol", "x"], "`protocol` (='x')"),
        (["train", "--data", "x"], "`data` (='x')"),
        (["train", "--preset", "x", "--limit", 1, "--num-points", 8], "`preset` (='x')"),
        (["train", "--also", "SO3/SO3"], "`also` (='SO3/SO3')"),
        (["train", "--device", "tpu"], "`device` (='tpu')"),
        (["train", "--device", "cpu:x"], "`device` (='cpu:x')"),
        (["predict", "modelnet40", "file.off"], "--network modelnet40"),
        (["predict", "--network", "x", "file.off"], "`network` (='x')"),
        (["evaluate", "modelnet40"], "`run` (='modelnet40')"),
        (["evaluate", "nowhere", "--mode", "all", "--mode", "x"], "`mode` (='x')"),
        (["evaluate", "nowhere", "--mode", "dense", "--budget", 8], "`budget` (=[8])"),
        (["evaluate", "nowhere", "--mode", "dense", "--workers", 1], "`--workers` cannot"),
        (["evaluate", "nowhere", "--protocol", "z/z", "--protocol", "x"], "`protocol` (='x')"),
        (["train", "--threads", 0], "`threads` (=0)"),
        (["train", "--epochs", 0], "`epochs` (=0)"),
        (["evaluate", "nowhere"], "holds no checkpoint"),
        (["predict", "nowhere", "file.off"], "no such run"),
        (["precompute", "--preset", "x"], "`preset` (='x')"),
        (["check", "--preset", "x"], "`preset` (='x')"),
    ],
)
def test_errors_name_the_argument_also_as_json(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 1 and out == "" and message in err and "Traceback" not in err
    code, out, err = run(*arguments, "--json")
    assert code == 1 and message in json.loads(out)["error"]["message"]


def test_wrong_options_exit_with_two(run):
    assert run("train", "--no-such-option")[0] == 2
    assert run("predict")[0] == 2
    assert run("nonsense")[0] == 2


def test_the_files_of_the_demo_can_be_read(tmp_path):
    from pcequi.cli.demo import write_examples
    from pcequi.datasets import read_points

    mesh, cloud = write_examples(tmp_path, seed=0)
    assert read_points(mesh, 64).pos.shape == (64, 3)
    assert read_points(cloud, 64).pos.shape == (64, 3)


@pytest.mark.slow
def test_the_quick_demo(run):
    found = only_json(run("demo", "--quick", "--json"))
    assert found["accuracy"]["z/SO3"] >= 0.9
    assert found["accuracy"]["z/SO3"] >= found["accuracy"]["z/z"] - 0.005
    assert [entry["predictions"][0]["class"] for entry in found["predictions"]] == ["chair", "cup"]


@pytest.fixture
def stopping(monkeypatch):
    """Let the files of ``predict`` fail in a way."""

    def fail(error):
        def raising(*args, **options):
            raise error

        monkeypatch.setattr("pcequi.training.predict.predict_each", raising)

    return fail


def test_a_warning_that_cannot_be_said_ends_nothing(monkeypatch, recwarn):
    from pcequi import cli

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(cli.typer, "echo", full)
    cli._warn(UserWarning("few points"))


def test_what_is_for_the_makers_of_pyg_is_left_out(run, monkeypatch):
    def warn(*args, **options):
        warnings.filterwarnings("default", "few")  # an error in the tests
        for notice in OF_PYG:
            warnings.warn(f"{notice}. Please switch", DeprecationWarning, stacklevel=2)
        warnings.warn("few points", FutureWarning, stacklevel=2)
        raise KeyboardInterrupt

    monkeypatch.setattr("pcequi.check.equivariance_figures", warn)
    code, out, err = run("check", "--json", "--threads", 1)
    assert "Warning: few points" in err and "switch" not in err


def test_ctrl_c_is_answered(run, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcequi.check.equivariance_figures", stop)
    code, out, err = run("check", "--json", "--threads", 1)
    assert code == 130 and "Error: interrupted" in err
    assert json.loads(out)["error"]["type"] == "Interrupted"


def test_ctrl_c_leaves_the_answers_that_are_there(run, trained, tmp_path, monkeypatch):
    from pcequi.training import predict

    read, files = predict.read_points, [tmp_path / f"{n}.npy" for n in range(3)]
    for n, file in enumerate(files):
        np.save(file, np.random.default_rng(n).normal(size=(64, 3)))

    def stop_at_the_last(file, *args):
        if file == files[2]:
            raise KeyboardInterrupt
        return read(file, *args)

    monkeypatch.setattr(predict, "read_points", stop_at_the_last)
    code, out, err = run("predict", "runs/one", *files, "--json", *QUICK)
    found = json.loads(out)
    assert code == 130 and "interrupted after 2 of 3 files" in err and found["interrupted"]
    assert [one["file"] for one in found["files"]] == [str(file) for file in files[:2]]
    assert all(one["predictions"] for one in found["files"])


def test_a_termination_leaves_the_answers_that_are_there(run, trained, tmp_path, monkeypatch):
    from pcequi.training import predict

    read, before = predict.read_points, signal.getsignal(signal.SIGTERM)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(64, 3)))

    def terminated_at_the_second(file, *args):
        if file.name == "b.npy":
            os.kill(os.getpid(), signal.SIGTERM)
        return read(file, *args)

    monkeypatch.setattr(predict, "read_points", terminated_at_the_second)
    code, out, _ = run("predict", "runs/one", "a.npy", "b.npy", "--json", *QUICK)
    assert code == 130 and [one["file"] for one in json.loads(out)["files"]] == ["a.npy"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupted_training_says_how_to_go_on(run, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcequi.training.runs.train_run", stop)
    code, _, err = run("train", "--preset", "tiny", *QUICK)
    assert code == 130 and "--resume goes on after the last whole epoch" in err


def test_a_full_disk_is_an_error_with_a_remedy(run, stopping):
    stopping(OSError(errno.ENOSPC, "No space left on device", "out.json"))
    code, _, err = run("predict", "chair.off", *QUICK)
    assert code == 1 and "out.json cannot be written whole" in err and "free space" in err
    stopping(OSError(errno.EINVAL, "a mistake of ours"))
    with pytest.raises(OSError, match="a mistake of ours"):
        run("predict", "chair.off", *QUICK)


def test_a_network_beside_a_run_is_refused(run, trained):
    code, _, err = run("predict", "runs/one", "chair.off", "--network", "modelnet40", *QUICK)
    assert code == 1 and "`network` (=['modelnet40'])" in err and "'runs/one'" in err
    for others in (["runs/one"], ["--network", "modelnet40"]):
        code, _, err = run("predict", *others, "chair.off", "--scans", *QUICK)
        assert code == 1 and "`scans` (=True) names networks" in err and others[-1] in err

"""What `pcequi predict` takes for a run, and for names of files."""

import io
import json
import os
import stat

import numpy as np
import pytest

from pcequi.training import save_checkpoint


@pytest.fixture
def kept(tiny, tmp_path):
    """A run's network, and a file that it can classify."""
    (tmp_path / "runs" / "v1.2").mkdir(parents=True)
    save_checkpoint(tmp_path / "runs" / "v1.2", tiny.tiny_model(), tiny.CLASSES, {})
    np.save(tmp_path / "part.npy", np.random.default_rng(0).normal(size=(64, 3)))
    return "runs/v1.2"


def test_a_run_may_have_a_dot_in_its_name(command, kept):
    code, out, err = command("predict", kept, "part.npy", "--json", "--threads", 1)
    assert code == 0, err
    assert json.loads(out)["run"] == kept


@pytest.mark.parametrize("name", ["runs/v1.3", "runs/nothing", "gone.las"])
def test_no_other_network_answers_for_a_run_that_is_missing(command, kept, name):
    for files in (["part.npy"], []):
        code, out, err = command("predict", name, *files, "--threads", 1)
        assert code == 1 and out == "" and f"{name!r} first) ends as no file" in err
        assert "there is no such run" in err
    code, out, _ = command("predict", "gone.npy", "part.npy", "--network", "modelnet40-small")
    assert code == 1 and "1 files classified, 1 cannot be used" in out


def test_a_run_behind_files_is_refused(command, kept):
    for others, remedy in ((["part.npy"], "give it first"), ([kept], "'runs/v1.2' is given")):
        for name in (kept, f"{kept}/model.safetensors"):
            code, out, err = command("predict", *others, name, "--threads", 1)
            assert code == 1 and out == "" and f"(={name!r} among them) is a run" in err
            assert remedy in err


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_called_so(command, kept, monkeypatch, tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    for run in ([kept], []):
        for place in ("-", "list.txt"):
            code, _, err = command("predict", *run, "--files-from", place, "--threads", 1)
            assert code == 1 and f"`files_from` (={place!r}) names no file: the list" in err


def test_answers_are_printed_where_the_table_cannot_be_written(command, kept):
    call = ["predict", kept, "part.npy", "--threads", 1, "--csv", "a" * 250]
    code, out, err = command(*call, "--json")
    answers = json.loads(out)
    assert code == 1 and answers["classified"] == 1 and len(answers["files"]) == 1
    assert "cannot be written" in answers["error"]["message"] and "Error: after 1 of 1" in err
    code, out, err = command(*call)
    assert code == 1 and "part.npy" in out and "cannot be written" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_no_pipe_or_device_is_replaced_by_a_table(command, kept, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, out, err = command("predict", kept, "part.npy", "--threads", 1, "--csv", "pipe")
    assert code == 1 and out == "" and "`--csv` (='pipe') must be a file" in err
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.fixture
def scans(kept, tmp_path):
    """A folder of files, also in its folders, and what is none."""
    for name in ("scans/0.npy", "scans/old/first/1.npy", "scans/.hidden/2.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "part.npy").read_bytes())
    (tmp_path / "scans/old/notes.md").write_text("of a cup")
    return ["scans/0.npy", "scans/old/first/1.npy"]


def test_a_folder_stands_for_its_files(command, kept, scans):
    code, out, err = command("predict", kept, "part.npy", "scans", "--json", "--threads", 1)
    assert code == 0 and "scans: 1 file passed over (.md 1)" in err
    assert [result["file"] for result in json.loads(out)["files"]] == ["part.npy", *scans]
    code, out, _ = command("predict", "scans", "scans", "--network", "modelnet40-small", "--json")
    assert code == 0 and json.loads(out)["network"] == "modelnet40-small"
    assert [result["file"] for result in json.loads(out)["files"]] == scans * 2


def test_no_other_network_answers_for_a_folder_that_may_be_meant_as_a_run(command, scans):
    code, out, err = command("predict", "scans", "part.npy", "--threads", 1)
    assert code == 1 and out == "" and "`path` (='scans') holds no checkpoint" in err
    assert "give a run first, or name the network (--network)" in err


def test_the_tables_of_a_run_are_no_clouds(command, kept, scans, tmp_path):
    (tmp_path / kept / "predictions.csv").write_text("file,class\n")
    for call in (["runs"], [kept, "part.npy", "runs"]):
        code, out, err = command("predict", *call, "--threads", 1)
        assert code == 1 and out == "" and "with a run in it, 'runs/v1.2'" in err
    (tmp_path / "empty").mkdir()
    code, out, err = command("predict", kept, "empty", "part.npy", "--json", "--threads", 1)
    empty, part = json.loads(out)["files"]
    assert code == 1 and "'empty') is a folder" in empty["error"] and part["predictions"]


def test_settings_of_other_programs_make_no_run(command, kept, scans, tmp_path):
    for name in ("settings.json", "model.json"):
        (tmp_path / "scans" / name).write_text('{"scanner": "7"}')
        options = ["--network", "modelnet40-small", "--json", "--threads", 1]
        code, out, err = command("predict", "scans", *options)
        assert code == 0 and [result["file"] for result in json.loads(out)["files"]] == scans, err
        code, out, err = command("predict", kept, "part.npy", "scans", "--json", "--threads", 1)
        assert code == 0 and json.loads(out)["classified"] == 3, err
        (tmp_path / "scans" / name).unlink()


@pytest.mark.parametrize("beside", [[], ["data.json", "metrics.jsonl"], ["model.json"]])
def test_a_run_without_its_network_says_so(command, kept, tmp_path, beside):
    for name in ("settings.json", *beside):
        (tmp_path / "runs" / "lost" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "runs" / "lost" / name).write_text("{}")
    np.save(tmp_path / "runs" / "lost" / "cloud.npy", np.zeros((4, 3)))  # as its tables are
    for call in (["evaluate", "runs/lost"], ["predict", "runs/lost", "part.npy"]):
        code, out, err = command(*call, "--threads", 1)
        assert code == 1 and out == "" and "lost" in err
        assert "holds no checkpoint" in err or "model.json is not a checkpoint" in err
    code, out, err = command("report", "runs/lost")
    assert code == 1 and "report.json cannot be read" in err and "pcequi train --resume" in err
    code, out, err = command("predict", "part.npy", "runs/lost", "--threads", 1)
    assert ("is a run: give it first" in err) == bool(beside)

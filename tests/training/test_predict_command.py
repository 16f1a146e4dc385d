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

"""A classification of many files that is ended: the same command goes on."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pcequi.cli.journal import Journal, digest
from pcequi.errors import ArgumentError, FileError
from pcequi.training import Checkpoint, predict, save_checkpoint

NAMES = ["0.npy", "1.npy", "2.npy", "3.npy", "4.npy"]


@pytest.fixture
def classify(command, tiny, tmp_path, monkeypatch):
    """``predict --csv``, ended by an error after so many answers; asks for exit and files asked."""
    save_checkpoint(tmp_path / "run", tiny.tiny_model(), tiny.CLASSES, {"num_points": 24})
    for number, name in enumerate(NAMES):
        np.save(tmp_path / name, np.random.default_rng(number).normal(size=(40, 3)))
    real = predict._predicted

    def classified(
        *options, ended=None, error=KeyboardInterrupt, files=NAMES, run="run", table="table.csv"
    ):
        asked = []

        def predicted(networks, file, **others):
            if len(asked) == ended:
                raise error
            asked.append(os.fsdecode(file))
            return real(networks, file, **others)

        monkeypatch.setattr(predict, "_predicted", predicted)
        call = ["predict", run, *files, "--csv", table, "--threads", 1, *options]
        return *command(*call), asked

    return classified


def test_the_same_command_goes_on(classify, tmp_path):
    table = tmp_path / "table.csv"
    code, _, err, asked = classify(ended=3)
    assert code == 130 and asked == NAMES[:3] and table.read_text().count("\n") == 4
    assert "interrupted after 3 of 5 files; the same command goes on there" in err
    code, out, err, asked = classify()
    assert code == 0 and asked == NAMES[3:] and "5 files classified, 0 cannot be used" in out
    assert "3 of 5 files were classified before" in err
    assert not (tmp_path / "table.csv.part").exists()
    found = table.read_bytes()
    table.unlink()
    assert classify()[3] == NAMES  # nothing is kept of what is done
    assert table.read_bytes() == found


def test_no_crash_loses_an_answer(classify, tmp_path):
    with pytest.raises(RuntimeError, match="out of the blue"):
        classify(ended=2, error=RuntimeError("out of the blue"))
    assert not (tmp_path / "table.csv").exists()
    kept = tmp_path / "table.csv.part"
    kept.write_bytes(kept.read_bytes()[:-20])  # as a machine that stops may leave it
    assert classify(ended=2)[3] == NAMES[1:3]
    assert classify(ended=0)[3] == []
    assert classify()[3] == NAMES[3:]
    assert (tmp_path / "table.csv").read_text().count("\n") == 6


@pytest.mark.parametrize("length", [0, 1, 30])
def test_a_beginning_that_is_cut_off_is_none(length, classify, tmp_path):
    classify(ended=1)
    kept = tmp_path / "table.csv.part"
    kept.write_bytes(kept.read_bytes()[:length])
    assert classify(ended=2)[3] == NAMES[:2]
    assert classify()[3] == NAMES[2:]


@pytest.mark.parametrize("text", [b"a download\n", b"[]\n{}\n", b'{"pcequi": 1}', bytes(300)])
def test_a_file_of_somebody_else_stays(text, classify, tmp_path):
    other = tmp_path / "table.csv.part"
    other.write_bytes(text)
    code, _, err, asked = classify()
    assert code == 1 and not asked and "table.csv.part is in the way" in err
    assert other.read_bytes() == text and not (tmp_path / "table.csv").exists()


def test_files_of_another_folder_are_others(classify, tmp_path, monkeypatch):
    """However alike they look, and the table lie where it may."""
    for folder, seed in (("a", 10), ("b", 20)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            file = tmp_path / folder / f"{number}.npy"
            np.save(file, np.random.default_rng(seed + number).normal(size=(40, 3)))
            os.utime(file, (0, 0))
    call = {"files": ["0.npy", "1.npy", "2.npy"], "run": tmp_path / "run", "table": "../table.csv"}
    monkeypatch.chdir(tmp_path / "a")
    assert classify(ended=2, **call)[3] == call["files"][:2]
    monkeypatch.chdir(tmp_path / "b")
    assert classify(ended=1, **call)[3] == call["files"][:1]
    monkeypatch.chdir(tmp_path / "a")
    call["files"] = [str(tmp_path / "a" / name) for name in call["files"]]  # named in other words
    assert classify(**call)[3] == call["files"][2:]
    assert (tmp_path / "table.csv").read_text().count(str(tmp_path / "a")) == 3


def test_files_of_the_home_folder(classify, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    files = ["~/0.npy", "~/1.npy"]
    classify(ended=1, files=files)
    assert classify(files=files)[3] == files[1:]


def test_the_table_is_none_of_the_files_of_its_folder(classify, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in NAMES:
        (tmp_path / name).rename(folder / name)
    call = {"files": ["scans"], "table": "scans/table.csv"}
    assert classify(ended=2, **call)[0] == 130 and (folder / "table.csv").exists()
    for _ in range(2):
        code, _, _, asked = classify(**call)
        assert code == 0 and not any("table" in name for name in asked)


def test_a_file_that_is_written_while_it_is_read_is_asked_again(classify, tmp_path, monkeypatch):
    real = Journal.add

    def touched(self, file, answer):
        os.utime(file, (0, 0))
        real(self, file, answer)

    with monkeypatch.context() as within:
        within.setattr(Journal, "add", touched)
        classify(ended=2)
    assert classify()[3] == NAMES


def test_a_file_that_changed_is_asked_again(classify, tmp_path):
    classify(ended=3)
    np.save(tmp_path / NAMES[1], np.random.default_rng(9).normal(size=(41, 3)))
    os.utime(tmp_path / NAMES[2], (0, 0))
    assert classify()[3] == NAMES[1:]


def test_a_file_that_could_not_be_used_is_asked_again(classify, tmp_path):
    broken, whole = tmp_path / NAMES[0], (tmp_path / NAMES[0]).read_bytes()
    broken.write_bytes(b"broken")
    assert classify(ended=2)[0] == 130
    broken.write_bytes(whole)
    code, _, _, asked = classify()
    assert code == 0 and asked == [NAMES[0], *NAMES[2:]]


@pytest.mark.parametrize(
    "options, named",
    [(["--top", 1], "other top"), (["--seed", 1, "--num-points", 9], "other num_points, seed")],
)
def test_other_questions_are_refused(options, named, classify, tmp_path):
    classify(ended=2)
    before = (tmp_path / "table.csv.part").read_bytes()
    code, out, err, asked = classify(*options)
    assert code == 1 and not asked and "`--csv` (='table.csv') has answers beside it" in err
    assert named in err and (tmp_path / "table.csv.part").read_bytes() == before
    assert classify()[3] == NAMES[2:]


def test_other_weights_are_other_questions(classify, tiny, tmp_path):
    classify(ended=2)
    with torch.no_grad():
        next((model := tiny.tiny_model()).parameters()).add_(1.0)
    save_checkpoint(tmp_path / "run", model, tiny.CLASSES, {"num_points": 24})
    code, _, err, asked = classify()
    assert code == 1 and not asked and "other networks:" in err


def test_a_digest_is_of_weights_and_settings(tiny):
    one, other = (Checkpoint(tiny.tiny_model(), tiny.CLASSES, {"num_points": 24}) for _ in "ab")
    other.model.load_state_dict(one.model.state_dict())
    assert digest([one]) == digest([other]) != digest([one, other])
    assert digest([one]) != digest([replace(one, extra={"num_points": 25})])
    with torch.no_grad():
        next(other.model.parameters()).view(-1)[0] += 1.0
    assert digest([one]) != digest([other])


def test_a_table_that_cannot_be_written_costs_no_answer(classify, tmp_path, monkeypatch):
    def full(*given):
        raise FileError("the disk is full")

    with monkeypatch.context() as within:
        within.setattr("pcequi.training.predictions.write_csv", full)
        assert classify()[0] == 1
    assert classify()[3] == [] and (tmp_path / "table.csv").exists()


def test_where_nothing_can_be_kept_it_is_said_once(classify, tmp_path, monkeypatch):
    class Full(type(tmp_path)):
        def open(self, *given, **options):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "_read", lambda self: setattr(self, "path", Full(self.path)) or {})
    code, _, err, asked = classify()
    assert code == 0 and asked == NAMES and (tmp_path / "table.csv").exists()
    assert err.count("table.csv.part cannot be written (No space left on device)") == 1
    assert "goes on there" not in classify(ended=2)[2]


def test_a_journal_that_cannot_be_read_is_named(classify, tmp_path):
    (tmp_path / "table.csv.part").mkdir()
    code, _, err, asked = classify()
    assert code == 1 and not asked and "table.csv.part cannot be used" in err


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_names_that_are_no_text_are_found_again(tmp_path):
    file = tmp_path / os.fsdecode(b"\xff\n.npy")
    file.write_bytes(b"")
    for answer in (None, {"file": str(file), "predictions": []}):
        journal = Journal(tmp_path / "table.csv", {"networks": "a", "top": 3})
        assert journal.answer_to(file) == answer
        journal.add(file, {"file": str(file), "predictions": []})
    with pytest.raises(ArgumentError, match="other top"):
        Journal(tmp_path / "table.csv", {"networks": "a", "top": 4})

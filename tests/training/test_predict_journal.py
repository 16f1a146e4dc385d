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

    def classified(*options, ended=None, error=KeyboardInterrupt):
        asked = []

        def predicted(networks, file, **others):
            if len(asked) == ended:
                raise error
            asked.append(os.fsdecode(file))
            return real(networks, file, **others)

        monkeypatch.setattr(predict, "_predicted", predicted)
        call = ["predict", "run", *NAMES, "--csv", "table.csv", "--threads", 1, *options]
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


@pytest.mark.parametrize("header", [b"", b"{", b"no JSON\n", b"[]\n"])
def test_what_is_no_journal_is_passed_over(header, classify, tmp_path):
    (tmp_path / "table.csv.part").write_bytes(header)
    assert classify(ended=2)[3] == NAMES[:2]
    assert classify()[3] == NAMES[2:]


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


def test_a_journal_that_cannot_be_read_is_named(classify, tmp_path):
    (tmp_path / "table.csv.part").mkdir()
    code, _, err, asked = classify()
    assert code == 1 and not asked and "table.csv.part cannot be read" in err


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_names_that_are_no_text_are_found_again(tmp_path):
    file = tmp_path / os.fsdecode(b"\xff\n.npy")
    file.write_bytes(b"")
    for answer in (None, {"file": str(file), "predictions": []}):
        journal = Journal(tmp_path / "table.csv", {"top": 3})
        assert journal.answer_to(file) == answer
        journal.add(file, {"file": str(file), "predictions": []})
        journal.close(done=False)
    with pytest.raises(ArgumentError, match="other top"):
        Journal(tmp_path / "table.csv", {"top": 4})

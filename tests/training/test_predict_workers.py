"""Files that several processes classify: the same answers, and none is lost."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from multiprocessing import resource_tracker

import numpy as np
import pytest
import torch

from pcequi.cli import main
from pcequi.errors import ArgumentError, FileError, PcequiError
from pcequi.training import Checkpoint, predict_files, predict_workers, save_checkpoint
from pcequi.training.predict import predict_each


class Deadly(torch.nn.Identity):
    """A head that ends the worker which comes to the second file."""

    seen = 0

    def forward(self, x):
        Deadly.seen += 1
        if Deadly.seen == 2 and multiprocessing.parent_process() is not None:
            os._exit(1)
        return x[:, :3]


class Noisy(torch.nn.Identity):
    def forward(self, x):
        warnings.warn("a word of its own", UserWarning, stacklevel=1)
        return x[:, :3]


class Unloadable(torch.nn.Identity):
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ImportError("not here")


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{n}.npy" for n in range(8)]
    for n, path in enumerate(paths):
        np.save(path, np.random.default_rng(n).normal(size=(20 + n, 3)))
    paths[3].write_bytes(b"broken")
    return paths


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(tiny.tiny_model().eval(), tiny.CLASSES, {"num_points": 24})


def test_answers_are_the_same_and_in_order(checkpoint, files):
    alone = predict_files(checkpoint, files, top=2)
    assert predict_files(checkpoint, files, top=2, workers=2) == alone
    assert "error" in alone[3]


def test_whoever_stops_leaves_no_process(checkpoint, files):
    answers = predict_each(checkpoint, files, workers=2)
    assert next(answers)["file"] == str(files[0])
    assert multiprocessing.active_children()
    answers.close()
    assert not multiprocessing.active_children()


def test_one_file_starts_no_process(checkpoint, files):
    for answer in predict_each(checkpoint, files[:1], workers=8):
        assert "predictions" in answer and not multiprocessing.active_children()


def test_warnings_come_home(checkpoint, files):
    checkpoint.model.head = Noisy()
    with pytest.warns(UserWarning, match="a word of its own"):
        predict_files(checkpoint, files[:2], workers=2)


def test_a_worker_that_dies_takes_no_finished_answer_along(checkpoint, files):
    checkpoint.model.head = Deadly()
    found = []
    with pytest.raises(PcequiError, match="a worker process died"):
        for answer in predict_each(checkpoint, files, workers=2):
            found.append(answer)
    assert [one["file"] for one in found] == [str(file) for file in files[: len(found)]]


@pytest.mark.skipif(os.name != "posix", reason="no program that fails at once")
def test_workers_that_die_as_they_begin_are_not_waited_for(checkpoint, files, monkeypatch):
    """What a process is told as it begins stays in the pipe where it never reads."""
    resource_tracker.ensure_running()
    monkeypatch.setattr(sys, "argv", ["predict", *["a file" * 100] * 1000])
    big = replace(checkpoint, extra=checkpoint.extra | {"ballast": "x" * 1_000_000})
    multiprocessing.set_executable(shutil.which("false"))
    try:
        with pytest.raises(PcequiError, match="a worker process died"):
            predict_files(big, files, workers=2)
    finally:
        multiprocessing.set_executable(sys.executable)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
def test_a_fork_leaves_the_networks_where_they_are():
    with predict_workers._file_of(b"weights") as path:
        if not (child := os.fork()):
            try:
                predict_workers._remove(os.path.dirname(path), os.getppid())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with open(path, "rb") as file:
            assert file.read() == b"weights"
    assert not os.path.exists(os.path.dirname(path))


def test_networks_that_are_gone_are_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr(predict_workers, "_HERE", {})
    predict_workers._set_up(str(tmp_path / "networks"), print)
    with pytest.raises(PcequiError, match="workers cannot read the networks .*take workers=1"):
        predict_workers._answer("chair.xyz")


def test_without_room_for_temporary_files_it_is_said(checkpoint, files, monkeypatch):
    def full(*given, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predict_workers.tempfile, "mkdtemp", full)
    with pytest.raises(FileError, match="set TMPDIR to a folder that has some, or take workers=1"):
        predict_files(checkpoint, files, workers=2)


def test_networks_that_cannot_be_sent_are_said_to_be(checkpoint, files):
    class Local(torch.nn.Identity):
        pass

    checkpoint.model.head = Local()
    with pytest.raises(ArgumentError, match="`checkpoint`.*Local.*workers=1"):
        predict_each(checkpoint, files, workers=2)  # at once
    checkpoint.model.head = Unloadable()
    with pytest.raises(PcequiError, match="cannot load.*not here.*workers=1"):
        predict_files(checkpoint, files, workers=2)


@pytest.mark.parametrize(("given", "wanted"), [([], [1, 2]), (["--workers", "3"], [3, 3])])
def test_the_command_starts_them_for_many_files(
    given, wanted, checkpoint, files, tmp_path, monkeypatch, capsys
):
    save_checkpoint(tmp_path / "run", checkpoint.model, checkpoint.classes, checkpoint.extra)
    asked = []

    def only_asked(networks, files, *, workers, **options):
        asked.append(workers)
        yield from ()

    monkeypatch.setattr("pcequi.training.predict.predict_each", only_asked)
    monkeypatch.setattr(sys.modules["pcequi.cli.predict"], "MANY", 5)
    for some in (files[:4], files[:5]):
        with pytest.raises(SystemExit):
            main(["predict", *map(str, [tmp_path / "run", *some]), "--threads", "2", *given])
    assert asked == wanted


def test_the_command_prints_what_is_finished_before_the_fault(
    checkpoint, files, tmp_path, monkeypatch, capsys
):
    save_checkpoint(tmp_path / "run", checkpoint.model, checkpoint.classes, checkpoint.extra)

    def ending(networks, files, *, workers, **options):
        yield from predict_each(networks, files[:2], **options)
        raise PcequiError("a worker process died")

    monkeypatch.setattr("pcequi.training.predict.predict_each", ending)
    with pytest.raises(SystemExit) as stop:
        main(["predict", *map(str, [tmp_path / "run", *files]), "--json", "--threads", "1"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert stop.value.code == 1 and found["classified"] == 2 and not found["interrupted"]
    assert found["error"] == {"type": "PcequiError", "message": "a worker process died"}
    assert "Error: after 2 of 8 files: a worker process died" in err


LEFT = """
from pcequi.networks import load_network
from pcequi.training import predict_each

if __name__ == "__main__":
    answers = predict_each(load_network("modelnet40-small"), ["missing.off"] * 6, workers=2)
    print(next(answers)["file"])
"""


@pytest.mark.slow
def test_a_program_ends_that_leaves_answers_unread(tmp_path):
    """No thread can begin at its end, which closes the generator."""
    (tmp_path / "left.py").write_text(LEFT)
    done = subprocess.run(
        [sys.executable, "left.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "missing.off\n", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
# While workers begin, and later.
@pytest.mark.parametrize("wait", [0.0, pytest.param(4.0, marks=pytest.mark.slow)])
def test_an_interrupt_leaves_one_answer_and_no_traceback(
    wait, interrupted, checkpoint, files, tmp_path
):
    save_checkpoint(tmp_path / "run", checkpoint.model, checkpoint.classes, checkpoint.extra)
    many = tmp_path / "many.txt"
    many.write_text("\n".join([str(files[0])] * 20_000))
    run = ["-m", "pcequi", "predict", str(tmp_path / "run"), "--files-from", str(many)]
    code, out, err = interrupted(*run, "--workers", "2", "--json", wait=wait)
    assert code == 130 and "Traceback" not in err
    found = json.loads(out)
    assert found["interrupted"] and found["classified"] == len(found["files"]) < 20_000

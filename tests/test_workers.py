"""Worker processes: what becomes of tasks that nobody wants any more."""

import errno
import multiprocessing
import os
import shutil
import sys
import time
import warnings
from multiprocessing import resource_tracker, util

import pytest

from pcequi import workers
from pcequi.errors import PcequiError
from pcequi.notices import OF_PYG
from pcequi.workers import safe_start, worker_map


def _linger(given):
    path, seconds, ballast = given
    (path / "begun").touch()
    time.sleep(seconds)
    (path / "finished").touch()
    return ballast


def _stopped(path, seconds, error=KeyboardInterrupt, tasks=6, ballast=b""):
    """A task of that length, left when it has begun; whether it was finished."""
    before, end = set(multiprocessing.active_children()), time.monotonic() + 300
    with pytest.raises(error), worker_map(2) as apply:
        apply(_linger, [(path, seconds, ballast)] * tasks)
        while not (path / "begun").exists():
            assert time.monotonic() < end, "no worker begins"
            time.sleep(0.01)
        raise error
    assert set(multiprocessing.active_children()) <= before
    return (path / "finished").exists()


def test_a_task_that_has_begun_is_finished(tmp_path):
    assert _stopped(tmp_path, 0.3)


@pytest.mark.parametrize("size", [0, 1_000_000])  # a pipe holds 65,536 bytes
def test_one_that_takes_long_is_given_up(size, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 0.1)
    assert not _stopped(tmp_path, 600.0, ballast=bytes(size))


def test_one_that_is_just_sending_its_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 0.05)
    _stopped(tmp_path, 0.0, ballast=bytes(100_000_000), tasks=2)


def test_after_an_error_it_may_take_as_long_as_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 0.1)
    assert _stopped(tmp_path, 1.0, error=ValueError)


def test_files_of_the_working_directory_are_no_modules(tmp_path, monkeypatch):
    (tmp_path / "signal.py").write_text("raise SystemExit('nobody asked for this')")
    monkeypatch.chdir(tmp_path)
    before = os.environ.get("PYTHONSAFEPATH")
    with worker_map(2) as apply:
        assert list(apply(os.getenv, ["PYTHONSAFEPATH"] * 2)) == [before] * 2
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_what_is_set_as_workers_begin_is_reset_by_the_last_of_several_threads(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(sys, "argv", given := ["predict", "chair.xyz"])
    monkeypatch.setattr(sys, "warnoptions", options := ["default"])
    first, second = safe_start(), safe_start()
    assert first.__enter__() is None and second.__enter__() is None
    first.__exit__(None, None, None)
    assert os.environ["PYTHONSAFEPATH"] == "1" and sys.argv == ["predict"]
    second.__exit__(None, None, None)
    assert "PYTHONSAFEPATH" not in os.environ and sys.argv is given
    assert sys.warnoptions is options


def test_workers_do_not_repeat_what_is_for_the_makers_of_pyg(monkeypatch, capfd):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    texts = [*(f"{notice}. Please switch" for notice in OF_PYG), "few points"]
    with worker_map(2) as apply:
        list(apply(warnings.warn, texts, [DeprecationWarning] * 3))
    said = capfd.readouterr().err
    assert "few points" in said and not any(notice in said for notice in OF_PYG)


def test_a_second_interrupt_gives_up_at_once(monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 600.0)
    ending, end = multiprocessing.Pipe(duplex=False)
    with pytest.raises(KeyboardInterrupt), workers._patience(object(), end):
        assert not ending.poll()
        raise KeyboardInterrupt
    assert ending.poll()


INTERRUPTED = """
import time

from pcequi.workers import worker_map

if __name__ == "__main__":
    try:
        with worker_map(2) as apply:
            list(apply(time.sleep, [0.1] * 1000))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("wait", [0.0, pytest.param(4.0, marks=pytest.mark.slow)])
def test_an_interrupt_of_all_processes_is_the_first_ones(wait, interrupted, tmp_path):
    """Those that are still beginning say nothing, and those that work go on to the end of it."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    assert interrupted("interrupted.py", wait=wait)[1:] == ("interrupted\n", "")


@pytest.mark.skipif(os.name != "posix", reason="processes begin in another way")
def test_where_no_more_processes_may_begin_it_is_told_and_none_stays(monkeypatch):
    begun = []

    def spawn(*given):
        begun.append(given)
        if len(begun) == 2:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return usual(*given)

    resource_tracker.ensure_running()  # which is spawned as well
    monkeypatch.setattr(workers, "_GRACE", 0.1)
    usual = util.spawnv_passfds
    monkeypatch.setattr(util, "spawnv_passfds", spawn)
    before = set(multiprocessing.active_children())
    with pytest.raises(PcequiError, match="died or did not begin .*fewer `workers`"):
        with worker_map(3) as apply:
            list(apply(time.sleep, [600.0] * 5))
    assert len(begun) == 2
    end = time.monotonic() + 60  # the first has yet to learn it
    while not set(multiprocessing.active_children()) <= before and time.monotonic() < end:
        time.sleep(0.05)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.skipif(os.name != "posix", reason="no program that fails at once")
def test_workers_that_die_while_others_begin_are_told():
    """Python 3.11's pool does not bear that everywhere (a flaw of it shows in one of many)."""
    resource_tracker.ensure_running()
    multiprocessing.set_executable(shutil.which("false"))
    try:
        for _ in range(30):
            with pytest.raises(PcequiError, match="a worker process died. Out"):
                with worker_map(3) as apply:
                    list(apply(abs, range(5)))
    finally:
        multiprocessing.set_executable(sys.executable)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
def test_a_fork_that_holds_all_that_was_open_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 0.1)
    forked = []

    def fork_first(*given):
        if not forked:
            forked.append(os.fork())
            if not forked[0]:
                time.sleep(120)
                os._exit(0)
        return patience(*given)

    patience = workers._patience
    monkeypatch.setattr(workers, "_patience", fork_first)
    try:
        assert not _stopped(tmp_path, 600.0)
    finally:
        os.kill(forked[0], 9)
        os.waitpid(forked[0], 0)

"""Worker processes: what becomes of tasks that nobody wants any more."""

import multiprocessing
import time

import pytest

from pcequi import workers
from pcequi.workers import worker_map


def _linger(given):
    path, seconds = given
    (path / "begun").touch()
    time.sleep(seconds)
    (path / "finished").touch()


def _stopped(path, seconds):
    """A task of that length, left by Ctrl-C when it has begun; what is left of it."""
    with pytest.raises(KeyboardInterrupt), worker_map(2) as apply:
        apply(_linger, [(path, seconds)])
        while not (path / "begun").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    return (path / "finished").exists()


def test_a_task_that_has_begun_is_finished(tmp_path):
    assert _stopped(tmp_path, 0.3)


def test_one_that_takes_long_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_GRACE", 0.1)
    assert not _stopped(tmp_path, 600.0)

"""Items pass a bar on a terminal in order; a log gets a line, and only for long jobs."""

import io

import pytest
from rich.console import Console

from pcequi import progress
from pcequi.progress import track


@pytest.fixture
def screen(monkeypatch, request):
    """Standard error: a terminal, or what the test asks for."""
    text, terminal = io.StringIO(), getattr(request, "param", True)
    console = Console(file=text, force_terminal=terminal)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    return text


def test_items_pass_in_order(screen):
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert "letters" in screen.getvalue()


def test_a_job_that_stops_early_gives_the_cursor_back(screen):
    bar = track(range(3), "numbers", 3)
    next(bar)
    assert "\x1b[?25l" in screen.getvalue()
    bar.close()
    assert "\x1b[?25h" in screen.getvalue()


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_a_log_file_gets_a_line_for_a_long_job_alone(screen, monkeypatch):
    assert list(track(range(3), "numbers", 3)) == [0, 1, 2]
    assert screen.getvalue() == ""
    times = iter([0.0, 7.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    assert list(track(range(3), "numbers", 3)) == [0, 1, 2]
    assert screen.getvalue() == "numbers: 7.0 s\n"

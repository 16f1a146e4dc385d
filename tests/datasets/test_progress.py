"""The bar shows for long jobs, and passes items on in order."""

import io

from rich.console import Console

from pcequi.datasets.progress import track


def test_short_jobs_are_silent_and_long_ones_are_not():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    assert list(track(iter("abc"), "letters", 3, console=console)) == ["a", "b", "c"]
    assert screen.getvalue() == ""
    assert list(track(range(3), "numbers", 3, after=-1.0, console=console)) == [0, 1, 2]
    assert "numbers" in screen.getvalue()


def test_a_job_that_stops_early_gives_the_cursor_back():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    bar = track(range(3), "numbers", 3, after=-1.0, console=console)
    next(bar)
    assert "\x1b[?25l" in screen.getvalue()
    bar.close()
    assert "\x1b[?25h" in screen.getvalue()


def test_a_log_file_gets_no_bar():
    screen = io.StringIO()
    list(track(range(3), "numbers", 3, after=-1.0, console=Console(file=screen)))
    assert screen.getvalue() == ""

"""The bar shows for long jobs, and passes items on in order."""

from pcequi.datasets.progress import track


def test_short_jobs_are_silent_and_long_ones_are_not(capsys):
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    assert list(track(range(3), "numbers", 3, after=-1.0)) == [0, 1, 2]
    assert "numbers" in capsys.readouterr().err

"""Numbers of threads: what cannot work is refused, whoever said it."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.ops import HAS_NUMBA
from pcequi.ranks import local_cores
from pcequi.training.threads import set_threads


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    set_threads(before)


@pytest.mark.parametrize("said", ["", "abc", "-3", "0", "2,1", "\u00b2"])
def test_what_is_no_number_says_nothing(monkeypatch, said):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert set_threads() == local_cores()


def test_more_than_a_machine_can_have_are_refused(monkeypatch):
    with pytest.raises(ArgumentError, match=r"`threads` \(=100000\) must be at most \d+:"):
        set_threads(100_000)
    monkeypatch.setenv("OMP_NUM_THREADS", "99999999")
    with pytest.raises(ArgumentError, match=r"OMP_NUM_THREADS \(=99999999\) must be at most"):
        set_threads()


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_none_for_numba_is_refused(monkeypatch):
    import numba

    with monkeypatch.context() as change, pytest.raises(ArgumentError, match="NUMBA_NUM_THREADS"):
        change.setattr(numba.config, "NUMBA_NUM_THREADS", 0)
        set_threads(1)

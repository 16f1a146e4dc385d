"""Fixtures of the tests of training."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
_tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_tiny)


@pytest.fixture(scope="session")
def tiny():
    """The module ``tiny.py``: networks and clouds small enough to train in tests."""
    return _tiny


@pytest.fixture
def split(tiny):
    return tiny.tiny_split()


@pytest.fixture
def store(tiny, split, tmp_path):
    return tiny.tiny_store(tmp_path / "graphs", split)

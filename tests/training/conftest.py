"""Fixtures of the tests of training."""

import importlib.util
from pathlib import Path

import pytest

from pcequi.cli import main
from pcequi.models import presets

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


@pytest.fixture
def command(tiny, monkeypatch, tmp_path, capsys):
    """The command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny.tiny_settings)
    monkeypatch.setenv("PCEQUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PCEQUI_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return (stop.value.code or 0, *capsys.readouterr())

    return call

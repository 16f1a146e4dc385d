"""The options of examples/own_folder.py; that it runs is tested with the other examples."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("own_folder", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(example, capsys, *words):
    with pytest.raises(SystemExit) as end:
        example.read_arguments(list(map(str, words)))
    return end.value.code, "".join(capsys.readouterr())


def test_options(example, tmp_path, capsys):
    assert example.read_arguments([]).make is None and example.read_arguments(["--quick"]).quick
    assert example.read_arguments(["--make", str(tmp_path / "new")]).make == tmp_path / "new"
    code, said = refused(example, capsys, "--help")
    assert code == 0 and "--make FOLDER" in said and "--quick" in said
    code, said = refused(example, capsys, "--make")
    assert code == 2 and "argument --make: expected one argument" in said
    code, said = refused(example, capsys, "--make", tmp_path)
    assert code == 2 and f"--make: {tmp_path} is there already; name a new folder" in said


def test_it_makes_the_files_once(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--make", "parts"]
    first, second = (
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert len([path for path in (tmp_path / "parts").rglob("*") if path.is_file()]) == 60
    assert second.returncode == 2 and "Traceback" not in second.stderr

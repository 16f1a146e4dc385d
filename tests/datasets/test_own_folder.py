"""The options of examples/own_folder.py; that it runs is tested with the other examples."""

import importlib.util
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

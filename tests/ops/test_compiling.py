"""The first use of a kernel takes long, and says so; the others do not."""

import os
import subprocess
import sys
import tempfile

import pytest

from pcequi.errors import FileError
from pcequi.ops import HAS_NUMBA, compiled

pytestmark = [pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")]
WORDS = "compiling kernels for this processor"
SPREAD = """
import numpy as np
from pcequi.ops.compiled import orbits
orbits.spread(np.zeros((2, 1), np.int64), np.zeros((1, 1), np.int64))
orbits.spread(np.zeros((2, 1), np.int32), np.zeros((1, 1), np.int64))
"""
LOGGED = "import logging, sys\nlogging.basicConfig(level=logging.INFO, stream=sys.stderr)\n"
AS_COMMAND = (
    f"from pcequi.notices import compiling_is_said\nwith compiling_is_said():\n    exec({SPREAD!r})"
)
# Two processes that begin to compile together; the first one says so.
TOGETHER = f"""
import os, time
folder = os.environ["NUMBA_CACHE_DIR"]
import pcequi.ops.compiled.orbits
open(os.path.join(folder, f"ready-{{os.getpid()}}"), "w").close()
end = time.monotonic() + 60
while sum(name.startswith("ready-") for name in os.listdir(folder)) % 2 and time.monotonic() < end:
    time.sleep(0.01)
{SPREAD}
"""
IN_WORKERS = f"""
from pcequi.notices import compiling_is_said
from pcequi.workers import worker_map
if __name__ == "__main__":
    with compiling_is_said(), worker_map(2) as apply:
        list(apply(exec, [{TOGETHER!r}] * 2))
"""


def words(program: str, cache) -> list[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stderr.splitlines() if WORDS in line]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(LOGGED + SPREAD, id="library"),
        pytest.param(AS_COMMAND, id="command"),
        pytest.param(IN_WORKERS, id="workers", marks=pytest.mark.slow),
    ],
)
def test_it_is_said_once_an_installation(program, tmp_path):
    assert len(words(program, tmp_path)) == 1
    assert words(program, tmp_path) == []


def test_a_library_says_nothing_that_nobody_asked_for(tmp_path):
    assert words(SPREAD, tmp_path) == []


def test_kernels_of_others_are_theirs_to_announce(tmp_path):
    other = "import numba\nimport pcequi.ops.compiled\nnumba.njit(lambda x: x + 1)(1)\n"
    assert words(LOGGED + other, tmp_path) == []


def test_what_was_compiled_before_a_change_of_any_file_is_forgotten(tmp_path):
    """Kernels have functions of other files inlined."""
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    ages = {"kernel.py": 300, "helper.py": 100, "__pycache__/old.nbi": 200}
    ages |= {"__pycache__/new.nbi": 50, "__pycache__/helper.pyc": 200}
    for name, age in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    compiled._forget_older(str(tmp_path))
    assert sorted(one.name for one in cache.iterdir()) == ["helper.pyc", "new.nbi"]
    compiled._forget_older(str(tmp_path / "nothing"))


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """numba finds no place of its own for what it compiles, and temporary files lie here."""
    import numba

    def njit(cache):
        assert cache
        if not numba.config.CACHE_DIR:  # as numba says it
            raise RuntimeError("cannot cache function '_newest': no locator available for file")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return numba.config


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users")
def test_where_no_other_folder_can_be_written_temporary_ones_keep_kernels(
    homeless, monkeypatch, tmp_path, caplog
):
    code = os.path.dirname(compiled.__file__)
    assert not compiled._is_kept(code)
    compiled._find_place(code)
    place = homeless.CACHE_DIR
    assert os.path.dirname(place) == str(tmp_path) and os.environ["NUMBA_CACHE_DIR"] == place
    assert os.stat(place).st_mode & 0o777 == 0o700 and compiled._is_kept(code)
    assert "set NUMBA_CACHE_DIR to one that lasts" in caplog.text
    for open_to_others in (False, True):  # nobody else's code is run
        monkeypatch.setattr(homeless, "CACHE_DIR", "")
        os.chmod(place, 0o777 if open_to_others else 0o700)
        compiled._find_place(code)
        assert (homeless.CACHE_DIR != place) == open_to_others


def test_where_nothing_can_be_written_it_is_said_what_to_set(homeless, monkeypatch):
    def nowhere():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(FileError, match="set NUMBA_CACHE_DIR to one .* or PCEQUI_NO_NUMBA=1"):
        compiled._find_place(os.path.dirname(compiled.__file__))


def test_without_a_home_no_folder_is_made_of_its_sign(homeless, monkeypatch):
    import numba

    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    code = os.path.dirname(compiled.__file__)
    monkeypatch.setattr(numba, "njit", lambda cache: lambda function: function)
    assert not compiled._is_kept(code)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/mine")
    assert compiled._is_kept(code)

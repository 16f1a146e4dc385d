"""Several processes at one store, and disks that are full."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults
CHUNKS = 6


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted((folder / "graphs").rglob("*"))
        if path.is_file()
    }


def said(folder):
    """The error in which a task ended."""
    return folder.with_name(folder.name + ".error").read_text()


@pytest.fixture(scope="module")
def whole(nursery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert nursery("precompute", folder)["codes"] == [0]
    return content(folder)


def test_four_processes_share_the_work(nursery, tmp_path, whole, survived):
    answer = nursery("precompute", tmp_path, each=[{"name": f"{i}"} for i in range(4)])
    assert answer["codes"] == [0] * 4 and content(tmp_path) == whole
    writes = [int((tmp_path / f"writes{i}").read_text()) for i in range(4)]
    # Each chunk once; the settings by whoever does not find them.
    assert CHUNKS + 1 <= sum(writes) <= CHUNKS + 4
    survived("processes at once, four at a time")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("moment", ["torn", "written", "moved"])
def test_one_of_four_is_killed_and_the_others_finish(
    nursery, tmp_path, whole, survived, moment, number
):
    each = [{"name": "0", "number": number, "moment": moment}]
    each += [{"name": f"{i}"} for i in (1, 2, 3)]
    codes = nursery("precompute", tmp_path, each=each)["codes"]
    assert codes[1:] == [0, 0, 0] and content(tmp_path).keys() >= whole.keys()
    # What the killed one left goes when the next build looks after that chunk; results stand.
    assert {k: v for k, v in content(tmp_path).items() if not k.endswith("part")} == whole
    if codes[0] == -9:
        survived("processes at once, four at a time")


def test_a_killed_parent_takes_its_workers_with_it(tmp_path, survived):
    script = tmp_path / "parent.py"
    script.write_text(
        "import importlib.util, sys\n"
        "from pcequi.graph_store import GraphStore\n"
        "from pcequi.pose_graph import Level\n"
        "from pcequi.poses import GridPoses\n"
        "import torch\n"
        "if __name__ == '__main__':\n"
        "    clouds = [torch.randn(2000, 3) for _ in range(640)]\n"
        "    level = Level(0.9, GridPoses('O', 'principal'))\n"
        f"    GraphStore.build({str(tmp_path / 'graphs')!r}, clouds, [level], workers=2)\n"
    )
    parent = subprocess.Popen([sys.executable, script])
    try:
        workers = _wait_for(lambda: [p for p in _below(parent.pid) if b"spawn_main" in _line(p)])
        # Until both have taken up work: a worker that is still starting ends by itself.
        _wait_for(lambda: len(list((tmp_path / "graphs").rglob("*.lock"))) >= 2)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert _wait_for(lambda: not any(_line(p) for p in workers))
    survived("parents killed")


def _wait_for(found, limit=120.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.05)
    return False


def _below(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_full_disk_while_precomputing(nursery, tmp_path, whole, survived):
    assert nursery("precompute", tmp_path, number=2, moment="moved")["codes"] == [-9]
    begun = content(tmp_path)
    assert nursery("precompute", tmp_path, largest=500)["codes"] == [1]
    error = said(tmp_path)
    assert error.startswith("FileError: ") and "chunk-00003" in error
    assert "cannot be written (File too large); what was finished before is kept" in error
    assert {k: v for k, v in content(tmp_path).items() if k in begun} == begun
    assert nursery("precompute", tmp_path)["codes"] == [0] and content(tmp_path) == whole
    survived("full disks")


def test_a_full_disk_while_training(nursery, tmp_path, survived):
    folder = tmp_path / "task"
    assert nursery("train", folder, number=9, moment="moved")["codes"] == [-9]
    state = (folder / "run" / "state.safetensors").read_bytes()
    assert nursery("train", folder, largest=800)["codes"] == [1]
    error = said(folder)
    assert error.startswith("FileError: ") and "state.safetensors cannot be written" in error
    assert (folder / "run" / "state.safetensors").read_bytes() == state
    assert nursery("train", folder)["codes"] == [0]
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    survived("full disks")


def test_a_small_file_system(nursery, tmp_path, whole, survived):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    sizes = sorted(len(data) for data in whole.values())
    options = f"size={sum(sizes) // 2 // 4096 * 4096}"
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert nursery("precompute", folder)["codes"] == [1]
        error = said(folder)
        assert "No space left on device); what was finished before is kept" in error
        kept = {k: v for k, v in content(folder).items() if v == whole.get(k)}
        assert 1 <= len(kept) < len(whole) and kept.keys() == content(folder).keys()
        survived("full disks")
    finally:
        subprocess.run(["umount", folder], check=True)

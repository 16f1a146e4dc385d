"""One of several launched processes dies: the job ends, says so, and goes on when started again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.faults
LOST = "lost the others"


@pytest.fixture(scope="module")
def job():
    """Start the job of ``launched.py``; its exit code and standard error."""
    pytest.importorskip("lightning_fabric")

    def run(folder, *fault, restarts=0):
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             "2", "--shutdown-timeout", "2", "--max-restarts", str(restarts),
             Path(__file__).with_name("launched.py"), folder, *map(str, fault)],
            capture_output=True, text=True, timeout=300,  # A job that hangs fails here.
            env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        )  # fmt: skip
        return done.returncode, done.stderr

    return run


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    """What the job leaves when nobody dies."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = job(folder)
    assert code == 0, said
    return content(folder)


def content(folder):
    """Chunks, weights and metrics, without the time that they took."""
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("graphs/*/*"))}
    if (folder / "run" / "state.safetensors").exists():
        with safe_open(folder / "run" / "state.safetensors", "pt") as file:
            found |= {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}
    found["epochs"] = [
        {k: v for k, v in json.loads(line).items() if k != "seconds"}
        for path in folder.glob("run/metrics.jsonl")
        for line in path.read_text().splitlines()
    ]
    return found


def epochs(folder):
    return len(content(folder)["epochs"])


def test_a_job_whose_processes_die_again_and_again_ends_as_if_none_had(
    job, whole, tmp_path, survived
):
    # While precomputing: the other makes its share and waits.
    code, said = job(tmp_path, 1, "chunk", 1, "killed")
    assert code != 0 and ("SIGKILL" in said or LOST in said), said
    assert not list(tmp_path.glob("graphs/*/store.json"))
    assert list(tmp_path.glob("graphs/*/chunk-*.safetensors"))
    survived("processes of a job killed")

    # The first process, in the second of three epochs: state and files were its business.
    code, said = job(tmp_path, 0, "batch", 5, "killed")
    assert code != 0 and ("SIGKILL" in said or LOST in said), said
    assert epochs(tmp_path) == 1
    survived("processes of a job killed")

    # Another one stays without answering: the rest give up after the time that was set.
    code, said = job(tmp_path, 1, "batch", 5, "stopped")
    assert code != 0 and LOST in said, said
    assert "within 20 s" in said and "with --resume" in said
    assert epochs(tmp_path) == 2
    survived("processes of a job stopped")

    # An error of one process is said, and does not leave the other waiting.
    code, said = job(tmp_path, 1, "batch", 0, "raised")
    assert code != 0 and "Error: cloud 5 is empty" in said
    survived("errors in one process of a job")

    code, said = job(tmp_path)
    assert code == 0, said
    left = {k: v for k, v in content(tmp_path).items() if not k.endswith((".part", ".lock"))}
    assert left == whole


def test_a_launcher_that_restarts_ends_the_job_by_itself(job, whole, tmp_path, survived):
    # In the third epoch; what then remains is less than what kills.
    code, said = job(tmp_path, 0, "batch", 6, "killed", restarts=1)
    assert code == 0, said
    assert content(tmp_path) == whole
    survived("processes of a job killed")

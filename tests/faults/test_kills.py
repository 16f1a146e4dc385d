"""A process killed at any moment: the next one ends where it would have, bit for bit.

Every file goes through ``files.write_bytes``; a task is killed at each of its
writes, half of it done, done under another name, and moved into place, and at
moments that only a clock decides.
"""

import json
import shutil

import pytest
from safetensors import safe_open

from pcequi import graph_store
from pcequi.errors import FileError
from pcequi.graph_store import GraphStore
from pcequi.training import load_checkpoint

pytestmark = pytest.mark.faults
MOMENTS = ("torn", "written", "moved")
# Six chunks and their settings; a state and metrics for each of three epochs, two of the network.
WRITES = {"precompute": 7, "train": 8}
KILLED = -9


def without_seconds(history):
    return [{k: v for k, v in metrics.items() if "seconds" not in k} for metrics in history]


def content(folder):
    """Everything that a task left, by path; of states and reports all but the time they took."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in ("log", "writes") or name.startswith("data/"):
            continue
        if path.name == "state.safetensors":
            with safe_open(path, "pt") as file:
                note = json.loads(file.metadata()["note"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            assert isinstance(note.pop("crc32"), int)  # Covers the seconds.
            note["history"] = without_seconds(note["history"])
            raw = {k: (v.dtype, v.shape, v.numpy().tobytes()) for k, v in tensors.items()}
            found[name] = (note, raw)
        elif path.name == "metrics.jsonl":
            lines = path.read_text().splitlines()
            found[name] = without_seconds([json.loads(line) for line in lines])
        elif path.name == "report.json":
            report = json.loads(path.read_text())
            found[name] = {k: report[k] for k in ("accuracy", "agreement", "per_class", "shapes")}
        elif path.name == "data.json":
            note = json.loads(path.read_text())
            assert isinstance(note.pop("number"), int)  # each run draws its own
            assert isinstance(note.pop("place"), str)
            found[name] = note
        elif path.suffix in (".safetensors", ".json"):
            found[name] = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
        else:
            found[name] = path.suffix  # Pictures and pages hold times; half a file has another.
    return found


@pytest.fixture(scope="module")
def expected(nursery, tmp_path_factory):
    """What each task leaves when nothing stops it, made once."""
    made = {}

    def of(task):
        if task not in made:
            folder = tmp_path_factory.mktemp(task) / "whole"
            assert nursery(task, folder)["codes"] == [0], (folder / "log").read_text()
            made[task] = content(folder), int((folder / "writes").read_text()), folder
        return made[task]

    return of


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(graph_store, "CHUNK", 2)  # As in the nursery.


@pytest.fixture
def check(nursery, expected, tmp_path, survived):
    """Kill a task, look at what it left, let it go on, and compare."""

    def run(task, must_die=True, **kill):
        whole, _, done = expected(task)
        folder = tmp_path / "killed"
        if task == "train":  # Graphs that are there already: the training is what is killed.
            shutil.copytree(done.parent / "train-graphs", tmp_path / "train-graphs")
        code = nursery(task, folder, **kill)["codes"][0]
        assert code == KILLED or not must_die and code == 0
        for path in folder.rglob("store.json"):
            GraphStore(path.parent).verify()
        if (folder / "run").is_dir() and "run/model.json" in content(folder):
            load_checkpoint(folder / "run")
        assert nursery(task, folder)["codes"] == [0], (folder / "log").read_text()
        left = content(folder)
        # Half of a file may stay beside states; beside chunks it is cleared away.
        left = {k: v for k, v in left.items() if v != ".part"} if task != "precompute" else left
        assert left == whole
        if code == KILLED:
            survived(f"kills of {task}")

    return run


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(WRITES["precompute"]))
def test_precomputing(check, number, moment):
    check("precompute", number=number, moment=moment)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(WRITES["train"]))
def test_training(check, number, moment):
    check("train", number=number, moment=moment)


def test_every_write_was_a_point(expected):
    assert expected("precompute")[1] == WRITES["precompute"]
    # Whose graphs are made first.
    assert expected("train")[1] == WRITES["precompute"] + WRITES["train"]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("task", ["precompute", "train"])
def test_at_the_clocks_moment(check, nursery, tmp_path, task, share):
    seconds = nursery(task, tmp_path / "timed")["seconds"]
    shutil.rmtree(tmp_path / "train-graphs", ignore_errors=True)
    check(task, must_die=False, after=share * seconds)


@pytest.mark.parametrize(("share", "moment"), [(0.1, "moved"), (0.4, "torn"), (0.8, "moved")])
def test_the_whole_command(check, expected, share, moment):
    check("run", number=int(share * expected("run")[1]), moment=moment)


def test_a_store_that_is_not_finished_says_so(nursery, tmp_path):
    nursery("precompute", tmp_path, number=3, moment="moved")
    (folder,) = (tmp_path / "graphs").iterdir()
    with pytest.raises(FileError, match="holds no finished graph store.*precompute again"):
        GraphStore(folder)

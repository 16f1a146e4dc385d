"""A warm process whose children do the work that the tests kill.

Reads a JSON task a line, forks, and answers with how the child ended. Forking
saves importing torch for each of the many points at which a child is killed.
Nothing that starts threads runs here before a fork.
"""

import contextlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from pcequi import files, graph_store
from pcequi.models import presets
from pcequi.pose_graph import build_pose_graph
from pcequi.training import FitSettings, RunSettings, fit, save_checkpoint, train_run

_HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("tiny", _HERE.parent / "training" / "tiny.py")
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

torch.set_num_threads(1)
graph_store.CHUNK = 2
FIT = FitSettings(epochs=3, batch_size=4, seed=5)


class Killer:
    """Counts what reaches the disk, and kills the process at a given moment.

    Every file goes through ``fsync`` and then ``replace``. The moments: ``torn``
    (half of the content written), ``written`` (all of it, under another name)
    and ``moved`` (in place, and nothing after it done).
    """

    def __init__(self, number: int | None, moment: str | None):
        self.number, self.moment, self.count = number, moment, 0
        self.real_sync, self.real_replace = os.fsync, os.replace
        files.os = self

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, handle):
        if self.is_now("torn"):
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            self.die()
        self.real_sync(handle)

    def replace(self, source, target):
        if self.is_now("written"):
            self.die()
        self.real_replace(source, target)
        if self.is_now("moved"):
            self.die()
        self.count += 1

    def is_now(self, moment):
        return self.number == self.count and self.moment == moment

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def precompute(folder: Path) -> None:
    """Graphs of twelve clouds in six chunks."""
    tiny.tiny_store(folder / "graphs", tiny.tiny_split())


def train(folder: Path) -> None:
    """Three epochs and a checkpoint, resumed if they were begun."""
    split = tiny.tiny_split()
    store = tiny.tiny_store(folder.parent / "train-graphs", split)
    model = tiny.tiny_model()
    fit(model, store, split.labels, FIT, folder=folder / "run", resume=True, quiet=True)
    save_checkpoint(folder / "run", model, tiny.CLASSES)


def run(folder: Path) -> None:
    """All of ``pcequi train``: clouds, graphs, training, evaluation, pictures."""
    presets.PRESETS["tiny"] = tiny.tiny_settings
    settings = RunSettings(
        root=str(folder / "data"), num_points=24, limit=2, preset="tiny",
        resamplings=1, fit=FitSettings(epochs=2, batch_size=8),
    )  # fmt: skip
    train_run(settings, folder / "run", cache=folder / "cache", workers=1, resume=True, quiet=True)


TASKS = {"precompute": precompute, "train": train, "run": run}


def child(task: dict) -> None:
    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    killer = Killer(task.get("number"), task.get("moment"))
    if "largest" in task:  # Bytes of a file: the disk is full beyond it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["largest"], task["largest"]))
    TASKS[task["task"]](folder)
    (folder / f"writes{task.get('name', '')}").write_text(str(killer.count))


def start(task: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child(task)
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            # Beside the folder, whose disk may be full.
            Path(task["folder"] + ".error").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def finish(pid: int, after: float | None, limit: float = 120.0) -> int:
    """Wait for a child, kill it after a time where asked for; its signal is negative."""
    begun = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - begun
        if after is not None and passed > after or passed > limit:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def main() -> None:
    build_pose_graph(tiny.tiny_split(3).clouds[0], tiny.tiny_levels())
    for line in sys.stdin:
        task = json.loads(line)
        begun = time.monotonic()
        children = [start({**task, **more}) for more in task.pop("each", [{}])]
        codes = [finish(pid, task.get("after")) for pid in children]
        answer = {"codes": codes, "seconds": round(time.monotonic() - begun, 3)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

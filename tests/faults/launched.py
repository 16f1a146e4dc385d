"""What launched processes do in ``test_launched.py`` until one of them dies.

    torchrun --nproc-per-node 2 launched.py FOLDER [RANK WHAT NUMBER HOW]

Process RANK dies at its NUMBER-th WHAT (``chunk`` or ``batch``): HOW is ``killed``,
``stopped`` (it is there and answers nothing) or ``raised`` (an error of its own).
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import torch

from pcequi import graph_build, graph_store
from pcequi.errors import DataError, PcequiError
from pcequi.graph_store import GraphStore
from pcequi.training import FitSettings, fit
from pcequi.training.launch import launched

spec = importlib.util.spec_from_file_location(
    "tiny", Path(__file__).parents[1] / "training" / "tiny.py"
)
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

NUM = 13
SETTINGS = FitSettings(epochs=3, batch_size=5, mixup=0.3)


def dying(function, number: int, how: str):
    """The function, which ends the process when it is called for the number-th time."""
    left = [number]

    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            if how == "raised":
                raise DataError("cloud 5 is empty")
            os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[how])
        return function(*args, **kwargs)

    return call


def main(folder: Path, fault: list[str]) -> None:
    torch.set_num_threads(1)
    graph_store.CHUNK = 2
    with launched("cpu", timeout=20) as (ranks, _):
        if fault and int(fault[0]) == ranks.rank:
            number, how = int(fault[2]), fault[3]
            if fault[1] == "chunk":
                graph_build.write_chunk = dying(graph_build.write_chunk, number, how)
            else:
                GraphStore.batch = dying(GraphStore.batch, number, how)
        split = tiny.tiny_split(NUM)
        store = GraphStore.build(
            folder / "graphs", split.clouds, tiny.tiny_levels(), workers=1, ranks=ranks
        )
        model = tiny.tiny_model()
        fit(
            model, store, split.labels, SETTINGS, folder=folder / "run", resume=True,
            quiet=True, ranks=ranks,
        )  # fmt: skip


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except PcequiError as error:
        raise SystemExit(f"Error: {error}") from None

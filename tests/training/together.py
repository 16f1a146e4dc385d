"""What several launched processes do in ``test_launch.py``: each saves what it found.

torchrun --nproc-per-node 2 together.py FOLDER
"""

import contextlib
import importlib.util
import logging
import sys
import warnings
from pathlib import Path

import torch
from torch.nn import functional as F

from pcequi import graph_build, graph_store
from pcequi.graph_store import GraphStore
from pcequi.ranks import ALONE
from pcequi.training.fit import FitSettings, fit, predict_logits
from pcequi.training.launch import launched
from pcequi.training.norms import refresh_norms
from pcequi.training.sync_norm import SyncNorm, synchronized_norms

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

NUM = 17  # odd, so that two processes never share evenly
FULL = FitSettings(epochs=2, batch_size=9, lr=1e-2, clip=0.2, mixup=0.5, seed=3)
CASES = {
    "everything": (FULL, torch.float64),
    "plain": (FitSettings(epochs=2, batch_size=6, lr=1e-2), torch.float64),
    "float32": (FitSettings(epochs=2, batch_size=6, mixup=0.3), torch.float32),
    "bfloat16": (FitSettings(epochs=1, batch_size=6, precision="bfloat16"), torch.float32),
}
VAL = torch.tensor([0, 4, 8])


def train(name, store, labels, folder=None, ranks=ALONE, **options):
    """Weights, metrics and shared predictions of a case."""
    settings, dtype = CASES[name]
    # Every process has other weights at first, and goes on with those of the first.
    model = tiny.tiny_model(seed=ranks.rank).to(dtype)
    history = fit(
        model, store, labels, settings, val_rows=VAL, folder=folder, quiet=True, ranks=ranks,
        **options,
    )  # fmt: skip
    logits = predict_logits(model, store, batch_size=4, ranks=ranks)
    few = predict_logits(model, store, [2], ranks=ranks)
    return {"weights": model.state_dict(), "history": history, "logits": logits, "few": few}


class Stop(Exception):
    pass


def begin(store, labels, folder, ranks):
    """One process trains alone and is stopped after an epoch; epochs done, for all."""

    def stop(metrics):
        raise Stop

    if ranks.first:
        with contextlib.suppress(Stop):
            train("everything", store, labels, folder, on_epoch=stop)
    ranks.wait()
    return len((folder / "metrics.jsonl").read_text().splitlines())


def refreshed(store, ranks=ALONE):
    """Statistics measured anew over three uneven batches."""
    model = tiny.tiny_model().double()
    with synchronized_norms(model, ranks):
        refresh_norms(model, store, torch.arange(NUM).tensor_split(3), ranks=ranks)
    return model.state_dict()


def normalized(ranks=ALONE):
    """A batch norm far from the origin: output, gradients and statistics, two steps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 5, dtype=torch.float64, generator=generator) + 1e3
    aim = torch.randn(11, 5, dtype=torch.float64, generator=generator)
    norm = torch.nn.BatchNorm1d(5, dtype=torch.float64)
    torch.nn.init.uniform_(norm.weight, generator=generator)
    seen = norm if ranks is ALONE else SyncNorm(norm, ranks)
    x = ranks.share(x).requires_grad_()
    for _ in range(2):
        out = seen(x)
        loss = F.mse_loss(ranks.gather(out), aim)
    loss.backward()
    # The loss is there once a process, and each has the gradient of their sum.
    own = torch.cat([norm.weight.grad, norm.bias.grad])[None]
    return {
        "out": ranks.gather(out.detach()),
        "x": ranks.gather(x.grad) / ranks.size,
        "weights": ranks.gather(own).sum(0) / ranks.size,
        "state": norm.state_dict(),
    }


def built(folder, ranks):
    """Which chunks this process made, what it logged, and the store's logits."""
    made, said = [], []
    real = graph_build.write_chunk
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("pcequi").addHandler(handler)
    graph_build.write_chunk = lambda path, *rest: (made.append(path.name), real(path, *rest))
    try:
        split, steps = tiny.tiny_split(NUM), []
        store = GraphStore.build(
            folder, split.clouds, tiny.tiny_levels(), workers=1, ranks=ranks,
            progress=lambda *step: steps.append(step),
        )  # fmt: skip
    finally:
        graph_build.write_chunk = real
    return store, {"made": made, "said": said, "steps": steps}


def main(folder):
    torch.set_num_threads(1)
    graph_store.CHUNK = 2
    # As in the tests: whatever warns does so where users see it.
    warnings.simplefilter("error")
    of_pyg = "Failing to pass a value to the 'type_params' parameter"
    warnings.filterwarnings("ignore", of_pyg, DeprecationWarning)
    with launched("cpu", timeout=60) as (ranks, device):
        store, found = built(folder / "graphs", ranks)
        found["place"] = (ranks.rank, ranks.size, str(device))
        labels = tiny.tiny_split(NUM).labels
        for name in CASES:
            keep = folder / "run" if name == "everything" else None
            found[name] = train(name, store, labels, keep, ranks)
        found["files"] = sorted(path.name for path in (folder / "run").iterdir())
        found["begun"] = begin(store, labels, folder / "half", ranks)
        found["resumed"] = train("everything", store, labels, folder / "half", ranks, resume=True)
        found["refreshed"] = refreshed(store, ranks)
        found["normalized"] = normalized(ranks)
        torch.save(found, folder / f"found{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

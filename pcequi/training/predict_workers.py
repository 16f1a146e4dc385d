"""Files that several processes classify."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pcequi.errors import ArgumentError, FileError, PcequiError
from pcequi.training.checkpoints import Checkpoint
from pcequi.training.threads import set_threads
from pcequi.workers import worker_map

__all__ = ["packed", "shared_answers"]

_HERE: dict = {}  # of a worker process: its networks, or why it has none


def packed(networks: list[Checkpoint]) -> bytes:
    """Networks for other processes: as bytes, since tensors that are handed over keep a file open
    each.

    Raises:
        ArgumentError: they hold what cannot be sent.

    **Equivariance:** does not apply.
    """
    if any(network.model.device.type != "cpu" for network in networks):
        networks = copy.deepcopy(networks)
        for network in networks:
            network.model.cpu()
    try:
        return pickle.dumps(networks)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(
            f"`checkpoint` holds what cannot be sent to workers ({error}); define classes of your "
            "own in a module, or take workers=1"
        ) from error


def shared_answers(
    ask: Callable[[list[Checkpoint], str | Path], dict],
    networks: bytes,
    files: Sequence[str | Path],
    workers: int,
) -> Iterator[dict]:
    """Answers to files, in their order, by several processes of one thread each.

    Args:
        ask: what gives the answer of networks to a file; of a module, so that workers find it.
        networks: see ``packed``.
        files: any number.
        workers: at least two.

    Raises:
        PcequiError: a worker died, or cannot load the networks; answers before are handed out.
        FileError: there is no room for the networks among temporary files.

    **Equivariance:** as the networks.
    """
    with _file_of(networks) as path, worker_map(workers, _set_up, path, ask) as apply:
        for result, told in apply(_answer, files):
            for text, category in told:
                warnings.warn(text, category, stacklevel=2)
            yield result


@contextmanager
def _file_of(networks: bytes) -> Iterator[str]:
    """A file with them, as long as workers may begin: what they are handed has to be small."""
    with ExitStack() as end:
        try:
            end.callback(_remove, place := tempfile.mkdtemp(prefix="pcequi-"), os.getpid())
            path = Path(place, "networks")
            path.write_bytes(networks)
        except OSError as error:
            raise FileError(
                f"no temporary file can be written for workers ({error}): make room, set TMPDIR to "
                "a folder that has some, or take workers=1"
            ) from error
        yield str(path)


def _remove(place: str, owner: int) -> None:
    if os.getpid() == owner:  # not what was forked from it
        shutil.rmtree(place, ignore_errors=True)


def _set_up(path: str, ask: Callable) -> None:
    set_threads(1)
    _HERE["ask"] = ask
    try:  # faults are told with the first file: here they would pass for a crash
        networks = Path(path).read_bytes()
    except OSError as error:
        _HERE["fault"] = f"workers cannot read the networks ({error}): run again, or take workers=1"
        return
    try:
        _HERE["networks"] = pickle.loads(networks)
    except Exception as error:
        _HERE["fault"] = (
            f"workers cannot load the network ({type(error).__name__}: {error}); define classes of "
            "your own in a module that they can import, or take workers=1"
        )


def _answer(file: str | Path) -> tuple[dict, list]:
    """A worker's answer to a file, and the warnings that it met."""
    if "fault" in _HERE:
        raise PcequiError(_HERE["fault"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = _HERE["ask"](_HERE["networks"], file)
    return result, [(str(one.message), one.category) for one in caught]

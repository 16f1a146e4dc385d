"""What a run remembers of its training clouds: ``data.json``."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from pcequi.errors import DataError, FileError
from pcequi.files import expanded, is_there, sha256_of
from pcequi.training.files import read_json, run_folder, write_json
from pcequi.training.splits import Split

__all__ = ["check_data", "run_number", "trained_on"]

_DELETE = "delete it to go on without this check"


def check_data(
    folder: Path, train: Split, rows: Tensor, resume: bool, root: str | None = None
) -> int:
    """Whether a run that goes on has the clouds and classes that it began with.

    A new run notes them and draws a number.

    Args:
        folder: of the run.
        train: the training split.
        rows: of it that are trained on [n].
        resume: whether the run goes on.
        root: folder within which the names of the training split are those of files; None: they
            are none.

    Returns:
        The number of the run.

    Raises:
        FileError, DataError: ``data.json`` is damaged, or the clouds are others.

    **Equivariance:** none: turned clouds are others.
    """
    path = folder / "data.json"
    now = {"classes": list(train.classes), "clouds": len(train), "digest": _digest_of_all(train)}
    place = _place(folder)
    if resume and is_there(path):
        kept = read_json(path, _DELETE)
        changed = [key for key in now if kept.get(key) != now[key]]
        if changed:
            raise DataError(
                "`resume` (=True) cannot go on: the training clouds are not those that the run in "
                f"{folder} began with ({', '.join(changed)} changed); bring the data back, or "
                "train in another folder"
            )
        number = run_number(folder)
        if number is None:  # a copy must not delete what the run itself reads
            number = _drawn()
            write_json(path, kept | {"place": place, "number": number})
        return number
    now |= {"place": place, "number": _drawn()}
    now["trained_on"] = sorted({_digest(train.clouds[row]) for row in rows.tolist()})
    if root is not None and train.names is not None:
        trained = [expanded(root) / train.names[row] for row in rows.tolist()]
        now["trained_files"] = sorted(set(_contents(trained)) - {None})
    write_json(path, now)
    return now["number"]


def run_number(folder: Path) -> int | None:
    """The number of a run; None where there is none, and for a copy of a run.

    **Equivariance:** does not apply.
    """
    try:
        kept = read_json(folder / "data.json", _DELETE)
        return int(kept["number"]) if kept["place"] == _place(folder) else None
    except (FileError, LookupError, TypeError, ValueError):
        return None


def trained_on(
    run: str | Path, clouds: Sequence[Tensor], files: Sequence[Path] | None = None
) -> int | None:
    """How many of some clouds, as they are stored, a run was trained on; None where it does not
    say, as networks that come with pcequi.

    Args:
        run: the folder, or the network within it.
        clouds: each [N, 3].
        files: of each cloud, which is known by its content too: two samples of one mesh differ.

    **Equivariance:** none: turned clouds are others.
    """
    try:
        kept = read_json(run_folder(run) / "data.json", _DELETE)
        seen, contents = set(kept["trained_on"]), set(kept.get("trained_files", ()))
    except (FileError, LookupError, TypeError):
        return None
    if files is None:
        return sum(_digest(cloud) in seen for cloud in clouds)
    pairs = zip(clouds, _contents(files), strict=True)
    return sum(_digest(cloud) in seen or content in contents for cloud, content in pairs)


def _digest_of_all(train: Split) -> str:
    digest = hashlib.sha256(train.labels.contiguous().numpy().tobytes())
    for cloud in train.clouds:
        digest.update(cloud.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(cloud: Tensor) -> str:
    return hashlib.sha256(cloud.contiguous().numpy().tobytes()).hexdigest()[:16]


def _contents(files: Iterable[Path]) -> list[str | None]:
    """Of the content of each file; None where it cannot be read."""
    found: list[str | None] = []
    for path in files:
        found.append(None)
        with suppress(OSError):
            found[-1] = sha256_of(path)[:16]
    return found


def _place(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _drawn() -> int:
    return secrets.randbelow(2**62) + 1

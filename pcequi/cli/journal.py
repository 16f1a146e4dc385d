"""Answers that are kept while files are classified, so that nothing that ends it loses them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pcequi import __version__
from pcequi.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from pcequi.training.checkpoints import Checkpoint

__all__ = ["Journal", "digest"]


class Journal:
    """A line of JSON that says what was asked, then one for each file that has an answer.

    It lies beside the table that is made of the answers in the end, and goes then.

    Args:
        table: the file of the table.
        asked: what decides about the answers, as plain values.

    Raises:
        ArgumentError: there is one already, of other questions.
        FileError: it cannot be read.
    """

    def __init__(self, table: Path, asked: dict) -> None:
        self.path = table.with_name(f"{table.name}.part")
        self._asked = json.loads(json.dumps(asked | {"pcequi": __version__}))
        self._file, self._whole, self._failed = None, True, False
        self._known = self._read()

    def _read(self) -> dict[str, dict]:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FileError(
                f"{self.path} cannot be read ({error.strerror}): answers that are kept until a "
                "table is whole lie there; move it away, or give another file to `--csv`"
            ) from error
        self._whole = text.endswith(b"\n")
        lines = []
        for line in text.splitlines():
            with suppress(ValueError):  # the last one may be cut off
                lines.append(json.loads(line))
        lines = [line for line in lines if isinstance(line, dict)]
        if not lines:
            return {}
        if lines[0] != self._asked:
            other = [key for key in self._asked if lines[0].get(key) != self._asked[key]]
            raise ArgumentError(
                f"`--csv` (={str(self.path.with_suffix(''))!r}) has answers beside it, in "
                f"{self.path.name}, of a command that did not end, with other "
                f"{', '.join(other) or 'options'}: give the same ones to go on with it, another "
                "file, or remove that one"
            )
        return {line["file"]: line for line in lines[1:] if "file" in line}

    def answer_to(self, file: Path) -> dict | None:
        """The one that is kept, where the file is as it was."""
        line = self._known.get(str(file))
        if line is None or [line.get("size"), line.get("time")] != _state(file):
            return None
        return line.get("answer")

    def add(self, file: Path, answer: dict) -> None:
        """Keep one, unless it is an error. Where it cannot be kept, that is said once."""
        state = _state(file)
        if self._failed or state is None or "error" in answer:
            return
        line = {"file": str(file), "size": state[0], "time": state[1], "answer": answer}
        try:
            if self._file is None:
                self._file = self.path.open("a", encoding="ascii")
                begin = "" if self._known else f"{json.dumps(self._asked)}\n"
                self._file.write(begin if self._whole else f"\n{begin}")
            self._file.write(f"{json.dumps(line)}\n")
            self._file.flush()
        except OSError as error:
            self._failed = True
            typer.echo(
                f"Warning: {self.path} cannot be written ({error.strerror}): should this command "
                "be ended, it begins anew",
                err=True,
            )

    def close(self, done: bool) -> None:
        """Of no use any more, where it is ``done``."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        if done:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def digest(networks: Sequence[Checkpoint]) -> str:
    """Of what the networks are, and their weights."""
    import torch

    found = hashlib.sha256()
    for one in networks:
        found.update(repr((one.model.settings, one.classes, one.extra)).encode())
        for name, value in one.model.state_dict().items():
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def _state(file: Path) -> list[int] | None:
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]

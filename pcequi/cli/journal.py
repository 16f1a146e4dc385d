"""Answers that are kept while files are classified, so that nothing that ends it loses them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pcequi import __version__
from pcequi.errors import ArgumentError, FileError
from pcequi.files import expanded

if TYPE_CHECKING:
    from pcequi.training.checkpoints import Checkpoint

__all__ = ["Journal", "digest"]

# Seconds between two waits for the disk.
_SYNC = 5.0


class Journal:
    """A line of JSON that says what was asked, then one for each file that has an answer.

    It lies beside the table that is made of the answers in the end, and goes then.

    Args:
        table: the file of the table.
        asked: what decides about the answers, as plain values.

    Raises:
        ArgumentError: there is one already, of other questions.
        FileError: there is another file in its place, or none can be.
    """

    def __init__(self, table: Path, asked: dict) -> None:
        self.path = table.with_name(f"{table.name}.part")
        self._asked = json.loads(json.dumps({"pcequi": __version__} | asked))
        self._header = f"{json.dumps(self._asked)}\n".encode()
        self._begun, self._failed, self._synced = False, False, 0.0
        self._states: dict[str, list[int] | None] = {}
        self._known = self._read()

    @property
    def goes_on(self) -> bool:
        """Whether there are answers to go on with."""
        return self._begun and not self._failed

    def _read(self) -> dict[str, dict]:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FileError(
                f"{self.path} cannot be used ({error.strerror}), where answers are kept until the "
                "table is whole; move away what lies there, or give another file to `--csv`"
            ) from error
        first, *lines = text.split(b"\n")
        if self._header.startswith(text):  # empty, or cut off
            return {}
        found = _parsed(first)
        if "pcequi" not in found or "networks" not in found:
            raise FileError(
                f"{self.path} is in the way, where answers are kept until the table is whole, and "
                "does not begin as such a file: move it away, or give another file to `--csv`"
            )
        if found != self._asked:
            other = [key for key in self._asked if found.get(key) != self._asked[key]]
            raise ArgumentError(
                f"`--csv` (={str(self.path.with_suffix(''))!r}) has answers beside it, in "
                f"{self.path.name}, of a command that did not end, with other "
                f"{', '.join(other) or 'options'}: give the same ones to go on with it, another "
                "file, or remove that one"
            )
        self._begun, whole = True, not lines[-1]
        if not whole:
            self._append(b"\n")
        found = filter(None, map(_parsed, lines))
        return {line["file"]: line for line in found if {"file", "answer"} <= line.keys()}

    def answer_to(self, file: Path) -> dict | None:
        """The one that is kept, where the file is as it was."""
        place = _place(file)
        self._states[place] = state = _state(place)
        line = self._known.get(place, {})
        if state is None or [line.get("size"), line.get("time")] != state:
            return None
        return line["answer"] | {"file": str(file)}

    def add(self, file: Path, answer: dict) -> None:
        """Keep one, unless it is an error. Where it cannot be kept, that is said once."""
        place = _place(file)
        state = self._states.get(place)  # as it was before it was read
        if self._failed or state is None or "error" in answer:
            return
        line = {"file": place, "size": state[0], "time": state[1], "answer": answer}
        self._append(f"{json.dumps(line)}\n".encode())

    def _append(self, text: bytes) -> None:
        now = time.monotonic()
        try:
            with self.path.open("ab" if self._begun else "wb") as file:
                file.write(text if self._begun else self._header + text)
                if not self._begun or now - self._synced > _SYNC:
                    file.flush()
                    os.fsync(file.fileno())
                    self._synced = now
        except OSError as error:
            self._failed = True
            typer.echo(
                f"Warning: {self.path} cannot be written ({error.strerror}): answers from here on "
                "are not kept, should this command be ended",
                err=True,
            )
        self._begun = True

    def remove(self) -> None:
        """The table is whole."""
        if self._begun:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def _parsed(line: bytes) -> dict:
    with suppress(ValueError):  # cut off
        if isinstance(found := json.loads(line), dict):
            return found
    return {}


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


def _place(file: Path) -> str:
    return os.path.abspath(expanded(file))


def _state(place: str) -> list[int] | None:
    try:
        found = os.stat(place)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]

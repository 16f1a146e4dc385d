"""What is logged while something else is shown, for people who run a command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["OF_PYG", "compiling_is_said", "is_said", "say_compiling"]

#: What is said where PyG 2.8 is used, and is for its makers; commands and workers leave it out:
#: of torch 2.14, since two of its functions are scripted, and of Python 3.13, for how it reads the
#: types of arguments.
OF_PYG = (
    "`torch.jit.script` is deprecated",
    "Failing to pass a value to the 'type_params' parameter",
)

_LOG = logging.getLogger("pcequi.ops.compiled")


class _Lines(logging.Handler):
    """What is logged as lines of standard error, which a bar may have taken since."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            print(record.getMessage(), file=sys.stderr, flush=True)


def is_said() -> bool:
    """Whether this process says where kernels are compiled.

    **Equivariance:** does not apply.
    """
    return any(isinstance(handler, _Lines) for handler in _LOG.handlers)


def say_compiling() -> logging.Handler:
    """Say from now on where kernels are compiled first, which takes longer than most commands.

    **Equivariance:** does not apply.
    """
    _LOG.addHandler(lines := _Lines())
    _LOG.setLevel(logging.INFO)
    return lines


@contextmanager
def compiling_is_said() -> Iterator[None]:
    """``say_compiling`` inside the block.

    **Equivariance:** does not apply.
    """
    before, lines = _LOG.level, say_compiling()
    try:
        yield
    finally:
        _LOG.removeHandler(lines)
        _LOG.setLevel(before)

"""Kernels compiled on first use and cached on disk: by numba for the CPU, and by Triton for a GPU
(``gpu_fourier``).

Each has a pure torch twin beside its caller; tests hold the two equal. Those for the CPU are
single-threaded and release the interpreter's lock, except the sparse products and Fourier
transforms over a batch of clouds. Arrays are laid out so that inner loops run along them.

**Equivariance:** of each kernel, that of the function that calls it.
"""

import logging
import os
from contextlib import suppress

from pcequi.ops.backends import HAS_NUMBA

_LOG = logging.getLogger(__name__)


def _say_when_compiling() -> None:
    """Log it, once a process, before numba compiles the first kernel that its cache lacks."""
    from numba.core import event

    class Notice(event.Listener):
        said = False

        def on_start(self, event):
            module = event.data["dispatcher"].py_func.__module__
            if not self.said and module.startswith(f"{__name__}."):
                self.said = True
                _LOG.info(
                    "compiling kernels for this processor, once an installation: about a minute"
                )

        def on_end(self, event):
            pass

    event.register("numba:compile", Notice())


def _forget_older(folder: str) -> None:
    """Remove from a folder's cache what was compiled before any file there was changed: kernels
    have functions of other files inlined, and numba looks at the file of each kernel alone."""
    with suppress(OSError):  # there is none, or it is not ours to write to
        newest = max(one.stat().st_mtime for one in os.scandir(folder) if one.name.endswith(".py"))
        for one in os.scandir(os.path.join(folder, "__pycache__")):
            if one.name.endswith(".nbi") and one.stat().st_mtime < newest:
                os.unlink(one)


if HAS_NUMBA:
    _forget_older(os.path.dirname(__file__))
    _say_when_compiling()

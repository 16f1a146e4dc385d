"""Kernels compiled on first use and cached on disk: by numba for the CPU, and by Triton for a GPU
(``gpu_fourier``).

Each has a pure torch twin beside its caller; tests hold the two equal. Those for the CPU are
single-threaded and release the interpreter's lock, except the sparse products and Fourier
transforms over a batch of clouds. Arrays are laid out so that inner loops run along them.

**Equivariance:** of each kernel, that of the function that calls it.
"""

import logging
import os
import stat
import tempfile
from contextlib import suppress

from pcequi.errors import FileError
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


def _newest(folder: str) -> float:
    """When a file of this code was changed last."""
    return max(one.stat().st_mtime for one in os.scandir(folder) if one.name.endswith(".py"))


def _forget_older(folder: str) -> None:
    """Remove from a folder's cache what was compiled before any file there was changed: kernels
    have functions of other files inlined, and numba looks at the file of each kernel alone."""
    with suppress(OSError):  # there is none, or it is not ours to write to
        newest = _newest(folder)
        for one in os.scandir(os.path.join(folder, "__pycache__")):
            if one.name.endswith(".nbi") and one.stat().st_mtime < newest:
                os.unlink(one)


def _is_kept(folder: str) -> bool:
    """Whether numba finds a place for what it compiles of this folder's code: where the user says,
    beside the code, or in the user's home."""
    import numba

    beside = os.path.join(folder, "__pycache__")
    beside = os.access(beside if os.path.isdir(beside) else folder, os.W_OK)
    # Else numba makes a folder named "~".
    home = os.path.isabs(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~"))
    if not (numba.config.CACHE_DIR or beside or home):
        return False
    try:
        numba.njit(cache=True)(_newest)  # looks for the place; nothing is compiled
    except RuntimeError:
        return False
    return True


def _private_folder(folder: str) -> str:
    """A folder among the temporary ones that no other user can write to, for this very code: what
    numba keeps is run when it is read."""
    place = tempfile.gettempdir()
    if hasattr(os, "getuid"):
        path = os.path.join(place, f"pcequi-{os.getuid()}-{_newest(folder):.0f}")
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if own and not found.st_mode & 0o077:
            return path
    return tempfile.mkdtemp(prefix="pcequi-")


def _find_place(folder: str) -> None:
    """Keep compiled kernels among temporary files where numba has no place for them, as for a user
    without a home to whom the installation does not belong; processes that this one starts too."""
    import numba

    if _is_kept(folder):
        return
    try:
        numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = place = _private_folder(folder)
    except OSError as error:
        raise FileError(
            f"there is no folder to keep compiled kernels in ({error}): set NUMBA_CACHE_DIR to one "
            "that can be written, or PCEQUI_NO_NUMBA=1, which is slower"
        ) from error
    _LOG.warning(
        "compiled kernels are kept in %s, for want of another folder that can be written; set "
        "NUMBA_CACHE_DIR to one that lasts",
        place,
    )


if HAS_NUMBA:
    _forget_older(os.path.dirname(__file__))
    _find_place(os.path.dirname(__file__))
    _say_when_compiling()

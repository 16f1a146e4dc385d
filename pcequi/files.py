"""Files written whole or not at all, also when the machine stops in between."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

from pcequi.errors import FileError

try:
    import fcntl
except ImportError:  # Windows: work may be done twice there, never wrongly
    fcntl = None

__all__ = [
    "FULL",
    "check_reach",
    "expanded",
    "is_there",
    "locked",
    "make_folder",
    "may_read",
    "out_of_reach",
    "sha256_of",
    "user_cache",
    "write_bytes",
]

#: Error numbers of a full disk: no space, quota used up, larger than a limit on the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def expanded(path: str | Path) -> Path:
    """A path with ``~`` as the home folder; as it is where no such home is known.

    **Equivariance:** does not apply.
    """
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # a name that no user can have
        return Path(path)


def user_cache(variable: str, option: str) -> Path:
    """The folder ``~/.cache/pcequi``.

    Args:
        variable: of the environment, that names another place.
        option: of the command, that does.

    Raises:
        FileError: no home folder is known.

    **Equivariance:** does not apply.
    """
    home = os.path.expanduser("~")
    if home == "~":
        raise FileError(f"no home folder is known: set {variable} or HOME, or give {option}")
    return Path(home) / ".cache" / "pcequi"


def out_of_reach(path: str | Path) -> str:
    """Why the system does not say whether something is at a path, such as a folder above it that
    may not be entered; empty where it does.

    **Equivariance:** does not apply.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""
    except OSError as error:  # a link in a circle leads nowhere
        return "" if error.errno == errno.ELOOP else error.strerror or str(error)
    return ""


def check_reach(path: str | Path, name: str = "path") -> None:
    """Whether the system says what is at a path, of an argument that goes by ``name``.

    Raises:
        FileError: it does not.

    **Equivariance:** does not apply.
    """
    if why := out_of_reach(path):
        raise FileError(
            f"`{name}` (={str(path)!r}) cannot be reached ({why}): check the path and its "
            "permissions"
        )


def is_there(path: str | Path) -> bool:
    """Whether something is at a path, where a mistake would cost what lies there.

    Raises:
        FileError: the system does not say.

    **Equivariance:** does not apply.
    """
    check_reach(path)
    return os.path.exists(path)


def may_read(path: str | Path) -> bool:
    """Whether this process may read a file or list a folder, whoever started it.

    **Equivariance:** does not apply.
    """
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        FileError: it cannot be made, or may not be entered.

    **Equivariance:** does not apply.
    """
    try:
        os.makedirs(path, exist_ok=True)
        os.stat(path)
    except OSError as error:
        raise FileError(
            f"{path} cannot be made ({error.strerror}); check the folder, or choose another"
        ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Args:
        path: of the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.

    **Equivariance:** does not apply.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside, wait until it is on the disk, and move it into place.

    Whoever reads ``path``, at whatever moment and after whatever crash, finds
    the old content or the new one.

    Raises:
        FileError: the disk is full, or the folder cannot be written.

    **Equivariance:** does not apply.
    """
    # The random part: processes of two machines may share a folder and a number.
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in FULL:
            raise FileError(
                f"{path} cannot be written ({error.strerror}); what was finished before is kept: "
                "free some space, or choose another folder, and run the same again"
            ) from error
        raise FileError(
            f"{path} cannot be written ({error.strerror}); check the folder, or choose another"
        ) from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The move itself outlives a power cut only so; not all systems can.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path, wait: bool):
    """Hold a lock file for as long as the block runs; it is removed afterwards.

    The lock is the system's (``flock``), so that of a process that was killed is
    gone with it, and there is no age at which a lock is taken to be stale.

    Args:
        path: of the lock file.
        wait: until the lock is free.

    Yields:
        Whether the lock is held; always true with ``wait``, and where files
        cannot be locked.

    **Equivariance:** does not apply.
    """
    handle = _lock(path, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None and handle >= 0:
            with suppress(OSError):
                path.unlink()
            os.close(handle)


def _lock(path: Path, wait: bool) -> int | None:
    """A locked handle; -1 where locks do not work, None where another holds it."""
    if fcntl is None:
        return -1
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in FULL:
                return -1
            raise FileError(
                f"{path} cannot be made ({error.strerror}); check the folder, or choose another"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass  # Removed by the one who held it: another file has the name by now, or none.
        except OSError:
            os.close(handle)
            return -1
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)

"""Archives that are checked before they are used."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pcequi.errors import FileError
from pcequi.files import sha256_of

__all__ = ["brief", "check_unpacked", "verify_archive"]

# Deflate packs a thousand zeros into a byte; meshes and clouds shrink tenfold at most.
_LARGEST_SHARE = 200
_SMALL = 1 << 28


def brief(reason: object) -> str:
    """What a library says, without the bytes that it may quote at length.

    **Equivariance:** does not apply.
    """
    return str(reason)[:300]


def check_unpacked(path: Path) -> None:
    """Check that a zip archive is none that unpacks to far more than it holds.

    Raises:
        ValueError: It is; the caller names the file.
        zipfile.BadZipFile, OSError: It cannot be read.

    **Equivariance:** does not apply.
    """
    with zipfile.ZipFile(path) as archive:
        total = sum(info.file_size for info in archive.infolist())
    most = max(_SMALL, _LARGEST_SHARE * path.stat().st_size)
    if total > most:
        raise ValueError(f"it would unpack to {total} bytes, more than {most}")


def verify_archive(path: Path, checksum: str | None) -> str:
    """Check a zip archive before anything is read from it.

    Where a checksum is known, the file must match it. Where none is, trust is
    on first use: every member's CRC is tested, and the SHA-256 is written to
    ``<path>.sha256``, which later uses must match.

    Args:
        path: The archive.
        checksum: Its SHA-256 in hexadecimal, or None where it is not known.

    Returns:
        The SHA-256.

    Raises:
        FileError: The file is missing, no zip archive, damaged, or not the
            expected one.

    **Equivariance:** does not apply.
    """
    if not path.is_file():
        raise FileError(f"`source` (={str(path)!r}) does not exist: check the path")
    found = sha256_of(path)
    record = path.with_name(path.name + ".sha256")
    expected = checksum
    if expected is None and record.is_file():
        words = record.read_text(errors="replace").split()
        expected = words[0] if words else ""
    if expected is not None:
        if found != expected:
            raise FileError(
                f"`source` (={str(path)!r}) has SHA-256 {found}, and {expected} is expected: "
                f"fetch it again, or delete {record.name} if you replaced it on purpose"
            )
        return found
    try:
        check_unpacked(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile, and each of its decompressors, fails in its own way
        raise FileError(
            f"`source` (={str(path)!r}) is no readable zip archive ({brief(error)}): fetch it again"
        ) from error
    if broken is not None:
        raise FileError(
            f"`source` (={str(path)!r}) is damaged at member {broken!r}: fetch it again"
        )
    try:
        record.write_text(f"{found}  {path.name}\n")
    except OSError:
        # A read-only folder (a shared archive): checked in full every time.
        pass
    return found

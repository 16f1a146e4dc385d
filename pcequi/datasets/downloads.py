"""Downloads that are whole and checked before anything sees them."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from pcequi.errors import FileError
from pcequi.files import locked, make_folder, sha256_of

__all__ = ["download"]

_CHUNK = 1 << 20
# Of any archive that pcequi knows, the largest takes 2 GB.
_LARGEST = 1 << 33
_BROKEN = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def download(
    url: str,
    path: Path,
    *,
    checksum: str | None = None,
    largest: int = _LARGEST,
    timeout: float = 60.0,
) -> None:
    """Fetch a file; it appears under its name only once it is complete and checked.

    A connection that breaks is taken up again where it broke, if the server can
    do that and says that the file is still the same. Whatever ends the download
    otherwise, nothing is left; a second process waits for the first.

    Args:
        url: Where it is.
        path: Where to put it; a file that is there already is left as it is.
        checksum: Its SHA-256 in hexadecimal, or None where it is not known.
        largest: Bytes that it may have.
        timeout: Seconds without an answer before giving up.

    Raises:
        FileError: It cannot be fetched or written, arrives cut short, is larger
            than ``largest``, or has another checksum.

    **Equivariance:** does not apply.
    """
    make_folder(path.parent)
    part = path.with_name(path.name + ".part")
    with locked(path.with_name(path.name + ".lock"), wait=True):
        if path.exists():
            return
        try:
            _fetch(url, part, largest, timeout)
            if checksum is not None and (found := sha256_of(part)) != checksum:
                raise FileError(
                    f"`url` (={url!r}) sent a file with SHA-256 {found}, and {checksum} is "
                    "expected; nothing was kept: try again, or fetch it by other means and pass "
                    "its place as `source`"
                )
            part.replace(path)
        except (*_BROKEN, ValueError) as error:
            raise FileError(
                f"`url` (={url!r}) cannot be fetched ({error}): check the connection, or fetch it "
                "by other means and pass its place as `source`"
            ) from error
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"{path} cannot be written ({error.strerror}): free some space, or choose another "
                "folder"
            ) from error
        finally:
            part.unlink(missing_ok=True)


def _fetch(url: str, part: Path, largest: int, timeout: float) -> None:
    """Fill a file, in as many answers as it takes while each brings something."""
    with part.open("wb") as stream:
        version = total = None
        while True:
            start, failure = stream.tell(), None
            request = urllib.request.Request(url)
            if start:
                request.add_header("Range", f"bytes={start}-")
                # The rest of this very file, or all of another.
                request.add_header("If-Range", version)
            try:
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    if getattr(answer, "status", None) != 206:
                        stream.seek(start := 0)
                        stream.truncate()
                    length = answer.headers.get("Content-Length")
                    total = None if length is None else start + int(length)
                    version = _version(answer.headers)
                    _check_size(url, total or 0, largest)
                    while chunk := answer.read(_CHUNK):
                        _check_size(url, stream.tell() + len(chunk), largest)
                        stream.write(chunk)
            except _BROKEN as error:
                if isinstance(error, urllib.error.URLError):
                    raise
                failure = error
            if failure is None and total in (None, stream.tell()):
                return
            if stream.tell() == start or version is None:
                raise FileError(
                    f"`url` (={url!r}) sent {stream.tell()} of {total or 'an unknown number of'} "
                    f"bytes{f' ({failure})' * bool(failure)}: try again"
                )


def _version(headers) -> str | None:
    """What tells this file from a later one of the same address."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _check_size(url: str, size: int, largest: int) -> None:
    if size > largest:
        raise FileError(
            f"`url` (={url!r}) has {size} bytes or more, and {largest} are allowed: it is not the "
            "file that it should be; fetch it by other means and pass its place as `source`"
        )

"""Downloads, from a server of this process that can be made to fail."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from pcequi.datasets import ModelNet, modelnet
from pcequi.datasets.downloads import download
from pcequi.errors import FileError

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """One file; ``server.cuts`` says after how many bytes each answer breaks off."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, start = self.server, 0
        server.asked.append(self.headers.get("Range"))
        if self.path == "/mute.zip":
            self.close_connection = True
            return None
        if self.path != "/file.zip":
            return self.send_error(404)
        asked = self.headers.get("Range")
        if asked and server.ranges and self.headers["If-Range"] == server.tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.announce:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(body[:cut])
        if cut is not None:
            if server.changes:
                server.tag, server.content = '"later"', server.content[::-1]
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.tag, server.ranges, server.announce = CONTENT, '"first"', True, True
    server.cuts, server.asked, server.changes = [], [], False
    server.url = f"http://127.0.0.1:{server.server_port}/file.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw" / "file.zip"


def test_a_file_arrives(server, path):
    download(server.url, path, checksum=hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    download(server.url, path)
    assert len(server.asked) == 1, "what is there is not fetched again"


def test_a_broken_connection_is_taken_up_where_it_broke(server, path):
    server.cuts = [1_000_000, 500_000]
    download(server.url, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1500000-"]


@pytest.mark.parametrize("reason", ["no ranges", "another file"])
def test_or_starts_again(server, path, reason):
    server.cuts, server.ranges, server.changes = [1_000_000], reason != "no ranges", (
        reason == "another file"
    )  # fmt: skip
    download(server.url, path)
    assert path.read_bytes() == server.content, "never halves of two files"
    assert server.asked == [None, "bytes=1000000-"]


@pytest.mark.parametrize("tag", ['"first"', None])
def test_a_server_that_never_finishes(server, path, tag):
    server.cuts, server.tag = [1000, 0, 0], tag
    with pytest.raises(FileError, match="sent 1000 of 3000000 bytes: try again"):
        download(server.url, path)
    assert len(server.asked) == (2 if tag else 1)
    assert list(path.parent.iterdir()) == []
    server.cuts = []
    download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_a_server_that_hangs_up_without_an_answer(server, path):
    with pytest.raises(FileError, match=r"mute.zip.* sent 0 of .*bytes \(.+\): try again"):
        download(server.url.replace("file", "mute"), path)
    assert list(path.parent.iterdir()) == []


def test_another_checksum_is_refused(server, path):
    with pytest.raises(FileError, match=f"and {'0' * 64} is expected; nothing was kept"):
        download(server.url, path, checksum="0" * 64)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("announce", [True, False])
def test_a_file_that_is_too_large(server, path, announce):
    server.announce = announce
    with pytest.raises(FileError, match="2000000 are allowed"):
        download(server.url, path, largest=2_000_000)
    assert list(path.parent.iterdir()) == []


def test_what_is_not_there(server, path):
    with pytest.raises(FileError, match="HTTP Error 404.*pass its place as `source`"):
        download(server.url.replace("file", "gone"), path)
    server.shutdown()
    server.server_close()
    with pytest.raises(FileError, match="cannot be fetched.*check the connection"):
        download(server.url, path, timeout=5)
    assert list(path.parent.iterdir()) == []


def test_an_interrupt_leaves_nothing(server, path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcequi.datasets.downloads._check_size", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(server.url, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["10", "40"])
def test_modelnet_keeps_no_archive_that_is_none(server, tmp_path, monkeypatch, name):
    """The official archives cannot be had here: what is served is no zip file."""
    counts = modelnet._ARCHIVES[name][2]
    monkeypatch.setitem(modelnet._ARCHIVES, name, (server.url, None, counts))
    for _ in range(2):  # the second time it is fetched again, not found damaged for ever
        with pytest.raises(FileError, match="no readable zip archive"):
            ModelNet(tmp_path, name)
    assert len(server.asked) == 2 and list((tmp_path / "raw").iterdir()) == []

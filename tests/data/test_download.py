"""A download is whole and right, or absent; without a network one line says what to do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from residua.data.download import Remote, fetch
from residua.data.pictures import open_pictures
from residua.errors import BadInput, ResiduaError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at /good, too little of it at /broken, another file at /wrong."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/missing":
            self.send_error(404)
            return
        body = b"something else" if self.path == "/wrong" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def address(server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_file_is_fetched_once_with_progress(tmp_path, server, address):
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    remote = Remote("a.gz", (f"{address}/good",), MD5)
    for _ in range(2):
        path = fetch(remote, tmp_path / "new", progress=progress)
        assert path == tmp_path / "new" / "a.gz"
        assert path.read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked == ["/good"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("wrong", f"expected {MD5}; nothing was kept"),
        ("broken", "the connection broke after 640,000 of 1,280,000 bytes"),
        ("missing", "Not Found"),
    ],
)
def test_a_bad_download_leaves_nothing_and_says_what_to_do(tmp_path, address, place, reason):
    remote = Remote("a.gz", (f"{address}/{place}",), MD5)
    with pytest.raises(ResiduaError) as caught:
        fetch(remote, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert reason in message
    assert f"get a.gz from {address}/{place} and put it into {tmp_path}" in message
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried(tmp_path, server, address):
    urls = (f"{address}/wrong", f"{address}/broken", f"{address}/good")
    assert fetch(Remote("a.gz", urls, MD5), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["/wrong", "/broken", "/broken", "/good"]


def test_a_mirror_of_ones_own_is_asked_first(tmp_path, server, address, monkeypatch):
    monkeypatch.setenv("RESIDUA_MIRROR", address + "/")
    path = fetch(Remote("a.gz", (f"{address}/wrong",), MD5), tmp_path / "mnist")
    assert path.read_bytes() == CONTENT
    assert server.asked == ["/mnist/a.gz"]


def test_no_network_is_one_line_that_says_which_file_to_put_where(tmp_path):
    remote = Remote("a.gz", ("http://127.0.0.1:9/a.gz",), MD5)  # the port that discards
    with pytest.raises(ResiduaError) as caught:
        fetch(remote, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "a.gz cannot be downloaded" in message
    assert f"put it into {tmp_path}" in message


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_every_named_set_says_what_to_get_where_downloading_is_off(tmp_path, name):
    with pytest.raises(BadInput) as caught:
        open_pictures(name, data=tmp_path / "data", download=False)
    message = str(caught.value)
    assert "\n" not in message
    assert ".gz from http" in message
    assert str(tmp_path / "data") in message


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, address):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResiduaError, match=r"a\.gz cannot be downloaded"):
        fetch(Remote("a.gz", (f"{address}/good",), MD5), tmp_path / "file" / "x")

"""The editor's connection, against a server of the standard library."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from codegeex.bench.client import Connection


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/stream":
            self._stream()
            return
        status = 400 if self.path == "/wrong" else 200
        told = json.dumps({"port": self.client_address[1], "got": body.decode()}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in (b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', b"data: [DONE]\n\n"):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            time.sleep(0.03)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_connection_is_kept_between_requests(url: str) -> None:
    with Connection(url) as connection:
        first, second = (connection.post("/", body) for body in (b"one", b"x" * 100_000))
    assert first.json()["got"] == "one" and len(second.json()["got"]) == 100_000
    assert first.json()["port"] == second.json()["port"]
    assert 0 < first.first_s <= first.total_s


def test_events_of_a_stream_are_read_and_the_first_is_timed(url: str) -> None:
    with Connection(url) as connection:
        reply = connection.post("/stream", b"")
        assert [event["n"] for event in reply.events()] == [1, 2]
        assert reply.first_s + 0.05 < reply.total_s
        assert connection.post("/", b"after").json()["got"] == "after"


def test_what_the_server_says_is_told_when_it_refuses(url: str) -> None:
    told = r'(?s)should: .*"got": "x"'
    with Connection(url) as connection, pytest.raises(RuntimeError, match=told):
        connection.post("/wrong", b"x").json()

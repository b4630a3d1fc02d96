"""An editor's connection to a server: kept open, one request after the other.

It shares the processor with the server that it measures, so it looks for no more than it must
while the clock runs; what came is parsed when it has stopped.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_EVENT = re.compile(rb"data: (\{.*\})\n")


@dataclass(frozen=True)
class Reply:
    """What came back. Times in seconds from when the request was sent."""

    first_s: float
    """Until the first of the answer's body was there: of a stream, the first event."""
    total_s: float
    content: bytes
    """The whole response."""

    @property
    def body(self) -> bytes:
        """What came behind the headers."""
        return self.content.partition(_HEAD_END)[2]

    def json(self) -> dict[str, Any]:
        """Returns the body.

        Raises:
            RuntimeError: the server refused.
        """
        self._check()
        told: dict[str, Any] = json.loads(self.body)
        return told

    def events(self) -> list[dict[str, Any]]:
        """Returns the events of a stream.

        Raises:
            RuntimeError: the server refused.
        """
        self._check()
        return events_of(self.body)

    def _check(self) -> None:
        if not self.content.startswith(b"HTTP/1.1 200"):
            told = self.content[-500:].decode(errors="replace")
            raise RuntimeError(f"a server did not answer as it should: ...{told}")


class _NoAnswer(RuntimeError):
    """The server has hung up before the first byte of its answer."""


class Connection:
    """A connection to a server; a new one before the next request where it hangs up between two.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._socket = self._connected()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up, whatever is under way."""
        self._socket.close()

    def send(self, path: str, body: bytes) -> None:
        """Sends a POST request, without waiting for its answer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)

    def receive(self) -> bytes:
        """Returns what has come, at least a byte.

        Raises:
            RuntimeError: the server has hung up.
        """
        data = self._socket.recv(1 << 16)
        if not data:
            raise RuntimeError("a server hung up before its answer was complete")
        return data

    def pending(self) -> bytes:
        """Returns what has come and was not taken yet; does not wait for more."""
        try:
            return self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def post(self, path: str, body: bytes) -> Reply:
        """Sends a POST request and reads the answer to its end.

        A server may hang up between two requests while the second is on its way: it is sent again.
        """
        if self._is_left():
            self._reconnect()
        try:
            return self._asked(path, body)
        except _NoAnswer:
            self._reconnect()
            return self._asked(path, body)

    def _asked(self, path: str, body: bytes) -> Reply:
        start = time.perf_counter()
        content, first = b"", 0.0
        try:
            self.send(path, body)
            while not _is_complete(content):
                content += self.receive()
                if not first and content.partition(_HEAD_END)[2]:
                    first = time.perf_counter() - start
        except (RuntimeError, ConnectionError) as error:
            if content:
                raise
            raise _NoAnswer("a server hung up before it answered") from error
        return Reply(first, time.perf_counter() - start, content)

    def _reconnect(self) -> None:
        self.close()
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        host, port = self._address.hostname, self._address.port
        assert host is not None and port is not None
        made = socket.create_connection((host, port), TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _is_left(self) -> bool:
        """Whether the server has hung up, perhaps with a word about it."""
        return bool(select.select([self._socket], [], [], 0)[0])


def events_of(content: bytes) -> list[dict[str, Any]]:
    """Returns the server-sent events that are whole in a response, but for the mark of the end."""
    return [json.loads(event) for event in _EVENT.findall(content)]


def _is_complete(content: bytes) -> bool:
    head, end, body = content.partition(_HEAD_END)
    if not end:
        return False
    length = _LENGTH.search(head)
    return len(body) >= int(length[1]) if length else content.endswith(_LAST_CHUNK)

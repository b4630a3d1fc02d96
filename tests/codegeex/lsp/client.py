"""A client of a language server that shares no code with it: bytes and JSON by hand."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

Message = dict[str, Any]
_PATIENCE_S = 60.0


class Client:
    """Writes messages to one stream and collects those of another."""

    def __init__(self, to_server: BinaryIO, from_server: BinaryIO) -> None:
        self.received: list[Message] = []
        self.has_ended = False
        self._to_server, self._from_server = to_server, from_server
        self._numbers = itertools.count(1)
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        self._to_server.write(data)
        self._to_server.flush()

    def send(self, message: Any) -> None:
        self.write(framed(json.dumps(message).encode()))

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def begin(self, method: str, params: Any = None) -> int:
        """Sends a request and does not wait."""
        number = next(self._numbers)
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def reply(self, number: int | None, patience_s: float = _PATIENCE_S) -> Message:
        return self.wait(lambda one: "method" not in one and one.get("id") == number, patience_s)

    def request(self, method: str, params: Any = None) -> Any:
        """Returns the result of a request."""
        reply = self.reply(self.begin(method, params))
        assert "error" not in reply, reply["error"]
        return reply["result"]

    def refusal(self, method: str, params: Any = None) -> Message:
        """Returns the error of a request."""
        reply = self.reply(self.begin(method, params))
        assert reply.get("result") is None
        return reply["error"]

    def wait(self, fits: Callable[[Message], bool], patience_s: float = _PATIENCE_S) -> Message:
        """Returns the first message that fits, and takes it out."""
        deadline = time.monotonic() + patience_s
        with self._news:
            while True:
                for message in self.received:
                    if fits(message):
                        self.received.remove(message)
                        return message
                assert not self.has_ended, self.received
                assert self._news.wait(deadline - time.monotonic()), self.received

    def initialize(self, capabilities: Message | None = None, **others: Any) -> Message:
        params = {"processId": None, "rootUri": None, "capabilities": capabilities or {}} | others
        result = self.request("initialize", params)
        self.notify("initialized", {})
        return result

    def open(self, uri: str, text: str, language: str = "python") -> None:
        document = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def change(self, uri: str, *changes: Message) -> None:
        identified = {"uri": uri, "version": 2}
        params = {"textDocument": identified, "contentChanges": list(changes)}
        self.notify("textDocument/didChange", params)

    def end(self) -> None:
        """Takes its leave as it should."""
        self.request("shutdown")
        self.notify("exit")

    def join(self) -> None:
        """Waits until the server has written its last."""
        self._thread.join(20)
        assert self.has_ended

    def _read(self) -> None:
        while (message := self._next()) is not None:
            with self._news:
                self.received.append(message)
                self._news.notify_all()
        with self._news:
            self.has_ended = True
            self._news.notify_all()

    def _next(self) -> Message | None:
        length = 0
        while (line := self._from_server.readline()).strip():
            name, _, value = line.partition(b":")
            if name == b"Content-Length":
                length = int(value)
        return json.loads(self._from_server.read(length)) if line else None


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def at(line: int, character: int) -> Message:
    return {"line": line, "character": character}


def span(first: tuple[int, int], last: tuple[int, int]) -> Message:
    return {"start": at(*first), "end": at(*last)}


def inline(uri: str, line: int, character: int, by_hand: bool = False, **context: Any) -> Message:
    """The parameters of `textDocument/inlineCompletion`."""
    return {
        "textDocument": {"uri": uri},
        "position": at(line, character),
        "context": {"triggerKind": 1 if by_hand else 2, **context},
    }

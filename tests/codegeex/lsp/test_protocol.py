"""Messages that come at the wrong time, or are none."""

from __future__ import annotations

from typing import Any

import pytest

from codegeex.lsp.server import CodeServer

from .client import Client, at, framed, inline, span
from .conftest import FILE, until

INLINE = "textDocument/inlineCompletion"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", -32700, "a message is no JSON"),
        (b"\xff\xfe", -32700, "a message is no JSON"),
        (b"[" * 100_000, -32700, "a message is no JSON"),
        (b"5", -32600, "this is no message of JSON-RPC 2.0"),
        (b"[]", -32600, "this is no message of JSON-RPC 2.0"),
        (b"{}", -32600, "this is no message of JSON-RPC 2.0"),
        (b'{"jsonrpc": "1.0", "id": 7, "method": "shutdown"}', -32600, "no message of JSON-RPC"),
    ],
)
def test_error_when_a_message_is_none(client: Client, body: bytes, code: int, message: str) -> None:
    client.initialize()
    client.write(framed(body))
    error = client.wait(lambda one: "error" in one)
    assert error["id"] == (7 if b"7" in body else None)
    assert error["error"]["code"] == code and message in error["error"]["message"]
    assert client.refusal("no/suchMethod")["code"] == -32601  # it goes on


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"textDocument": {"uri": FILE}, "context": {"triggerKind": 2}},
        {**inline(FILE, 0, 0), "position": {"line": "first", "character": 0}},
        {**inline(FILE, 0, 0), "position": {"line": -1, "character": 0}},
        {**inline(FILE, 0, 0), "context": {"triggerKind": 9}},
        {**inline(FILE, 0, 0), "textDocument": "x"},
    ],
)
def test_error_when_parameters_are_wrong(client: Client, params: Any) -> None:
    client.initialize()
    client.open(FILE, "x")
    assert client.refusal(INLINE, params)["code"] == -32602
    assert client.refusal("no/suchMethod")["code"] == -32601


@pytest.mark.parametrize("with_params", [True, False])
def test_error_when_a_method_is_unknown(client: Client, with_params: bool) -> None:
    client.initialize()
    message = {"jsonrpc": "2.0", "id": "a", "method": "no/suchMethod"}
    client.send(message | ({"params": {"x": [1]}} if with_params else {}))
    error = client.wait(lambda one: one.get("id") == "a")["error"]
    assert error["code"] == -32601


@pytest.mark.parametrize(
    "notification",
    [
        {"method": "no/suchNotification"},
        {"method": "$/cancelRequest", "params": {"id": 12345}},
        {"method": "textDocument/didOpen", "params": {"textDocument": {"uri": 5}}},
        {"method": "textDocument/didClose", "params": {"textDocument": {"uri": "file:///none"}}},
        {"method": "textDocument/didChange", "params": {}},
    ],
)
def test_server_goes_on_when_a_notification_is_wrong(
    client: Client, notification: dict[str, Any]
) -> None:
    client.initialize()
    client.send({"jsonrpc": "2.0", **notification})
    assert client.refusal("no/suchMethod")["code"] == -32601


def test_server_goes_on_when_an_answer_comes_that_nobody_waits_for(client: Client) -> None:
    client.initialize()
    client.send({"jsonrpc": "2.0", "id": "nobody's", "result": 1})
    client.send({"jsonrpc": "2.0", "id": "nobody's", "error": {"code": 1, "message": "x"}})
    assert client.refusal("no/suchMethod")["code"] == -32601


def test_document_counts_as_closed_when_a_change_does_not_fit(client: Client) -> None:
    client.initialize()
    client.open(FILE, "x = ")
    client.change(FILE, {"range": span((5, 0), (6, 0)), "text": "y"})
    error = client.refusal(INLINE, inline(FILE, 0, 4))
    assert error["code"] == -32602 and "send textDocument/didOpen first" in error["message"]


def test_document_is_forgotten_when_it_is_closed(client: Client) -> None:
    client.initialize()
    client.open(FILE, "x = ")
    client.notify("textDocument/didClose", {"textDocument": {"uri": FILE}})
    assert "is not open here" in client.refusal(INLINE, inline(FILE, 0, 4))["message"]


def test_error_when_a_request_comes_before_initialize(client: Client) -> None:
    client.open(FILE, "x = ")  # is ignored
    error = client.refusal(INLINE, inline(FILE, 0, 4))
    assert error["code"] == -32002 and "came before initialize: send that" in error["message"]
    client.initialize()
    assert "is not open here" in client.refusal(INLINE, inline(FILE, 0, 4))["message"]


def test_error_when_initialize_comes_twice(client: Client) -> None:
    client.initialize()
    error = client.refusal("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert error["code"] == -32600 and "it may come once" in error["message"]


def test_error_when_a_request_comes_after_shutdown(client: Client, server: CodeServer) -> None:
    client.initialize()
    client.request("shutdown")
    params = {"textDocument": {"uri": FILE}, "position": at(0, 0)}
    error = client.refusal("textDocument/completion", params)
    assert error["code"] == -32600 and "came after shutdown: send exit" in error["message"]
    client.notify("exit")
    client.join()
    assert server.protocol.exit_status == 0


def test_exit_status_tells_when_shutdown_was_left_out(client: Client, server: CodeServer) -> None:
    client.initialize()
    client.notify("exit")
    client.join()
    assert server.protocol.exit_status == 1


def test_exit_is_obeyed_when_nothing_came_before(client: Client, server: CodeServer) -> None:
    client.notify("exit")
    until(lambda: server.protocol.has_ended)

"""Slow, large and rude clients, on raw sockets."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest

from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel

from .conftest import Running, running

HEADERS = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LONG = {"model": "org/tiny", "prompt": "a", "max_tokens": 2000, "logit_bias": {"120": 100}}


@pytest.fixture(scope="module")
def strict(models: list[ServedModel]) -> Iterator[Running]:
    config = ServeConfig(
        port=0,
        max_body_bytes=10_000,
        header_timeout_s=0.5,
        body_timeout_s=0.5,
        send_timeout_s=0.3,
        request_timeout_s=0.5,
    )
    with running(models, config) as started:
        yield started


@contextmanager
def _connected(server: Running) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=10) as connection:
        yield connection


def _all_of(connection: socket.socket) -> bytes:
    """Everything that comes until the server hangs up."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass  # hung up while we were sending
    return received


def _reply(connection: socket.socket) -> bytes:
    """One answer, of the length that it announces."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    length = int(re.search(rb"content-length: (\d+)", received)[1])  # type: ignore[index]
    while length:
        part = connection.recv(length)
        received, length = received + part, length - len(part)
    return received


def _request(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEADERS + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_client_is_dropped_when_its_headers_do_not_come(strict: Running, sent: bytes) -> None:
    with _connected(strict) as connection:
        connection.sendall(sent)
        reply = _all_of(connection)
    assert reply.startswith(b"HTTP/1.1 408")
    assert b"the headers took longer than 0.5 seconds" in reply


def test_client_is_dropped_when_its_headers_trickle(strict: Running) -> None:
    connection = socket.create_connection(strict.address, timeout=10)
    start = time.monotonic()
    with connection, pytest.raises(OSError):
        while True:  # a byte now and then resets no clock
            connection.sendall(b"G" if time.monotonic() - start < 0.01 else b"E")
            time.sleep(0.05)
            assert time.monotonic() - start < 5
    assert time.monotonic() - start < 2


def test_second_request_of_a_connection_has_a_clock_too(strict: Running) -> None:
    with _connected(strict) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _reply(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HT")
        assert _all_of(connection).startswith(b"HTTP/1.1 408")


def test_client_is_told_when_its_body_does_not_come(strict: Running) -> None:
    with _connected(strict) as connection:
        connection.sendall(HEADERS + b"Content-Length: 100\r\n\r\n{")
        reply = _all_of(connection)
    assert reply.startswith(b"HTTP/1.1 408")
    assert b"the body took longer than 0.5 seconds" in reply


def test_bytes_that_are_no_http_are_answered_in_json(strict: Running) -> None:
    with _connected(strict) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        reply = _all_of(connection)
    assert reply.startswith(b"HTTP/1.1 400")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_large_body_is_refused_before_it_has_come(strict: Running) -> None:
    with _connected(strict) as connection:
        connection.sendall(HEADERS + b"Content-Length: 104857600\r\n\r\n")
        reply = _reply(connection)
        assert reply.startswith(b"HTTP/1.1 413")
        assert b"request_too_large" in reply
        assert _all_of(connection) == b""  # and hung up when the rest does not come


def test_client_that_sends_a_large_body_in_one_go_reads_the_answer(server: Running) -> None:
    reply = httpx2.post(
        f"{server.url}/v1/completions",
        content=b" " * (server.config.max_body_bytes + 8 * 2**20),
        headers={"Content-Type": "application/json"},
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


def test_large_body_is_refused_when_its_length_is_not_announced(strict: Running) -> None:
    reply = httpx2.post(
        f"{strict.url}/v1/completions",
        content=(b" " * 1000 for _ in range(40)),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 413


def test_request_is_given_up_when_it_takes_too_long(strict: Running) -> None:
    reply = httpx2.post(f"{strict.url}/v1/completions", json=LONG)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "request_timed_out")
    with httpx2.stream(
        "POST", f"{strict.url}/v1/completions", json=LONG | {"stream": True}
    ) as stream:
        events = [line for line in stream.iter_lines() if line]
    assert stream.status_code == 200
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "request_timed_out"


def test_embeddings_are_given_up_when_they_take_too_long(strict: Running) -> None:
    asked = {"model": "nano-text", "input": ["a text"] * 500}
    reply = httpx2.post(f"{strict.url}/v1/embeddings", json=asked)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "request_timed_out")


@pytest.mark.parametrize("stream", [False, True])
def test_request_is_cancelled_when_the_client_leaves(
    server: Running, models: list[ServedModel], stream: bool
) -> None:
    engine = models[1].engine
    before = engine.stats()
    body = json.dumps(LONG | {"stream": stream}).encode()
    with _connected(server) as connection:
        connection.sendall(_request(body))
        if stream:
            assert b"data: " in connection.recv(65536) + connection.recv(65536)
        _until(lambda: engine.stats().running > 0)
    _until(lambda: engine.stats().running == 0)
    after = engine.stats()
    assert after.counters["cancelled"] == before.counters["cancelled"] + 1
    assert after.counters["finished"] == before.counters["finished"]
    assert after.pages_used == 0
    made = after.counters["completion_tokens"] - before.counters["completion_tokens"]
    assert made < 1900


def test_client_is_dropped_when_it_does_not_read(strict: Running) -> None:
    count = 400
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(strict.address)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
        connections = strict.server.server_state.connections
        _until(lambda: any(one.flow.write_paused for one in list(connections)))
        _until(lambda: not connections)  # aborted: else it would wait for the reader
        assert _all_of(connection).count(b"HTTP/1.1 200") < count


def test_connection_is_refused_when_too_many_are_open(models: list[ServedModel]) -> None:
    with (
        running(models, ServeConfig(port=0, max_connections=2)) as server,
        _connected(server) as one,
        _connected(server) as two,
    ):
        for connection in (one, two):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert _reply(connection).startswith(b"HTTP/1.1 200")
        with _connected(server) as three:
            refused = _all_of(three)
            assert refused.startswith(b"HTTP/1.1 503") and b"too_many_connections" in refused
            assert b"Retry-After: 1" in refused
        two.close()
        _until(lambda: len(server.server.server_state.connections) == 1)
        with _connected(server) as four:
            four.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert _reply(four).startswith(b"HTTP/1.1 200")

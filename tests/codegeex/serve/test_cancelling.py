"""Nobody waits for an answer any more: its place in the engine is free at the next step."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from codegeex.complete import Completer, Options, Pending
from codegeex.hole import Hole
from codegeex.serve.app import create_code_app
from glm_core.infer.engine import Engine
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel

from .asks import ALL, PREFIX, SUFFIX, ways
from .conftest import NAME, Running, running

_STEP_S = 0.02
_LONG = 200


@pytest.fixture
def slow(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Makes the engine's steps take a while; gives the step in which something was given up."""
    step, drop = engine._scheduler.step, engine._drop
    given_up: list[int] = []

    def slowly() -> None:
        time.sleep(_STEP_S)
        step()

    def noted(work: object) -> None:
        given_up.append(engine.stats().counters["steps"])
        drop(work)

    monkeypatch.setattr(engine._scheduler, "step", slowly)
    monkeypatch.setattr(engine, "_drop", noted)
    yield given_up
    _until(lambda: engine.stats().running == 0)


def _until(is_so: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _request(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.mark.parametrize(("name", "stream"), ways(ALL))
def test_place_is_free_when_the_connection_is_dropped(
    server: Running, engine: Engine, slow: list[int], name: str, stream: bool
) -> None:
    ask = ALL[name]
    body = ask.body(PREFIX, SUFFIX, _LONG)
    if ask.has_stream:
        body["stream"] = stream
    with socket.create_connection(server.address) as client:
        client.sendall(_request(ask.path, body))
        _until(lambda: engine.stats().running == 1)
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    left = time.monotonic()
    _until(lambda: engine.stats().running == 0)
    assert time.monotonic() - left < 100 * _STEP_S  # far from its 200 tokens
    assert slow and engine.stats().counters["steps"] <= slow[0] + 1


@pytest.mark.parametrize("name", ["tabby", "infill", "refact", "plugin"])
def test_newest_request_of_an_editor_wins(
    http: httpx2.Client, server: Running, engine: Engine, slow: list[int], name: str
) -> None:
    ask = ALL[f"hole-{name}"]
    replies: list[httpx2.Response] = []
    body = ask.body(PREFIX, SUFFIX, _LONG)

    def first() -> None:
        replies.append(httpx2.post(server.url + ask.path, json=body, timeout=60))

    thread = threading.Thread(target=first)
    thread.start()
    _until(lambda: engine.stats().running == 1)
    reply = http.post(ask.path, json=ask.body(PREFIX + "a", SUFFIX, 2))
    thread.join(10)
    assert reply.status_code == 200
    assert replies[0].status_code == 409 and "newer one" in replies[0].text


def test_request_that_is_overtaken_while_it_is_read_cancels_no_newer_one(
    server: Running, completer: Completer, slow: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, reads_first = completer.submit, threading.Event()

    def slowly(hole: Hole, options: Options) -> Pending:
        if hole.prefix.endswith("old"):
            reads_first.set()
            time.sleep(0.3)
        return submit(hole, options)

    monkeypatch.setattr(completer, "submit", slowly)
    ask, statuses = ALL["hole-infill"], dict[str, int]()

    def post(end: str) -> None:
        body = ask.body(PREFIX + end, SUFFIX, 20)
        statuses[end] = httpx2.post(server.url + ask.path, json=body, timeout=30).status_code

    threads = [threading.Thread(target=post, args=(end,)) for end in ("old", "new")]
    threads[0].start()
    assert reads_first.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert statuses == {"old": 409, "new": 200}


def test_reading_ahead_cancels_nothing(
    http: httpx2.Client, server: Running, engine: Engine, slow: list[int]
) -> None:
    ask, replies = ALL["hole-infill"], list[httpx2.Response]()
    body = ask.body(PREFIX, SUFFIX, 8)
    url = server.url + ask.path
    thread = threading.Thread(target=lambda: replies.append(httpx2.post(url, json=body)))
    thread.start()
    _until(lambda: engine.stats().running == 1)
    warm = http.post(ask.path, json=ask.body("", "", 0)).json()
    assert warm["content"] == "" and warm["timings"]["predicted_n"] == 0
    thread.join(10)
    assert replies[0].status_code == 200


@pytest.mark.parametrize("name", ["hole-ollama", "hole-mistral", "hole-openai"])
def test_older_requests_are_kept_where_clients_cancel_them_themselves(
    http: httpx2.Client, server: Running, engine: Engine, slow: list[int], name: str
) -> None:
    assert _older_status(http, server, engine, name) == 200


def test_older_requests_are_kept_when_the_server_is_started_so(
    served: ServedModel, completer: Completer, engine: Engine, slow: list[int]
) -> None:
    config = ServeConfig(port=0)
    app = create_code_app([served], {NAME: completer}, config, newest_wins=False)
    with running(app, config) as other, httpx2.Client(base_url=other.url) as http:
        assert _older_status(http, other, engine, "hole-infill") == 200


def _older_status(http: httpx2.Client, server: Running, engine: Engine, name: str) -> int:
    ask, replies = ALL[name], list[httpx2.Response]()
    body = ask.body(PREFIX, SUFFIX, 8) | {"stream": False}
    url = server.url + ask.path
    thread = threading.Thread(target=lambda: replies.append(httpx2.post(url, json=body)))
    thread.start()
    _until(lambda: engine.stats().running == 1)
    assert http.post(ask.path, json=body).status_code == 200
    thread.join(10)
    return replies[0].status_code


def test_request_is_given_up_when_it_takes_longer_than_the_server_allows(
    served: ServedModel, completer: Completer, slow: list[int]
) -> None:
    config = ServeConfig(port=0, request_timeout_s=0.3)
    app = create_code_app([served], {NAME: completer}, config)
    with running(app, config) as short, httpx2.Client(base_url=short.url) as http:
        reply = http.post("/infill", json=ALL["hole-infill"].body(PREFIX, SUFFIX, _LONG))
        assert reply.status_code == 504 and reply.json()["error"]["code"] == 504
        body = ALL["hole-ollama"].body(PREFIX, SUFFIX, _LONG)
        *_, last = http.post("/api/generate", json=body).text.splitlines()
        assert "longer than this server allows" in json.loads(last)["error"]

"""Requests that nobody waits for any more: how soon their place in the engine is free."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

from codegeex.bench.client import Connection, events_of

TRIES = 20
_TOKENS = 400
"""That would be written if nobody left."""
_RECEIVED = 4
"""Tokens after which the client leaves."""
_TIMEOUT_S = 30.0
_VALUE = re.compile(
    r"^glm_engine_(running|completion_tokens_total)(?:\{[^}]*\})? (\S+)$", re.MULTILINE
)


@dataclass(frozen=True)
class Left:
    """One request whose client hung up while its answer was written."""

    tokens: int
    """Written beyond those that had come."""
    free_s: float
    """Until nothing was running any more, as the next answer of `/metrics` tells."""


def leave(url: str, model: str, tries: int = TRIES) -> list[Left]:
    """Hangs up in the middle of some answers, one after the other; nothing else may be asked.

    Raises:
        RuntimeError: a request goes on.
    """
    return [_leave(url, model) for _ in range(tries)]


def _leave(url: str, model: str) -> Left:
    body = {
        "model": model,
        "prompt": "def area(radius):\n",
        "max_tokens": _TOKENS,
        "min_tokens": _TOKENS,
        "temperature": 0,
        "stream": True,
        "logprobs": 0,  # every event tells its tokens then
    }
    _, before = _state(url)
    with Connection(url) as connection:
        connection.send("/v1/completions", json.dumps(body).encode())
        content = connection.receive()
        while _num_tokens(content) < _RECEIVED:
            content += connection.receive()
        content += connection.pending()
    start = time.perf_counter()
    running, written = _state(url)
    while running:
        if time.perf_counter() - start > _TIMEOUT_S:
            raise RuntimeError(f"a request is still answered {_TIMEOUT_S:g} s after it was left")
        running, written = _state(url)
    free = time.perf_counter() - start
    return Left(max(written - before - _num_tokens(content), 0), free)


def _num_tokens(content: bytes) -> int:
    choices = [choice for event in events_of(content) for choice in event["choices"]]
    return sum(len(choice["logprobs"]["tokens"]) for choice in choices if choice["logprobs"])


def _state(url: str) -> tuple[int, int]:
    """Requests that are running, and tokens written since the start."""
    address = urlsplit(url)
    assert address.hostname is not None
    connection = HTTPConnection(address.hostname, address.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Connection": "close"})
        told = dict(_VALUE.findall(connection.getresponse().read().decode()))
    finally:
        connection.close()
    return int(float(told["running"])), int(float(told["completion_tokens_total"]))

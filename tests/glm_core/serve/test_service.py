"""Between HTTP and the engine: queues that are full, newer requests, what siblings add."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from glm_core.infer import CausalLayout
from glm_core.infer.blanks import Prompt, continuation_prompt, ids_prompt
from glm_core.infer.engine import Engine, EngineConfig
from glm_core.serve.app import create_app
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import Models, ServedModel

from .conftest import Running, running

LONG: dict[str, Any] = {"model": "org/tiny", "prompt": "a", "max_tokens": 1900, "stream": True}
LONG["logit_bias"] = {"120": 100}


@contextmanager
def _stream(url: str, **changes: Any) -> Iterator[Iterator[str]]:
    """Begins an answer; gives its events once the first has come."""
    with httpx2.stream("POST", f"{url}/v1/completions", json=LONG | changes) as reply:
        assert reply.status_code == 200
        events = filter(None, reply.iter_lines())
        next(events)
        yield events


def test_request_is_refused_when_the_queue_is_full(models: list[ServedModel]) -> None:
    tiny = models[1]
    config = EngineConfig(max_running=1, max_queued=1, cache_bytes=2**24)
    with Engine(tiny.engine.model, tiny.tokenizer, config=config) as engine:
        small = replace(tiny, engine=engine)
        with (
            running([small], ServeConfig(port=0)) as server,
            _stream(server.url),
            socket.create_connection(server.address) as waiting,
        ):
            body = json.dumps(LONG).encode()
            waiting.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            while not engine.stats().waiting:
                time.sleep(0.005)
            reply = httpx2.post(f"{server.url}/v1/completions", json=LONG)
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "engine_busy")
    assert int(reply.headers["Retry-After"]) >= 1


def test_older_request_is_cancelled_when_the_newest_wins(server: Running) -> None:
    mine = {"user": "editor-1", "newest_wins": True}
    with _stream(server.url, **mine) as older, _stream(server.url, user="editor-2") as other:
        quick = LONG | mine | {"max_tokens": 1, "stream": False}
        assert httpx2.post(f"{server.url}/v1/completions", json=quick).status_code == 200
        last = list(older)[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_cancelled"
        assert "error" not in next(other)


def test_picture_is_read_when_the_model_has_eyes(models: list[ServedModel]) -> None:
    seen: list[str] = []

    def read_image(url: str) -> str:
        seen.append(url)
        return "<a cat>" * 10

    asked: dict[str, Any] = {"model": "org/tiny", "max_tokens": 1}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": "What is it?"}
    with TestClient(
        create_app([replace(models[1], read_image=read_image)]), base_url="http://localhost"
    ) as client:
        counts = []
        for content in ([text], [image, text]):
            asked["messages"] = [{"role": "user", "content": content}]
            reply = client.post("/v1/chat/completions", json=asked).json()
            counts.append(reply["usage"]["prompt_tokens"])
        assert client.get("/v1/models/org/tiny").json()["abilities"]["images"]
    assert seen == ["data:image/png;base64,AAAA"]
    assert counts[1] >= counts[0] + 70


def test_suffix_goes_the_models_own_way_when_it_has_one(models: list[ServedModel]) -> None:
    given: list[tuple[str, str]] = []
    tiny = models[1]

    def infill(before: str, behind: str) -> Prompt:
        given.append((before, behind))
        return continuation_prompt(behind + before, tiny.tokenizer, CausalLayout())

    served = replace(tiny, infill=infill)
    with TestClient(create_app([served]), base_url="http://localhost") as client:
        asked = {"model": "org/tiny", "prompt": "a", "suffix": "b", "max_tokens": 1}
        assert client.post("/v1/completions", json=asked).status_code == 200
        assert client.get("/v1/models").json()["data"][0]["abilities"]["suffix"]
    assert given == [("a", "b")]


def test_models_are_refused_when_their_names_do_not_tell_them_apart(
    models: list[ServedModel],
) -> None:
    with pytest.raises(ValueError, match="two models have the same name"):
        Models([models[0], models[0]])
    with pytest.raises(ValueError, match="no model to serve"):
        Models([])


def test_prompt_may_name_special_tokens_when_the_model_is_served_so(
    models: list[ServedModel],
) -> None:
    tiny = models[1]
    seen = []

    def continuation(text: str) -> Prompt:
        seen.append(text)
        ids = [tiny.tokenizer.token_id("<|user|>")]  # nothing but a special token
        return ids_prompt(ids, tiny.tokenizer, tiny.layout)

    served = replace(tiny, continuation=continuation)
    with TestClient(create_app([served]), base_url="http://localhost") as client:
        asked = {"model": "org/tiny", "prompt": "<|user|>", "max_tokens": 1, "echo": True}
        reply = client.post("/v1/completions", json=asked).json()
    assert seen == ["<|user|>"] and reply["usage"]["prompt_tokens"] == 1

"""Requests that no client should send, told of in each protocol's own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from codegeex.complete import Completer
from codegeex.serve.app import create_code_app
from glm_core.infer.engine import Engine
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel

from .asks import ALL, NAME

JSON = {"Content-Type": "application/json"}
KEY = "a-long-secret"
Told = Callable[[Any], str]


def _openai(body: Any) -> str:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


def _llama(body: Any) -> str:
    assert set(body["error"]) == {"code", "message", "type"}
    return str(body["error"]["message"])


def _ollama(body: Any) -> str:
    assert set(body) == {"error"}
    return str(body["error"])


def _tgi(body: Any) -> str:
    assert set(body) in ({"error", "error_type"}, {"error", "error_type", "status"})
    return str(body["error"])


def _mistral(body: Any) -> str:
    assert set(body) == {"object", "message", "type", "param", "code"}
    return str(body["message"])


def _refact(body: Any) -> str:
    assert set(body) == {"detail"}
    return str(body["detail"])


def _plugin(body: Any) -> str:
    assert set(body) == {"status", "message"} and body["status"] != 0
    return str(body["message"])


PATHS: dict[str, tuple[Told, int]] = {
    "/v1/completions": (_openai, 400),
    "/v1/engines/codegen/completions": (_openai, 400),
    "/infill": (_llama, 400),
    "/completion": (_llama, 400),
    "/completions": (_llama, 400),
    "/tokenize": (_llama, 400),
    "/detokenize": (_llama, 400),
    "/api/generate": (_ollama, 400),
    "/api/chat": (_ollama, 400),
    "/api/show": (_ollama, 400),
    "/v1/fim/completions": (_mistral, 422),
    "/generate": (_tgi, 422),
    "/generate_stream": (_tgi, 422),
    "/v1/code-completion": (_refact, 400),
    "/multilingual_code_generate": (_plugin, 400),
    "/multilingual_code_generate_block": (_plugin, 400),
    "/multilingual_code_generate_adapt": (_plugin, 400),
    "/": (_tgi, 422),
    "/v1/events": (_openai, 400),
}
"""By path: how it tells of an error, and with which status of a wrong body."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must"),
        (b"{", "no JSON"),
        (b"[1, 2]", "JSON object"),
        (b"null", ""),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "\xff\xfe"}', "UTF-8"),
        (b"{}", "provide"),
    ],
)
def test_body_is_refused_when_it_cannot_be_read(
    http: httpx2.Client, path: str, content: bytes, reason: str
) -> None:
    reply = http.post(path, content=content, headers=JSON)
    told, status = PATHS[path]
    assert reply.status_code == status, reply.text
    assert reason in told(reply.json())


def _with_text(name: str, value: str) -> bytes:
    """Returns a request in which the text before the cursor is this JSON."""
    content = json.dumps(ALL[name].body("§", "", 4))
    assert '"\\u00a7"' in content
    return content.replace('"\\u00a7"', value).encode()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", ["5", "null", "[{}]", "{}", "true", "1e300", "NaN"])
def test_text_is_refused_when_it_is_none(http: httpx2.Client, name: str, value: str) -> None:
    reply = http.post(ALL[name].path, content=_with_text(name, value), headers=JSON)
    told, status = PATHS[ALL[name].path]
    if "ollama" in name and value == "null":
        assert reply.json()["done_reason"] == "load"
        return
    assert reply.status_code == status, reply.text
    assert told(reply.json())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", ['"a\\ud83d"', '"\\ude42a"', '"\\ud83d"'])
def test_half_a_character_at_the_cursor_is_answered(
    http: httpx2.Client, name: str, value: str
) -> None:
    reply = http.post(ALL[name].path, content=_with_text(name, value), headers=JSON)
    if name == "hole-refact":  # the cursor stands behind the first character
        assert reply.status_code in (200, 400)
    else:
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("path", "change", "rule"),
    [
        ("/infill", {"n_predict": "many"}, "n_predict"),
        ("/infill", {"temperature": "NaN"}, "finite"),
        ("/infill", {"input_extra": [{"filename": "a"}]}, r"input_extra\[0\].text"),
        ("/infill", {"input_extra": "a"}, "input_extra"),
        ("/infill", {"response_fields": "content"}, "response_fields"),
        ("/infill", {"stop": [1]}, "stop"),
        ("/infill", {"input_prefix": "\0\0"}, "NUL characters"),
        ("/api/generate", {"images": ["aGVsbG8="]}, "no eyes"),
        ("/api/generate", {"options": [1]}, "options"),
        ("/api/generate", {"options": {"stop": {"a": 1}}}, "stop"),
        ("/api/generate", {"format": "json"}, "/api/chat"),
        ("/api/chat", {"messages": [{"content": "a"}]}, r"messages\[0\].role"),
        ("/api/chat", {"messages": [{"role": "judge", "content": "a"}]}, "judge"),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "a", "images": ["aGVsbG8="]}]},
            "no eyes",
        ),
        ("/api/chat", {"format": "yaml"}, "yaml"),
        ("/v1/code-completion", {"inputs": {"sources": {}, "cursor": {}}}, "provide inputs.cursor"),
        ("/v1/fim/completions", {"max_tokens": 1e30}, "max_tokens"),
        ("/generate", {"inputs": ""}, "inputs: is empty"),
        ("/generate", {"parameters": {"best_of": 100}}, "best_of"),
        ("/generate", {"parameters": {"best_of": 9}}, "at most 8"),
        ("/multilingual_code_generate", {"n": 0}, "n"),
        ("/detokenize", {"tokens": [10**6]}, "ids lie between 0 and"),
        ("/detokenize", {"tokens": [-1]}, "ids lie between 0 and"),
        ("/tokenize", {"content": "a" * 10**6}, "1,000,000 characters"),
        ("/v1/completions", {"segments": {"suffix": "a"}}, "segments.prefix"),
        ("/v1/completions", {"segments": {"prefix": "a"}, "mode": "next_edit_suggestion"}, "mode"),
        ("/v1/completions", {"debug_options": {}}, "segments"),
        ("/v1/completions", {"prompt": "a", "prmpt": "b"}, "unknown parameter"),
        ("/v1/completions", {"prompt": "a", "suffix": "b", "max_tokens": 0}, "at least 1"),
        ("/v1/completions", {"prompt": "a", "suffix": "b", "echo": True}, "contradicts suffix"),
        ("/v1/events", {"type": "glance", "completion_id": "a"}, "type"),
        ("/", {"prompt": "a", "max_length": "b"}, "max_length"),
    ],
)
def test_field_is_refused_when_it_makes_no_sense(
    http: httpx2.Client, path: str, change: dict[str, Any], rule: str
) -> None:
    whole = {
        "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 4},
        "/api/generate": {"model": NAME, "prompt": "a"},
        "/api/chat": {"model": NAME, "messages": [{"role": "user", "content": "a"}]},
        "/v1/fim/completions": {"prompt": "a"},
        "/generate": {"inputs": "a"},
        "/multilingual_code_generate": {"prompt": "a"},
        "/tokenize": {"content": "a"},
    }
    reply = http.post(path, json=whole.get(path, {}) | change)
    told, status = PATHS[path]
    assert reply.status_code == status, reply.text
    with pytest.raises(AssertionError, match=rule):
        raise AssertionError(told(reply.json()))


@pytest.mark.parametrize(
    ("cursor", "rule"),
    [
        ({"file": "b", "line": 0, "character": 0}, "one of inputs.sources"),
        ({"file": "a", "line": 3, "character": 0}, "the file has 3 lines"),
        ({"file": "a", "line": 10**9, "character": 0}, "the file has 3 lines"),
        ({"file": "a", "line": 1, "character": 4}, "line 1 has 3 characters"),
        ({"file": "a", "line": -1, "character": 0}, "greater than or equal to 0"),
    ],
)
def test_cursor_is_refused_when_it_is_nowhere(
    http: httpx2.Client, cursor: dict[str, Any], rule: str
) -> None:
    inputs = {"sources": {"a": "你好\r\nc🙂d\r\n"}, "cursor": cursor, "multiline": False}
    reply = http.post("/v1/code-completion", json={"inputs": inputs})
    assert reply.status_code == 400 and rule in _refact(reply.json())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/completions", _openai),
        ("/v1/fim/completions", _mistral),
        ("/api/generate", _ollama),
        ("/api/chat", _ollama),
        ("/api/show", _ollama),
    ],
)
def test_model_is_named_when_it_is_unknown(http: httpx2.Client, path: str, told: Told) -> None:
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": "a", "messages": [{"role": "user"}]}
    if path == "/v1/completions":
        body.pop("messages")
    reply = http.post(path, json=body)
    assert reply.status_code == 404
    message = told(reply.json())
    assert "gpt-3.5-turbo-instruct" in message and NAME in message


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/completions", {"prompt": "a", "model": ""}),
        ("/v1/completions", {"segments": {"prefix": "a"}, "model": "x"}),
        ("/v1/engines/gpt-4o-copilot/completions", {"prompt": "a", "model": "x"}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b", "model": "qwen"}),
        ("/completion", {"prompt": "a", "model": "qwen"}),
        ("/v1/fim/completions", {"prompt": "a"}),
        (
            "/v1/code-completion",
            {
                "inputs": {
                    "sources": {"a": "b"},
                    "cursor": {"file": "a", "line": 0, "character": 1},
                },
                "model": "starcoder",
            },
        ),  # noqa: E501
    ],
)
def test_model_is_the_default_where_clients_name_what_they_think_is_there(
    http: httpx2.Client, path: str, body: dict[str, Any]
) -> None:
    reply = http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json().get("model", NAME) == NAME


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/infill", 405, _llama),
        ("POST", "/props", 405, _llama),
        ("GET", "/api/generate", 405, _ollama),
        ("POST", "/api/pull", 404, _ollama),
        ("DELETE", "/api/delete", 404, _ollama),
        ("GET", "/generate", 405, _tgi),
        ("GET", "/v1/code-completion", 405, _refact),
        ("GET", "/multilingual_code_generate", 405, _plugin),
        ("GET", "/v1/fim/completions", 405, _mistral),
        ("GET", "/v1/completions", 405, _openai),
        ("PUT", "/", 405, _tgi),
        ("GET", "/v1/nothing", 404, _openai),
    ],
)
def test_address_is_refused_when_it_is_none(
    http: httpx2.Client, method: str, path: str, status: int, told: Told
) -> None:
    reply = http.request(method, path)
    assert reply.status_code == status and told(reply.json())


@pytest.fixture(scope="module")
def guarded(served: ServedModel, completer: Completer) -> Iterator[TestClient]:
    config = ServeConfig(api_keys=(KEY,), max_body_bytes=2000)
    app = create_code_app([served], {NAME: completer}, config)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_key_and_size_are_looked_at_everywhere(guarded: TestClient, path: str) -> None:
    told, _ = PATHS[path]
    reply = guarded.post(path, json={})
    assert reply.status_code == 401 and "API key" in told(reply.json())
    headers = {"Authorization": f"Bearer {KEY}"}
    reply = guarded.post(path, json={"prompt": "a" * 3000}, headers=headers)
    assert reply.status_code == 413 and "larger than 2,000" in told(reply.json())
    reply = guarded.post(path, json={}, headers={"Host": "evil.example"})
    assert reply.status_code == 403 and "--allow-host" in told(reply.json())


def test_body_is_taken_for_json_unless_a_browser_sends_it(http: httpx2.Client) -> None:
    body = json.dumps({"model": NAME, "prompt": "a", "stream": False}).encode()
    curl = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/api/generate", content=body, headers=curl).status_code == 200
    assert http.post("/api/generate", content=body).status_code == 200
    for sign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        reply = http.post("/api/generate", content=body, headers=curl | sign)
        assert reply.status_code == 415 and "application/json" in _ollama(reply.json())
    plain = {"Content-Type": "text/plain"}
    assert http.post("/api/generate", content=body, headers=plain).status_code == 415


def test_every_health_tells_when_the_server_stops_or_a_model_has_failed(
    served: ServedModel, completer: Completer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_code_app([served], {NAME: completer})
    with TestClient(app, base_url="http://localhost") as http:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_fault", "stopped")
            for path in ("/health", "/v1/health"):
                reply = http.get(path)
                assert (reply.status_code, reply.json()["status"]) == (503, "failed")
            reply = http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
            assert reply.status_code == 500 and "started again" in _llama(reply.json())
        app.state.service.is_draining = True
        reply = http.get("/health")
        assert (reply.status_code, reply.json()["status"]) == (503, "draining")
        assert int(reply.headers["Retry-After"]) > 0
        reply = http.post("/api/generate", json={"model": NAME, "prompt": "a"})
        assert reply.status_code == 503 and "shutting down" in _ollama(reply.json())


def test_model_that_completes_no_code_is_told_apart(
    served: ServedModel, completer: Completer
) -> None:
    other = replace(served, name="chat-only")
    app = create_code_app([served, other], {NAME: completer}, ServeConfig())
    with TestClient(app, base_url="http://localhost") as client:
        asked = {"model": "chat-only", "prompt": "a", "suffix": "b"}
        reply = client.post("/v1/fim/completions", json=asked)
        assert reply.status_code == 422 and f"ask for {NAME}" in _mistral(reply.json())
        reply = client.post("/api/generate", json=asked)
        assert reply.status_code == 400 and "/api/chat" in _ollama(reply.json())
        shown = client.post("/api/show", json={"model": "chat-only"}).json()
        assert ".Suffix" not in shown["template"] and "insert" not in shown["capabilities"]
    with pytest.raises(ValueError, match="no model here completes code"):
        create_code_app([other], {}, ServeConfig())

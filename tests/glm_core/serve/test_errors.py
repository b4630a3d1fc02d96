"""Requests that no client should send, and what they are told."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, HTTPException, Request
from fastapi.testclient import TestClient

from glm_core.infer.engine import (
    EngineBusy,
    EngineDraining,
    EngineFailed,
    RequestCancelled,
    RequestFailed,
    RequestTimedOut,
)
from glm_core.infer.sampling import DamagedLogits
from glm_core.serve.app import create_app
from glm_core.serve.config import ServeConfig
from glm_core.serve.errors import ApiError, ClientLeft, api_error
from glm_core.serve.models import ServedModel

JSON = {"Content-Type": "application/json"}


def _posted(http: httpx2.Client, content: bytes, **headers: str) -> httpx2.Response:
    return http.post("/v1/chat/completions", content=content, headers=JSON | headers)


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"", "invalid_json", "JSON object"),
        (b"{", "invalid_json", "no JSON"),
        (b'{"model": "nano-text", }', "invalid_json", "no JSON"),
        (b'{"model": "\xff\xfe"}', "invalid_json", "in UTF-8"),
        (b"[" * 100_000, "invalid_json", "nested too deeply"),
        (b"[1, 2]", "invalid_json", "JSON object"),
        (b"null", "invalid_json", "JSON object"),
        (b"{}", "missing_required_parameter", "provide model"),
        (b'{"model": 5, "messages": []}', "invalid_value", "model"),
        (b'{"model": "\\ud800", "messages": [{}]}', "invalid_value", "model"),
        (
            b'{"model": "nano-text", "messages": [{}], "temperature": NaN}',
            "invalid_value",
            "finite",
        ),
        (b'{"model": "nano-text", "messages": [{}], "temperature": 1e999}', "invalid_value", "fin"),
    ],
)
def test_body_is_refused_when_it_cannot_be_read(
    http: httpx2.Client, content: bytes, code: str, reason: str
) -> None:
    reply = _posted(http, content)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, code), error
    assert error["type"] == "invalid_request_error" and reason in error["message"]


def test_half_a_character_in_a_message_is_refused(http: httpx2.Client) -> None:
    body = {"model": "nano-text", "messages": [{"role": "user", "content": "\ud83d"}]}
    reply = _posted(http, json.dumps(body).encode())
    assert reply.status_code == 400
    assert "lone surrogate" in reply.json()["error"]["message"]
    body = {"model": "nano-text", "messages": [{"role": "\ud83d", "content": "a"}]}
    assert _posted(http, json.dumps(body).encode()).status_code == 400


def test_body_is_refused_when_it_is_not_announced_as_json(http: httpx2.Client) -> None:
    # A web page may send text/plain anywhere without asking first; JSON it may not.
    body = b'{"model": "nano-text", "messages": [{"role": "user", "content": "a"}]}'
    reply = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415
    assert "application/json" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/nano-text", 405, "method_not_allowed"),
    ],
)
def test_address_is_refused_when_it_is_none(
    http: httpx2.Client, method: str, path: str, status: int, code: str
) -> None:
    reply = http.request(method, path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_model_is_named_when_it_is_unknown(http: httpx2.Client) -> None:
    reply = http.post("/v1/completions", json={"model": "gpt-5", "prompt": "a"})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (EngineBusy("full", 2.2), 429, ("Retry-After", "3")),
        (EngineDraining(0.1), 503, ("Retry-After", "1")),
        (RequestTimedOut(5), 504, ("x-should-retry", "false")),
        (RequestCancelled(), 409, ("x-should-retry", "false")),
        (RequestFailed(DamagedLogits("the weights are damaged")), 500, None),
        (RequestFailed(ValueError("no token can come next")), 400, None),
        (RequestFailed(RuntimeError("secret")), 500, None),
        (KeyError("secret"), 500, None),
        (ValueError("sampling.top_k is -1: it must be at least 0"), 400, None),
    ],
)
def test_exception_becomes_an_answer(
    error: Exception, status: int, header: tuple[str, str] | None
) -> None:
    told = api_error(error)
    assert told.status == status
    assert header is None or told.headers[header[0]] == header[1]
    assert "secret" not in told.message
    assert set(told.body()["error"]) == {"message", "type", "param", "code"}


def test_damage_of_the_model_is_told_and_a_defect_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        assert "damaged" in api_error(RequestFailed(DamagedLogits("weights are damaged"))).message
        assert "log tells why" in api_error(KeyError("secret")).message
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineBusy("full", 1), 429, "engine_busy"),
        (KeyError("secret"), 500, "internal_error"),
        (EngineFailed("secret"), 500, "engine_failed"),
        (ClientLeft(), 499, "client_left"),
        (ValueError("five is too many"), 400, "invalid_value"),
        (ApiError(418, "no coffee", "teapot"), 418, "teapot"),
        (HTTPException(404, "no such file"), 404, None),
    ],
)
def test_exceptions_of_a_siblings_router_are_answered_in_the_same_shape(
    models: list[ServedModel], error: Exception, status: int, code: str | None
) -> None:
    router = APIRouter()

    @router.get("/infill")
    async def infill() -> Any:
        raise error

    app = create_app(models, routers=[router])
    with TestClient(app, base_url="http://localhost") as client:
        reply = client.get("/infill")
        numbers = client.get("/metrics").text
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.headers["x-request-id"] and "secret" not in reply.text
    assert f'path="/infill",status="{status}"' in numbers


def test_server_is_not_well_when_an_engine_has_stopped(
    http: httpx2.Client, models: list[ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models[0].engine, "_fault", "stopped")
    reply = http.get("/health")
    assert (reply.status_code, reply.json()) == (503, {"status": "failed"})
    reply = http.post("/v1/completions", json={"model": "nano-text", "prompt": "a"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "engine_failed")


def _plain(error: ApiError) -> tuple[int, Any]:
    return 422 if error.status == 400 else error.status, {"detail": error.message}


def test_errors_have_the_shape_of_the_protocol_they_came_by(models: list[ServedModel]) -> None:
    router = APIRouter()

    @router.post("/other/fill")
    async def fill(request: Request) -> Any:
        raise ValueError("five is too many")

    config = ServeConfig(api_keys=("a-long-secret",), max_body_bytes=100)
    app = create_app(models, config, routers=[router], error_shapes={"/other/": _plain})
    headers = {"Authorization": "Bearer a-long-secret"}
    with TestClient(app, base_url="http://localhost") as client:

        def told(path: str, body: Any, headers: dict[str, str] = headers) -> tuple[int, Any]:
            reply = client.post(path, json=body, headers=headers)
            return reply.status_code, reply.json()

        assert told("/other/fill", {}) == (422, {"detail": "five is too many"})
        status, body = told("/other/fill", {}, {})
        assert status == 401 and "API key" in body["detail"]
        status, body = told("/other/fill", {"a": "b" * 100})
        assert status == 413 and "larger than 100" in body["detail"]
        status, body = told("/other/nothing", {})
        assert status == 404 and list(body) == ["detail"]
        status, body = told("/others", {})
        assert status == 404 and body["error"]["code"] == "unknown_url"


def test_siblings_answer_at_an_address_of_ours(models: list[ServedModel]) -> None:
    router = APIRouter()

    @router.get("/health")
    async def is_well() -> Any:
        return {"status": "ok"}

    with TestClient(create_app(models, routers=[router]), base_url="http://localhost") as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/openapi.json").status_code == 200

"""Everything that core's server has is there as well."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx2
import pytest
from fastapi.testclient import TestClient

from codegeex.complete import Completer
from codegeex.fim import SENTINELS
from codegeex.serve.app import create_code_app
from codegeex.serve.code import Code
from glm_core.infer.engine import Engine
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel

from .asks import NAME, PREFIX, SUFFIX


def test_page_description_and_numbers_are_there(http: httpx2.Client) -> None:
    assert "<!doctype html>" in http.get("/").text.lower()
    assert http.head("/").status_code == 200
    docs = http.get("/docs").text
    for path in ("/v1/completions", "/infill", "/api/generate", "/v1/chat/completions"):
        assert f"POST {path}" in docs
    assert "codegeex serve" in docs and "input_prefix" in docs
    schema = http.get("/openapi.json").json()
    assert "CompletionRequest" in json.dumps(schema["paths"]["/v1/completions"])
    http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
    numbers = http.get("/metrics").text
    assert 'glm_http_requests_total{method="POST",path="/infill",status="200"}' in numbers
    assert http.get("/workbench").json()["tools"] == []


def test_model_fills_in_at_cores_addresses_too(
    http: httpx2.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http.get("/v1/models").json()["data"][0]["abilities"]["suffix"]
    seen = []
    submit = engine.submit
    monkeypatch.setattr(engine, "submit", lambda asked: (seen.append(asked), submit(asked))[1])
    evil = "".join(SENTINELS)
    body = {"model": NAME, "prompt": PREFIX + evil, "suffix": SUFFIX, "max_tokens": 3}
    reply = http.post("/v1/completions", json=body | {"logprobs": 1})
    assert reply.json()["choices"][0]["logprobs"]["tokens"]
    special = engine.tokenizer.special_ids
    assert sum(token in special for token in seen[0].prompt.context_ids) == 3
    long = "value = value + 1\n" * 5000
    reply = http.post("/v1/completions", json=body | {"prompt": long, "n": 2})
    assert reply.status_code == 200  # cut, as everywhere


def test_prompts_and_answers_are_logged_only_when_asked_for(
    served: ServedModel, completer: Completer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "glm_core.serve.access")
    for is_logged in (False, True):
        app = create_code_app([served], {NAME: completer}, ServeConfig(log_prompts=is_logged))
        with TestClient(app, base_url="http://localhost") as client:
            caplog.clear()
            body = {"input_prefix": "secret_name = ", "input_suffix": "\n", "n_predict": 4}
            text = client.post("/infill", json=body).json()["content"]
            client.post("/completion", json={"prompt": "secret_name", "n_predict": 4})
        hole, raw = [json.loads(record.message) for record in caplog.records]
        assert hole["model"] == NAME and hole["prompt_tokens"] and hole["completion_tokens"]
        assert ("secret_name" in json.dumps([hole, raw])) is is_logged
        if is_logged:
            assert hole["answers"] == [text] and raw["prompt"] == "secret_name"


def test_client_is_a_user_or_on_this_machine_an_address(
    served: ServedModel, completer: Completer
) -> None:
    class _Request:
        def __init__(self, host: str, key: str = "") -> None:
            self.client = type("Address", (), {"host": host})()
            self.headers = {"authorization": key} if key else {}

    def code(config: ServeConfig) -> Code:
        return create_code_app([served], {NAME: completer}, config).state.code

    here = code(ServeConfig())
    first = here.client(_Request("127.0.0.1"), "infill")
    assert first and first == here.client(_Request("127.0.0.1"), "infill")
    assert first != here.client(_Request("127.0.0.1"), "tabby")
    assert first != here.client(_Request("127.0.0.1"), "infill", "ann")
    far = code(ServeConfig(host="0.0.0.0", api_keys=("a-long-secret",)))
    assert far.client(_Request("10.0.0.1"), "infill") == ""
    ann = far.client(_Request("10.0.0.1", "Bearer a"), "infill", "ann")
    assert ann and ann != far.client(_Request("10.0.0.1", "Bearer b"), "infill", "ann")


def test_model_that_was_not_taught_to_fill_in_goes_on(served: ServedModel, engine: Engine) -> None:
    plain = Completer(engine, None, NAME)
    app = create_code_app([served], {NAME: plain})
    with TestClient(app, base_url="http://localhost") as client:
        asked = {"model": NAME, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 4}
        assert client.post("/v1/fim/completions", json=asked).status_code == 200
        assert client.post("/v1/completions", json=asked).status_code == 200
        reply = client.post("/v1/completions", json=asked | {"logprobs": 1})
        assert reply.status_code == 400 and "causal" in reply.json()["error"]["message"]
        shown = client.post("/api/show", json={"model": NAME}).json()
        assert ".Suffix" not in shown["template"]


def test_adapters_are_served_at_cores_addresses(served: ServedModel, completer: Completer) -> None:
    other = replace(served, name=f"{NAME}:mine")
    app = create_code_app([served, other], {NAME: completer})
    with TestClient(app, base_url="http://localhost") as client:
        asked = {"model": other.name, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 3}
        reply = client.post("/v1/completions", json=asked)
        assert reply.status_code == 200 and reply.json()["model"] == other.name

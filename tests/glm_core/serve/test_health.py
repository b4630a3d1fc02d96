"""What those who look after the server read: health, numbers, log, description."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from glm_core.serve.access_log import logger
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel

from .conftest import running

ASKED = {"model": "nano-text", "prompt": "secret words", "max_tokens": 2}


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """Returns what holds the access log's lines."""
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger.name):
        yield caplog
    logger.removeHandler(caplog.handler)


def test_server_is_ready(http: httpx2.Client) -> None:
    reply = http.get("/health")
    assert (reply.status_code, reply.json()) == (200, {"status": "ready"})


def test_numbers_are_prometheus_text(http: httpx2.Client) -> None:
    http.get("/v1/made/up")
    http.post("/v1/completions", json=ASKED)
    families = {one.name: one for one in text_string_to_metric_families(http.get("/metrics").text)}
    requests = families["glm_http_requests"].samples
    paths = {sample.labels["path"] for sample in requests if sample.name.endswith("_total")}
    assert {"/v1/completions", "(none)"} <= paths and "/v1/made/up" not in paths
    tokens = {s.labels["model"]: s.value for s in families["glm_engine_completion_tokens"].samples}
    assert tokens["nano-text"] >= 2 and "org/tiny" in tokens
    assert families["glm_engine_first_token_seconds"].type == "histogram"
    assert families["glm_engine_running"].type == "gauge"
    (tasks,) = families["glm_http_tasks"].samples
    assert tasks.value >= 2  # the server's own, and that of this request


def test_log_has_a_line_of_json_without_the_prompt(
    http: httpx2.Client, log: pytest.LogCaptureFixture
) -> None:
    reply = http.post("/v1/completions?key=hidden", json=ASKED)
    lines = log.messages
    told = json.loads(next(line for line in lines if reply.headers["x-request-id"] in line))
    assert told["path"] == "/v1/completions" and told["status"] == 200
    assert (told["model"], told["completion_tokens"]) == ("nano-text", 2)
    assert told["seconds"] > 0 and told["client"] == "127.0.0.1"
    assert not any("secret" in line or "hidden" in line for line in lines)


def test_log_has_prompts_and_answers_when_they_are_asked_for(
    models: list[ServedModel], log: pytest.LogCaptureFixture
) -> None:
    with running(models, ServeConfig(port=0, log_prompts=True)) as server:
        reply = httpx2.post(f"{server.url}/v1/completions", json=ASKED)
        said = [{"role": "user", "content": "more secrets"}]
        chat = {"model": "nano-text", "messages": said, "max_tokens": 1}
        for stream in (False, True):
            url = f"{server.url}/v1/chat/completions"
            httpx2.post(url, json=chat | {"stream": stream, "temperature": 0})
        httpx2.post(f"{server.url}/v1/completions", json=ASKED | {"stream": True})
    told = [json.loads(line) for line in log.messages if line.startswith("{")]
    assert told[0]["prompt"] == "secret words"
    assert told[0]["answers"] == [reply.json()["choices"][0]["text"]]
    assert told[1]["messages"] == said and told[1]["answers"][0]["role"] == "assistant"
    assert told[2]["answers"] == told[1]["answers"]
    assert told[3]["answers"][0]


def test_description_page_needs_nothing_from_elsewhere(http: httpx2.Client) -> None:
    reply = http.get("/docs")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert not re.search(r"https?://|<script|src=", reply.text)
    schema = http.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        assert all(f"{method.upper()} {path}" in reply.text for method in methods)
    assert "<code>response_format</code>" in reply.text
    assert "<code>stream_options.include_usage</code>" in reply.text
    assert "<code>number, &gt;= 0, &lt;= 2</code>" in reply.text

"""Requests that nobody would write by hand: no answer is a fault of the server."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from .asks import ALL, PREFIX, SUFFIX
from .conftest import Running
from .test_errors import PATHS

FEW = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SHORT = {"n_predict", "num_predict", "max_tokens", "max_new_tokens", "max_length", "n", "best_of"}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
OPERATIONS = [
    *((path, "POST") for path in PATHS if path not in ("/v1/completions", "/completions")),
    ("/api/tags", "GET"),
    ("/api/ps", "GET"),
    ("/api/version", "GET"),
    ("/props", "GET"),
    ("/info", "GET"),
    ("/v1beta/server_setting", "GET"),
    ("/copilot_internal/v2/token", "GET"),
]


@pytest.fixture(scope="module")
def description(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_operation_is_fuzzed(description: Any) -> None:
    cores = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"}
    cores |= {"/v1/models/{name}", "/health", "/metrics"}
    known = {(path, method.upper()) for path in description for method in description[path]}
    engines = "/v1/engines/{engine}/completions"
    mine = {(engines if path.startswith("/v1/engines") else path, how) for path, how in OPERATIONS}
    assert {one for one in known if one[0] not in cores} == mine


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_nothing_that_fits_the_description_or_not_breaks_the_server(
    server: Running, description: Any, path: str, method: str, mode: GenerationMode
) -> None:
    told = "/v1/engines/{engine}/completions" if path.startswith("/v1/engines") else path
    operation = description[told][method]
    if mode is GenerationMode.NEGATIVE and method == "GET":
        return  # there is nothing to be wrong

    @given(case=operation.as_strategy(generation_mode=mode))
    @FEW
    def check(case: Case) -> None:
        case.body = _short(case.body)
        reply = case.call(base_url=server.url)
        _check(path, reply.status_code, reply.content)

    check()


@pytest.mark.parametrize("name", ALL)
def test_nothing_in_place_of_a_field_breaks_the_server(http: httpx2.Client, name: str) -> None:
    ask = ALL[name]
    whole = ask.body(PREFIX, SUFFIX, 3)
    more = ["model", "stream", "stop", "temperature", "top_p", "top_k", "seed", "options"]
    more += ["parameters", "input_extra", "response_fields", "keep_alive", "segments", "raw"]

    @given(st.sampled_from([*whole, *more]), _JSON)
    @settings(FEW, max_examples=25)
    def check(field: str, value: Any) -> None:
        body = _short(whole | {field: value})
        content = json.dumps(body, ensure_ascii=True).encode()
        reply = http.post(ask.path, content=content, headers={"Content-Type": "application/json"})
        _check(ask.path, reply.status_code, reply.content)

    check()


def _check(path: str, status: int, content: bytes) -> None:
    assert status < 500, content
    if status >= 400 and path in PATHS:
        told, _ = PATHS[path]
        assert told(json.loads(content))


def _short(body: Any) -> Any:
    """Returns a body that asks for few tokens."""
    if isinstance(body, dict):
        return {
            key: min(value, 3) if key in SHORT and type(value) is int else _short(value)
            for key, value in body.items()
        }
    return body

"""The OpenAPI description against the server: schemathesis makes requests of it."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks

from .conftest import Running

load_all_checks()
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
    checks.unsupported_method,
]
SMALL = {"max_tokens": 1, "max_completion_tokens": 1, "n": 2, "best_of": 2, "min_tokens": 0}
CONTRADICTIONS = (
    "stream_options",
    "newest_wins",
    "tools",
    "tool_choice",
    "functions",
    "dimensions",
)
CONTRADICTIONS += ("function_call", "response_format", "top_logprobs", "logit_bias", "best_of")
CONTRADICTIONS += ("max_completion_tokens", "stop_token_ids", "suffix", "fill", "echo")


@pytest.fixture(scope="module")
def description(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


OPERATIONS = [
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/embeddings", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
]


def test_every_operation_is_tested(description: Any) -> None:
    known = {(path, method.upper()) for path in description for method in description[path]}
    assert known == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_server_does_what_its_description_says(
    description: Any, path: str, method: str, mode: GenerationMode
) -> None:
    if method == "GET":  # nothing in it can be wrong
        mode = GenerationMode.POSITIVE
    _check(description[path][method].as_strategy(generation_mode=mode), 25)


@pytest.mark.parametrize(("path", "method"), OPERATIONS[:3])
def test_server_answers_what_its_description_allows(
    description: Any, path: str, method: str
) -> None:
    strategy = description[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE)
    statuses = _check(strategy.map(_answerable), 25)
    assert statuses.count(200) > len(statuses) / 2


def _check(strategy: Any, count: int) -> list[int]:
    """Sends requests, checks the answers, returns their statuses."""
    statuses = []

    @given(case=strategy)
    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Case) -> None:
        if isinstance(case.body, dict) and case.body.get("model") == "nano-text":
            for name, most in SMALL.items():
                if isinstance(case.body.get(name), int):
                    case.body[name] = min(case.body[name], most)
        statuses.append(case.call_and_validate(checks=CHECKS).status_code)

    check()
    return statuses


def _answerable(case: Case) -> Case:
    """Asks a model that is there, with a prompt, and for no more than a moment's work."""
    body: Any = case.body
    body["model"] = "nano-text"
    if "messages" in body:
        body["messages"] = [{"role": "user", "content": "Hello"}]
    for name in {"prompt", "input"} & body.keys():
        body[name] = [[5, 6], [7]] if isinstance(body[name], list) else "Hello"
    for name in CONTRADICTIONS:
        body.pop(name, None)
    if "input" not in body:
        body["max_tokens"] = 1
    return case

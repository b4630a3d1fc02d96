"""What each client sends and reads, in files beside this one; the shapes are the clients' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .matching import difference

FOLDER = Path(__file__).parent / "golden"
CLIENTS = {path.stem: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")}
EXCHANGES = [
    pytest.param(exchange, id=f"{name}-{index}{exchange['path']}")
    for name, client in sorted(CLIENTS.items())
    for index, exchange in enumerate(client["exchanges"])
]


def test_every_client_of_the_guide_has_exchanges() -> None:
    assert len(CLIENTS) >= 12 and all(client["exchanges"] for client in CLIENTS.values())


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_client_gets_what_it_reads(http: httpx2.Client, exchange: dict[str, Any]) -> None:
    reply = http.request(
        exchange["method"],
        exchange["path"],
        json=exchange.get("body"),
        headers=exchange.get("headers"),
    )
    assert reply.status_code == exchange["status"], reply.text
    assert reply.headers.get("content-type", "").partition(";")[0] == exchange["type"]
    if "events" in exchange:
        told = [_event(one) for one in reply.text.split("\n\n")[:-1]]
        _check_stream(exchange["events"], told)
    elif "lines" in exchange:
        _check_stream(exchange["lines"], [json.loads(one) for one in reply.text.splitlines()])
    elif exchange["reply"] is not None:
        assert difference(exchange["reply"], reply.json()) == ""


def _event(text: str) -> Any:
    assert text.startswith("data: ") and "\n" not in text
    data = text.removeprefix("data: ")
    return data if data == "[DONE]" else json.loads(data)


def _check_stream(golden: dict[str, Any], told: list[Any]) -> None:
    *chunks, last = told
    assert chunks
    for chunk in chunks:
        assert difference(golden["chunk"], chunk) == ""
    assert difference(golden["last"], last) == ""


@pytest.mark.parametrize(
    ("golden", "given", "told"),
    [
        ({"a": "<int>", "b?": 1}, {"a": 5}, ""),
        ({"a": "<int>"}, {"a": True}, "/a: True is no <int>"),
        ({"a": "<bool>"}, {"a": 1}, "/a: 1 is no <bool>"),
        ({"a": 1}, {"a": 1, "b": 2}, ": misses [], has ['b'] beside"),
        ({"a": 1}, {}, ": misses ['a'], has [] beside"),
        ([1, "<text>"], [1, None], "/1: None is no <text>"),
        ([1], [1, 2], ": [1, 2] is not [1]"),
        ("<text with .Suffix>", "{{ .Suffix }}", ""),
        ("<text with .Suffix>", "{{ .Prompt }}", ": '.Suffix' is not in '{{ .Prompt }}'"),
    ],
)
def test_difference_is_found(golden: Any, given: Any, told: str) -> None:
    assert difference(golden, given) == told

"""What must be the same whatever the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from codegeex.complete import Completer, Options
from codegeex.fim import MIDDLE, PREFIX, SENTINELS, SUFFIX
from codegeex.hole import Hole
from glm_core.infer.engine import Engine, EngineRequest, Ticket

from . import asks
from .asks import ALL, HOLES, OTHERS, RAW, ways

_HOLES = HOLES | OTHERS


@pytest.fixture
def submitted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EngineRequest]]:
    """The requests that reach the engine."""
    seen: list[EngineRequest] = []
    submit = engine.submit

    def noted(request: EngineRequest) -> Ticket:
        seen.append(request)
        return submit(request)

    monkeypatch.setattr(engine, "submit", noted)
    yield seen


def _num_special(engine: Engine, request: EngineRequest) -> int:
    return sum(token in engine.tokenizer.special_ids for token in request.prompt.context_ids)


@pytest.mark.parametrize(("name", "stream"), ways(HOLES))
def test_hole_is_filled_as_by_the_completer(
    http: httpx2.Client, completer: Completer, name: str, stream: bool
) -> None:
    hole = Hole(prefix=asks.PREFIX, suffix=asks.SUFFIX, path=HOLES[name].file)
    outcome = completer.submit(hole, Options(max_new_tokens=12)).outcome()
    text = HOLES[name].ask(http, asks.PREFIX, asks.SUFFIX, 12, stream)
    assert text == outcome.choices[0].text


@pytest.mark.parametrize(("name", "stream"), ways(RAW))
def test_template_of_a_client_is_the_same_hole(
    http: httpx2.Client,
    submitted: list[EngineRequest],
    completer: Completer,
    name: str,
    stream: bool,
) -> None:
    hole = Hole(prefix="def add(a, b):\n", suffix=asks.SUFFIX)
    unhealed = Completer(completer.engine, completer.format, "x", heals=False)
    options = Options(max_new_tokens=12, raw=name == "openai")  # core knows no rules of code
    expected = unhealed.submit(hole, options).outcome().choices[0].text
    template = f"{SUFFIX}{hole.suffix}{PREFIX}{hole.prefix}{MIDDLE}"
    text = RAW[name].ask(http, template, "", 12, stream)
    assert submitted[0].prompt.context_ids == submitted[1].prompt.context_ids
    assert text == expected


@pytest.mark.parametrize("name", _HOLES)
def test_sentinels_in_code_are_text(
    http: httpx2.Client, engine: Engine, submitted: list[EngineRequest], name: str
) -> None:
    evil = "".join(SENTINELS) + "<|endoftext|>"
    _HOLES[name].ask(http, f"x = '{evil}'\ny = ", f"\nz = '{evil}'\n", 4)
    (request,) = submitted
    assert _num_special(engine, request) == 3


@pytest.mark.parametrize("name", RAW)
def test_sentinels_in_a_prompt_alone_are_what_they_say(
    http: httpx2.Client, engine: Engine, submitted: list[EngineRequest], name: str
) -> None:
    RAW[name].ask(http, f"{SUFFIX}b{PREFIX}a{MIDDLE}", "", 4, stream=name == "tgi-stream")
    assert _num_special(engine, submitted[0]) == 3


@pytest.mark.parametrize("name", ALL)
def test_nothing_around_the_cursor_is_a_hole_and_no_prompt(http: httpx2.Client, name: str) -> None:
    ask = ALL[name]
    reply = http.post(ask.path, json=ask.body("", "", 4))
    is_well = name.startswith("hole-") or name == "raw-ollama"  # Ollama: it is to be loaded
    assert reply.status_code == (200 if is_well else 422 if "tgi" in name else 400), reply.text
    assert is_well or "empty" in reply.text


@pytest.mark.parametrize("name", ALL)
def test_file_is_cut_where_it_is_far_too_large(http: httpx2.Client, name: str) -> None:
    line = "value = value + 1  # größe 你好 🙂\n"
    ask = ALL[name]
    text = line * (3_000_000 // len(line))
    reply = http.post(ask.path, json=ask.body(text, text, 4))
    # A prompt alone is read as it is, and what is far too long is refused unread.
    is_hole = name.startswith("hole-")
    assert reply.status_code == (200 if is_hole else 422 if "tgi" in name else 400), reply.text


@pytest.mark.parametrize("name", HOLES)
def test_line_endings_of_the_file_come_back(http: httpx2.Client, name: str) -> None:
    prefix = "import this\r\n\r\ndef add(a, b):\r\n"
    text = HOLES[name].ask(http, prefix, "\r\nprint(1)\r\n", 100)
    assert text.replace("\r\n", "").count("\n") == 0

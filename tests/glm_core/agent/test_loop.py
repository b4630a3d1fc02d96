"""The loop: on tiny chat models that write what a script says, and on a scripted server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from glm_core.agent import (
    Agent,
    Called,
    Ended,
    EndReason,
    Event,
    Observed,
    OpenAITalker,
    ToolRegistry,
    Wrote,
)
from glm_core.agent.talkers import WantedCall
from glm_core.chat import ChatSession, Message, Role, Tool, ToolCall, chat_format
from glm_core.infer import SamplingConfig, TextGenerator

from ..chat.conftest import scripted  # noqa: F401  (a fixture)
from ..chat.tiny_chat import tiny_chat

Script = Callable[[list[int]], None]


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def long(size: int) -> str:
    """Writes much, or nothing."""
    return "x" * size


class Scripted:
    """A talker that asks for what a script says."""

    def __init__(self, *answers: str | list[WantedCall]) -> None:
        self.calls: Sequence[WantedCall] = ()
        self.is_cut = False
        self.heard: list[Any] = []
        self._answers = list(answers)

    def ask(self, text: str, tools: Sequence[Tool]) -> Iterator[str]:
        self.heard.append(text)
        return self._next()

    def observe(self, results: Sequence[str], tools: Sequence[Tool]) -> Iterator[str]:
        self.heard.append((list(results), len(tools)))
        return self._next()

    def _next(self) -> Iterator[str]:
        answer = self._answers.pop(0)
        self.calls = [] if isinstance(answer, str) else answer
        yield answer if isinstance(answer, str) else ""


def _wanted(name: str, **arguments: Any) -> list[WantedCall]:
    return [WantedCall(ToolCall(name, arguments))]


def _run(agent: Agent, text: str = "?") -> tuple[list[Event], Ended]:
    events = list(agent.run(text))
    assert isinstance(events[-1], Ended)
    return events, events[-1]


def test_result_is_observed_and_the_answer_ends_it() -> None:
    talker = Scripted(_wanted("add", a=2, b=3), "It is 5.")
    events, end = _run(Agent(talker, ToolRegistry([add])))
    assert [type(event) for event in events] == [Called, Observed, Wrote, Ended]
    assert talker.heard == ["?", (["5"], 1)]
    assert end == Ended(EndReason.answer, 1, "It is 5.")


def test_model_answers_without_tools_when_its_rounds_are_over() -> None:
    talker = Scripted(*[_wanted("add", a=1, b=1)] * 5, "Enough.")
    _, end = _run(Agent(talker, ToolRegistry([add])))
    assert [heard[1] for heard in talker.heard[1:]] == [1, 1, 1, 1, 0]
    assert end == Ended(EndReason.rounds, 5, "Enough.")
    stubborn = Scripted(*[_wanted("add", a=1, b=1)] * 9)
    events, end = _run(Agent(stubborn, ToolRegistry([add]), max_rounds=2))
    assert sum(isinstance(event, Called) for event in events) == 2
    assert end.reason == EndReason.rounds


@pytest.mark.parametrize(
    ("size", "heard"),
    [(1024, "x" * 1024), (1025, "x" * 1024 + " [TRUNCATED]"), (0, "(no output)")],
)
def test_observation_is_cut_at_its_limit(size: int, heard: str) -> None:
    talker = Scripted(_wanted("long", size=size), "ok")
    events, _ = _run(Agent(talker, ToolRegistry([long])))
    assert talker.heard[1] == ([heard], 1)
    (observed,) = [event for event in events if isinstance(event, Observed)]
    assert observed.observation.text == "x" * size


def test_model_is_told_what_is_wrong_with_its_calls() -> None:
    wrong = [*_wanted("shell"), *_wanted("add", a="x"), WantedCall(ToolCall("add", {}), "no JSON")]
    talker = Scripted(wrong, "ok")
    _run(Agent(talker, ToolRegistry([add])))
    results, _ = talker.heard[1]
    assert results[0] == "Error: there is no tool shell. Tools: add"
    assert results[1].startswith("Error: the arguments of add are wrong: ")
    assert results[2] == "Error: no JSON. Tools: add"


def test_call_is_not_made_when_the_user_refuses_it() -> None:
    talker = Scripted(_wanted("add", a=1, b=1), "ok")
    _run(Agent(talker, ToolRegistry([add]), confirm=lambda call: call.name != "add"))
    assert talker.heard[1][0] == ["Error: the user refused this call"]


def test_limit_is_refused_when_it_is_not_positive() -> None:
    with pytest.raises(ValueError, match="max_rounds is 0: it must be at least 1"):
        Agent(Scripted(), ToolRegistry(), max_rounds=0)


def _session(generator: TextGenerator) -> ChatSession:
    return ChatSession(generator, sampling=SamplingConfig(max_new_tokens=90))


def _ids(generator: TextGenerator, *segments: str, end: str) -> list[int]:
    """Tokens of an answer's messages, and the one that ends it."""
    tokenizer = generator.tokenizer
    ids: list[int] = []
    for index, segment in enumerate(segments):
        ids += [tokenizer.token_id("<|assistant|>")] if index else []
        ids += tokenizer.encode(segment)
    return [*ids, tokenizer.token_id(end)]


CALLS = {
    "chatglm3": "add\n```python\ntool_call(a={}, b=3)\n```",
    "glm4": 'add\n{{"a": {}, "b": 3}}',
}


@pytest.mark.parametrize("kind", ["chatglm3", "glm4"])
def test_session_calls_twice_in_one_answer(
    tmp_path: Path,
    scripted: Script,  # noqa: F811
    kind: str,
) -> None:
    generator = tiny_chat(kind, tmp_path, max_position_embeddings=4096)
    calls = [CALLS[kind].format(a) for a in (2, 7)]
    scripted(_ids(generator, *calls, end="<|observation|>"))
    scripted(_ids(generator, "\n5 and 10", end="<|user|>"))
    session = _session(generator)
    events, end = _run(Agent(session, ToolRegistry([add])), "2+3?")
    assert end == Ended(EndReason.answer, 1, "5 and 10")
    assert [event.observation.text for event in events if isinstance(event, Observed)] == [
        "5",
        "10",
    ]
    form = chat_format(kind)
    assert session.messages == [
        Message(Role.user, "2+3?"),
        form.write_call(ToolCall("add", {"a": 2, "b": 3})),
        Message(Role.observation, "5"),
        form.write_call(ToolCall("add", {"a": 7, "b": 3})),
        Message(Role.observation, "10"),
        Message(Role.assistant, "5 and 10"),
    ]
    assert list(session.tools) == []


@pytest.mark.parametrize("kind", ["chatglm3", "glm4"])
def test_session_reads_what_is_wrong_when_its_call_cannot_be_read(
    tmp_path: Path,
    scripted: Script,  # noqa: F811
    kind: str,
) -> None:
    generator = tiny_chat(kind, tmp_path, max_position_embeddings=4096)
    scripted(_ids(generator, "shell\nls", end="<|observation|>"))
    scripted(_ids(generator, CALLS[kind].format("f()"), end="<|observation|>"))
    scripted(_ids(generator, "\nSorry", end="<|user|>"))
    events, end = _run(Agent(_session(generator), ToolRegistry([add])))
    assert (end.num_rounds, end.text) == (2, "Sorry")
    texts = [event.observation.text for event in events if isinstance(event, Observed)]
    assert texts[0] == "Error: the model calls shell, which is none of its tools. Tools: add"
    assert texts[1].startswith("Error: the argument")


class Server(BaseHTTPRequestHandler):
    """Streams the next of its answers, and remembers the requests."""

    answers: list[list[dict[str, Any]]] = []
    requests: list[dict[str, Any]] = []

    def do_POST(self) -> None:
        self.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if not self.answers:
            self.send_error(503)
            return
        self.send_response(200)
        self.end_headers()
        for delta in self.answers.pop(0):
            reason = delta.pop("reason", None)
            event = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Server.answers, Server.requests = [], []
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def _delta(index: int, **function: str) -> dict[str, Any]:
    call: dict[str, Any] = {"index": index, "function": function}
    return {
        "tool_calls": [
            call | ({"id": f"c{index}", "type": "function"} if "name" in function else {})
        ]
    }


def test_agent_talks_with_a_server(url: str) -> None:
    Server.answers += [
        [
            {"role": "assistant", "content": "Let me see."},
            _delta(0, name="add", arguments=""),
            _delta(0, arguments='{"a": 2,'),
            _delta(0, arguments=' "b": 3}'),
            _delta(1, name="add", arguments="{bad"),
            {"reason": "tool_calls"},
        ],
        [{"content": "It is "}, {"content": "5."}, {"reason": "stop"}],
    ]
    talker = OpenAITalker(url, "m", system="Be brief.", options={"temperature": 0})
    events, end = _run(Agent(talker, ToolRegistry([add]), max_rounds=1))
    assert end == Ended(EndReason.rounds, 1, "It is 5.")
    texts = [event.observation.text for event in events if isinstance(event, Observed)]
    assert texts[0] == "5" and texts[1].startswith("Error: the arguments are not JSON")
    first, second = Server.requests
    assert first["tools"][0]["function"]["name"] == "add"
    assert (first["tool_choice"], second["tool_choice"]) == ("auto", "none")
    assert [m["role"] for m in second["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    assert [m.get("tool_call_id") for m in second["messages"][3:]] == ["c0", "c1"]
    assert talker.messages[-1] == {"role": "assistant", "content": "It is 5."}


def test_error_of_the_server_is_told(url: str) -> None:
    with pytest.raises(RuntimeError, match="/v1/chat/completions answers 503"):
        _run(Agent(OpenAITalker(url, "m"), ToolRegistry([add])))

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from glm_core.agent import Called, Ended, EndReason, Image, Observation, Observed, Wrote
from glm_core.agent.executor import SandboxUnavailable, executor
from glm_core.agent.talkers import WantedCall
from glm_core.chat.message import Tool, ToolCall
from glm_core.serve.documents import Passage
from glm_core.serve.errors import ApiError
from glm_core.serve.from_thread import from_thread
from glm_core.serve.interpreters import Interpreters
from glm_core.serve.workbench import MAX_READERS, Workbench, event_data

from .conftest import Running

SESSION = "conversation-1"


def ask(server: Running, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{server.url}/workbench/{path}", json=body, timeout=30)


def question(text: str = "hi", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "org/tiny", "messages": messages, "session": SESSION} | fields


def test_nothing_but_documents_is_offered_when_no_tool_was_given(server: Running) -> None:
    told = httpx2.get(f"{server.url}/workbench").json()
    assert told["code_interpreter"] is False
    assert told["tools"] == []
    assert {".txt", ".md", ".pdf"} <= set(told["documents"])


def test_passages_come_back_when_a_document_is_sent(server: Running) -> None:
    answer = httpx2.post(
        f"{server.url}/workbench/documents",
        params={"name": "päge.md"},
        content="one\n\n" + "two " * 150,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert [one["text"][:3] for one in answer.json()["passages"]][0] == "one"


def test_few_documents_are_read_at_a_time_when_many_are_sent(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def read(name: str, content: bytes) -> list[Passage]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return [Passage(name, 0)]

    monkeypatch.setattr("glm_core.serve.workbench.read_document", read)

    def send(index: int) -> int:
        url = f"{server.url}/workbench/documents?name={index}.txt"
        headers = {"Content-Type": "application/octet-stream"}
        return httpx2.post(url, content=b"x", headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(8))) == {200}
    assert most == MAX_READERS


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
def test_document_is_refused_when_any_page_could_have_sent_it(server: Running, kind: str) -> None:
    """A form of another site may send these kinds without asking the server first."""
    url = f"{server.url}/workbench/documents?name=a.txt"
    answer = httpx2.post(url, content=b"text", headers={"Content-Type": kind})
    assert answer.status_code == 415


def test_agent_is_refused_when_any_page_could_have_sent_it(server: Running) -> None:
    url = f"{server.url}/workbench/agent"
    content = json.dumps(question()).encode()
    answer = httpx2.post(url, content=content, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_reason_is_told_when_a_document_cannot_be_read(server: Running) -> None:
    answer = httpx2.post(
        f"{server.url}/workbench/documents?name=a.exe",
        content=b"MZ",
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == 400
    assert "cannot be read" in answer.json()["error"]["message"]


def test_best_passages_come_first_when_a_question_names_them(server: Running) -> None:
    passages = [f"nothing {number}" for number in range(20)] + ["the okapi sleeps"]
    best = ask(server, "passages", question="Where does an okapi sleep?", passages=passages)
    assert best.json()["best"][0] == {"index": 20}
    first = ask(server, "passages", question="?", passages=passages).json()["best"]
    assert [one["index"] for one in first] == list(range(8))
    assert ask(server, "passages", question="?", passages=[]).json() == {"best": []}


def test_events_are_streamed_when_an_agent_answers(server: Running) -> None:
    answer = ask(server, "agent", **question(options={"max_tokens": 4, "seed": 1}))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done = [line[6:] for line in answer.text.splitlines() if line]
    assert done == "[DONE]"
    kinds = [json.loads(one)["type"] for one in events]
    assert set(kinds[:-1]) <= {"text"} and kinds[-1] == "end"


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"model": "none"}, 404, "there is no model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "must end with a text"),
        ({"messages": [{"role": "user", "content": [{}]}]}, 400, "must end with a text"),
        ({"options": {"stream": False}}, 400, "holds 'stream'"),
        ({"options": {"temperature": 9}}, 400, "temperature"),
        ({"options": {"nonsense": 9}}, 400, "nonsense"),
        ({"session": "short"}, 400, "session"),
        ({"other": 1}, 400, "other"),
        ({"messages": [{"role": "user", "content": "long " * 9000}]}, 400, "context"),
    ],
)
def test_error_of_the_model_is_passed_on_when_a_request_is_wrong(
    server: Running, fields: dict[str, Any], status: int, told: str
) -> None:
    answer = ask(server, "agent", **question(**fields))
    assert answer.status_code == status
    assert told in answer.json()["error"]["message"]


class OneCall:
    """Stands for the model: asks for code to be run, then says what came of it."""

    def __init__(self, code: str) -> None:
        self.calls: list[WantedCall] = []
        self.is_cut = False
        self._code = code

    def ask(self, text: str, tools: Sequence[Tool]) -> Iterator[str]:
        self.calls = [WantedCall(ToolCall("python", {}, self._code, "c1"))]
        yield "I run it."

    def observe(self, results: Sequence[str], tools: Sequence[Tool]) -> Iterator[str]:
        self.calls = []
        yield f"It says {results[0]}"


@pytest.fixture(scope="module")
def sandboxed() -> Iterator[Workbench]:
    try:
        executor().close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    workbench = Workbench(Interpreters(executor))
    yield workbench
    workbench.close()


def answer_of(workbench: Workbench, code: str, session: str = "s") -> str:
    *_, end = workbench.run(OneCall(code), "?", session, "python")
    assert isinstance(end, Ended)
    return end.text


def test_variables_stay_in_their_conversation_when_code_is_run(sandboxed: Workbench) -> None:
    assert answer_of(sandboxed, "x = 20 + 1; x") == "It says 21"
    assert answer_of(sandboxed, "x * 2") == "It says 42"
    assert "NameError" in answer_of(sandboxed, "x", "another")


def test_code_is_stopped_when_the_page_is_left(sandboxed: Workbench) -> None:
    async def leave() -> None:
        talker = OneCall("while True: pass")
        events = from_thread(
            lambda: sandboxed.run(talker, "?", "s", "python"),
            lambda: sandboxed.interrupt("s"),
        )
        async for one in events:
            if isinstance(one, Called):
                break
        await events.aclose()

    asyncio.run(leave())
    assert wait_for(lambda: answer_of(sandboxed, "x") == "It says 21")  # it is free again


def wait_for(is_so: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return is_so()
        except ApiError:  # the interpreter is still in use
            time.sleep(0.02)
    return False


def test_events_become_json_when_the_page_is_told() -> None:
    code = ToolCall("python", {}, "1 + 1", "c1")
    add = ToolCall("add", {"a": 1, "b": "ä"}, id="c2")
    image = Image("image/png", b"\x89PNG")
    assert event_data(Wrote("text")) == {"type": "text", "text": "text"}
    assert event_data(Called(code)) == {
        "type": "call",
        "id": "c1",
        "name": "python",
        "input": "1 + 1",
        "is_code": True,
    }
    told = event_data(Called(add))
    assert (told["input"], told["is_code"]) == ('{"a": 1, "b": "ä"}', False)
    assert event_data(Observed(code, Observation("[Image]", False, (image,)))) == {
        "type": "result",
        "id": "c1",
        "text": "[Image]",
        "is_error": False,
        "pictures": ["data:image/png;base64,iVBORw=="],
    }
    assert event_data(Ended(EndReason.cut, 2, "x")) == {"type": "end", "reason": "cut"}

"""What an editor sees: completions at real places of real files, over pipes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from codegeex.complete import Completer
from codegeex.hole import Hole, Mode
from codegeex.lsp.late import LateCompleter
from codegeex.lsp.server import CodeServer
from glm_core.infer.engine import Engine

from .client import Client, Message, at, inline, span
from .conftest import FILE, connected, until

INLINE = "textDocument/inlineCompletion"
TEXT = "def add(a, b):\n    return \n\n\nprint(add(1, 2))\n"
KNOWS_INLINE = {"textDocument": {"inlineCompletion": {}}}
Writes = Callable[..., None]


def texts(result: Message) -> list[str]:
    return [item["insertText"] for item in result["items"]]


def test_abilities_are_told_when_the_editor_begins(client: Client) -> None:
    told = client.initialize(KNOWS_INLINE)
    assert told["serverInfo"] == {"name": "codegeex", "version": "0"}
    abilities = told["capabilities"]
    assert abilities["inlineCompletionProvider"] == {}
    assert abilities["textDocumentSync"]["openClose"] is True
    assert abilities["textDocumentSync"]["change"] == 2
    assert abilities["positionEncoding"] == "utf-16"
    assert "completionProvider" not in abilities
    assert "executeCommandProvider" not in abilities


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["utf-8", "utf-16"], "utf-8"),
        (["utf-32"], "utf-32"),
        (["utf-7"], "utf-16"),
        (None, "utf-16"),
    ],
)
def test_encoding_is_the_editors_first_choice(
    client: Client, writes: Writes, holes: list[Hole], offered: list[str] | None, chosen: str
) -> None:
    writes("a + b")
    told = client.initialize({"general": {"positionEncodings": offered}} if offered else {})
    assert told["capabilities"]["positionEncoding"] == chosen
    client.open(FILE, "x = '🙂' + \n")
    column = {"utf-8": 13, "utf-16": 11, "utf-32": 10}[chosen]
    item = client.request(INLINE, inline(FILE, 0, column))["items"][0]
    assert holes[0].prefix == "x = '🙂' + "
    assert item["range"] == span((0, column), (0, column))


def test_completion_is_asked_for_at_the_cursor(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("a + b")
    client.initialize(KNOWS_INLINE, rootUri="file:///src/project")
    client.open(FILE, TEXT)
    result = client.request(INLINE, inline(FILE, 1, 11))
    assert result == {"items": [{"insertText": "a + b", "range": span((1, 11), (1, 11))}]}
    expected = Hole(
        prefix=TEXT[:26], suffix=TEXT[26:], path="module.py", language="python", mode=Mode.block
    )
    assert holes == [expected]


def test_candidates_are_several_when_one_asks_by_hand(client: Client, writes: Writes) -> None:
    writes("a + b", "a - b", "a * b")
    client.initialize()
    client.open(FILE, TEXT)
    first, *others = texts(client.request(INLINE, inline(FILE, 1, 11, by_hand=True)))
    assert first == "a + b" and sorted(others) == ["a * b", "a - b"]


def test_candidates_that_say_nothing_or_the_same_are_left_out(
    client: Client, writes: Writes
) -> None:
    writes("a + b", "a + b", "  ")
    client.initialize()
    client.open(FILE, TEXT)
    assert texts(client.request(INLINE, inline(FILE, 1, 11, by_hand=True))) == ["a + b"]


def test_document_is_followed_when_it_changes(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("x")
    client.initialize()
    client.open(FILE, "a\x0cb\nc\n")
    client.change(
        FILE,
        {"range": span((0, 3), (1, 1)), "text": "\nz = "},
        {"range": span((1, 0), (1, 1)), "text": "y"},
    )
    client.request(INLINE, inline(FILE, 1, 4))
    assert (holes[0].prefix, holes[0].suffix) == ("a\x0cb\ny = ", "\n")


def test_request_sees_the_text_it_was_made_for_when_changes_follow_at_once(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("x")
    client.initialize()
    client.open(FILE, "a = ")
    number = client.begin(INLINE, inline(FILE, 0, 4))
    client.change(FILE, {"text": "all is other"})
    assert client.reply(number)["result"]["items"]
    assert holes[0].prefix == "a = "


def test_line_endings_are_the_files(client: Client, writes: Writes) -> None:
    writes("if a:\n        return b\n    return a")
    client.initialize()
    client.open(FILE, "def f(a, b):\r\n    \r\n")
    (text,) = texts(client.request(INLINE, inline(FILE, 1, 4)))
    assert text == "if a:\r\n        return b\r\n    return a"


def test_completion_goes_on_from_the_selected_one(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("(a, b)")
    client.initialize()
    client.open(FILE, "import os\nos.path.jo\n")
    selected = {"range": span((1, 8), (1, 10)), "text": "join"}
    result = client.request(INLINE, inline(FILE, 1, 10, selectedCompletionInfo=selected))
    assert result == {"items": [{"insertText": "join(a, b)", "range": span((1, 8), (1, 10))}]}
    assert (holes[0].prefix, holes[0].suffix) == ("import os\nos.path.join", "\n")


def test_nothing_is_offered_to_one_who_types_when_that_is_switched_off(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("a + b", "a")
    client.initialize(initializationOptions={"automatic": False})
    client.open(FILE, TEXT)
    assert client.request(INLINE, inline(FILE, 1, 11)) == {"items": []}
    assert holes == []
    assert client.request(INLINE, inline(FILE, 1, 11, by_hand=True))["items"]


def test_settings_change_while_the_editor_runs(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("a + b\n    return b\n    return a\n", "a")
    client.initialize(initializationOptions={"codegeex": {"maxLines": 2}})
    client.open(FILE, TEXT.replace("return ", ""))
    assert texts(client.request(INLINE, inline(FILE, 1, 4))) == ["a + b\n    return b"]
    by_hand = inline(FILE, 1, 4, by_hand=True)
    assert texts(client.request(INLINE, by_hand)) == ["a + b\n    return b", "a"]
    change = {"settings": {"codegeex": {"maxLines": 0, "mode": "line"}}}
    client.notify("workspace/didChangeConfiguration", change)
    assert texts(client.request(INLINE, inline(FILE, 1, 4))) == ["a + b"]
    assert holes[-1].mode is Mode.line


def test_settings_are_asked_for_when_the_editor_keeps_them(
    client: Client, writes: Writes, server: CodeServer
) -> None:
    client.initialize({"workspace": {"configuration": True}})
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    asked = client.wait(lambda one: one.get("method") == "workspace/configuration")
    assert asked["params"] == {"items": [{"section": "codegeex"}]}
    client.send({"jsonrpc": "2.0", "id": asked["id"], "result": [{"maxTokens": 5}]})
    until(lambda: server.settings.max_tokens == 5)


@pytest.mark.parametrize("at_the_start", [True, False])
def test_person_is_told_when_a_setting_is_wrong(client: Client, at_the_start: bool) -> None:
    wrong = {"maxTokens": "many"}
    client.initialize(initializationOptions=wrong if at_the_start else None)
    if not at_the_start:
        client.notify("workspace/didChangeConfiguration", {"settings": wrong})
    told = client.wait(lambda one: one.get("method") == "window/showMessage")["params"]
    assert told["type"] == 2
    assert "codegeex.maxTokens is 'many': it must be a whole number" in told["message"]
    assert "the settings stay as they were" in told["message"]


@pytest.mark.parametrize(
    ("capabilities", "wanted", "is_offered"),
    [
        ({}, "auto", True),
        (KNOWS_INLINE, "auto", False),
        (KNOWS_INLINE, "always", True),
        ({}, "never", False),
    ],
)
def test_list_is_offered_when_there_is_no_other_way_or_it_is_wished(
    client: Client, capabilities: Message, wanted: str, is_offered: bool
) -> None:
    told = client.initialize(capabilities, initializationOptions={"completionItems": wanted})
    assert ("completionProvider" in told["capabilities"]) is is_offered


def test_list_has_the_word_at_the_cursor_and_what_follows(client: Client, writes: Writes) -> None:
    writes("d(a, b):\n    return a + b")
    client.initialize()
    client.open(FILE, "'🙂'; def ad\n")
    params = {"textDocument": {"uri": FILE}, "position": at(0, 12)}
    result = client.request("textDocument/completion", params)
    assert result["isIncomplete"] is True
    (item,) = result["items"]
    assert item["label"] == "add(a, b): …" and item["filterText"] == "ad"
    assert item["textEdit"] == {
        "range": span((0, 10), (0, 12)),
        "newText": "add(a, b):\n    return a + b",
    }
    assert (item["insertTextFormat"], item["insertTextMode"]) == (1, 1)


@pytest.mark.parametrize(
    ("uri", "place", "message"),
    [
        ("file:///other.py", (0, 0), "file:///other.py is not open here: send textDocument/did"),
        (FILE, (9, 0), r"the position 9:0 is not in file:.*, which has 6 lines"),
    ],
)
def test_error_when_there_is_no_such_place(
    client: Client, uri: str, place: tuple[int, int], message: str
) -> None:
    client.initialize()
    client.open(FILE, TEXT)
    error = client.refusal(INLINE, inline(uri, *place))
    assert error["code"] == -32602 and re.search(message, error["message"])


def test_error_when_the_file_is_binary(client: Client) -> None:
    client.initialize()
    client.open(FILE, "a\0b")
    error = client.refusal(INLINE, inline(FILE, 0, 1))
    assert error["code"] == -32602 and "it is binary, not code" in error["message"]


def test_large_file_is_completed(client: Client, writes: Writes) -> None:
    writes("a + b")
    client.initialize()
    client.open(FILE, "x = 1\n" * 1_800_000 + "y = ")
    assert texts(client.request(INLINE, inline(FILE, 1_800_000, 4))) == ["a + b"]


def test_document_without_a_name_or_a_text_is_completed(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("import os")
    client.initialize()
    client.open("untitled:Untitled-1", "", language="python")
    assert texts(client.request(INLINE, inline("untitled:Untitled-1", 0, 0))) == ["import os"]
    assert (holes[0].path, holes[0].language) == ("", "python")


def test_path_begins_in_the_innermost_folder_of_the_workspace(
    client: Client, writes: Writes, holes: list[Hole]
) -> None:
    writes("x")
    folders = [{"uri": "file:///src", "name": "w"}, {"uri": "file:///src/project", "name": "p"}]
    client.initialize(workspaceFolders=folders)
    for uri in (FILE, "file:///src/project2/a.py", "file:///elsewhere/b.py"):
        client.open(uri, "y = ")
        client.request(INLINE, inline(uri, 0, 4))
    assert [hole.path for hole in holes] == ["module.py", "project2/a.py", "b.py"]
    change = {"event": {"added": [], "removed": folders[1:]}}
    client.notify("workspace/didChangeWorkspaceFolders", change)
    client.request(INLINE, inline(FILE, 0, 4))
    assert holes[-1].path == "project/module.py"


class Slow:
    """An engine whose steps take a while."""

    STEP_S = 0.02

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        self.dropped_at: list[int] = []
        step, drop = engine._scheduler.step, engine._drop

        def slowly() -> None:
            time.sleep(self.STEP_S)
            step()

        def noted(work: Any) -> None:
            self.dropped_at.append(self.steps)
            drop(work)

        monkeypatch.setattr(engine._scheduler, "step", slowly)
        monkeypatch.setattr(engine, "_drop", noted)

    @property
    def steps(self) -> int:
        return self.engine.stats().counters["steps"]

    @property
    def running(self) -> int:
        return self.engine.stats().running


@pytest.fixture
def slow(engine: Engine, monkeypatch: pytest.MonkeyPatch, writes: Writes) -> Slow:
    writes("a" * 200, "b" * 200)
    return Slow(engine, monkeypatch)


@pytest.mark.parametrize("by_hand", [False, True])
def test_place_in_the_engine_is_free_in_one_step_when_a_request_is_cancelled(
    client: Client, slow: Slow, by_hand: bool
) -> None:
    client.initialize()
    client.open(FILE, TEXT)
    number = client.begin(INLINE, inline(FILE, 1, 11, by_hand=by_hand))
    until(lambda: slow.running > 0)
    client.notify("$/cancelRequest", {"id": number})
    assert client.reply(number)["error"]["code"] == -32800
    until(lambda: slow.running == 0)
    assert slow.dropped_at and slow.steps <= slow.dropped_at[0] + 1


def test_newest_request_for_a_document_wins(client: Client, slow: Slow) -> None:
    client.initialize(initializationOptions={"maxTokens": 4})
    client.open(FILE, TEXT)
    client.open("file:///src/project/other.py", TEXT)
    numbers = [
        client.begin(INLINE, inline(FILE, 1, 11)),
        client.begin(INLINE, inline("file:///src/project/other.py", 1, 11)),
        client.begin(INLINE, inline(FILE, 0, 0)),
    ]
    first, other, last = (client.reply(number)["result"]["items"] for number in numbers)
    assert first == [] and len(other) == 1 and len(last) == 1


def test_engine_stops_after_the_lines_that_are_wanted(
    client: Client, engine: Engine, writes: Writes
) -> None:
    writes("".join(f"name{n} = {n * n}\n    " for n in range(12)))
    client.initialize(initializationOptions={"maxLines": 2, "maxTokens": 200})
    client.open(FILE, "def f():\n    \n")
    assert texts(client.request(INLINE, inline(FILE, 1, 4))) == ["name0 = 0\n    name1 = 1"]
    few = engine.stats().counters["steps"]
    client.notify("workspace/didChangeConfiguration", {"settings": {"maxLines": 0}})
    (text,) = texts(client.request(INLINE, inline(FILE, 1, 4)))
    assert text.count("\n") == 11
    assert few < (engine.stats().counters["steps"] - few) / 2


def test_messages_are_answered_while_the_model_is_loaded(
    completer: Completer, writes: Writes
) -> None:
    """Nothing waits for it but completions, and those come as soon as it is there."""
    may_end = threading.Event()

    def load() -> Completer:
        assert may_end.wait(20)
        return completer

    writes("a + b")
    with connected(LateCompleter(load, "tiny-code")) as client:
        client.initialize()
        client.open(FILE, TEXT)
        number = client.begin(INLINE, inline(FILE, 1, 11))
        given_up = client.begin(INLINE, inline(FILE, 1, 11))
        client.notify("$/cancelRequest", {"id": given_up})
        assert client.reply(given_up)["error"]["code"] == -32800
        assert client.refusal("no/suchMethod")["code"] == -32601
        may_end.set()
        assert texts(client.reply(number)["result"]) == ["a + b"]


def test_loading_is_shown_when_the_editor_can(model: LateCompleter) -> None:
    with connected(model) as client:
        client.initialize({"window": {"workDoneProgress": True}})
        created = client.wait(lambda one: one.get("method") == "window/workDoneProgress/create")
        client.send({"jsonrpc": "2.0", "id": created["id"], "result": None})
        for kind in ("begin", "end"):
            told = client.wait(lambda one: one.get("method") == "$/progress")["params"]
            assert told["token"] == created["params"]["token"]
            assert told["value"]["kind"] == kind


@pytest.mark.parametrize("answers", [True, False])
def test_model_is_loaded_when_the_editor_shows_no_progress_after_all(
    model: LateCompleter, writes: Writes, answers: bool
) -> None:
    writes("a + b")
    with connected(model) as client:
        client.initialize({"window": {"workDoneProgress": True}})
        created = client.wait(lambda one: one.get("method") == "window/workDoneProgress/create")
        if answers:
            error = {"code": -32603, "message": "no"}
            client.send({"jsonrpc": "2.0", "id": created["id"], "error": error})
        client.open(FILE, TEXT)
        assert texts(client.request(INLINE, inline(FILE, 1, 11))) == ["a + b"]


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_person_is_told_when_the_model_cannot_be_loaded(kind: type[Exception]) -> None:
    def load() -> Completer:
        raise kind("there is no folder x")

    with connected(LateCompleter(load, "tiny-code")) as client:
        client.initialize()
        told = client.wait(lambda one: one.get("method") == "window/showMessage")["params"]
        assert told["type"] == 1
        assert "tiny-code cannot be loaded: there is no folder x" in told["message"]
        client.open(FILE, TEXT)
        error = client.refusal(INLINE, inline(FILE, 1, 11))
        assert (error["code"], error["message"]) == (
            -32803,
            "tiny-code cannot be loaded: there is no folder x",
        )

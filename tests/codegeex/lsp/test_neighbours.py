"""Other files of the workspace as context, the open ones as they are in the editor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codegeex.complete.context import RepositoryContext
from codegeex.hole import Hole
from codegeex.lsp import neighbours

from .client import Client, inline, span

INLINE = "textDocument/inlineCompletion"
STORED = "def area_of_circle(radius):\n    return radius * radius * 3.14159\n"
ASKS = "from shapes import area_of_circle\n\nradius = 2\nprint(area_of_circle(radius))\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its files have been read when they are asked for."""
    (tmp_path / "shapes.py").write_text(STORED)
    (tmp_path / "main.py").write_text("")

    class Read(RepositoryContext):
        def start(self) -> None:
            self.refresh()

    monkeypatch.setattr(neighbours, "RepositoryContext", Read)
    return tmp_path


@pytest.fixture
def asked(
    client: Client, holes: list[Hole], writes: Callable[..., None], project: Path
) -> Callable[..., str]:
    """Returns a function that asks for a completion and returns what was told of other files."""
    writes("x")

    def ask(line: int = 3, **settings: Any) -> str:
        if not holes:
            client.initialize(rootUri=project.as_uri(), initializationOptions=settings)
            client.open((project / "main.py").as_uri(), ASKS * 20)
        client.request(INLINE, inline((project / "main.py").as_uri(), line, 0))
        return "\n".join(f"{one.path}: {one.text}" for one in holes[-1].references)

    return ask


def change(client: Client, path: Path, text: str) -> None:
    client.change(path.as_uri(), {"range": span((0, 0), (0, 0)), "text": text})


def test_stored_files_of_the_workspace_are_told(asked: Callable[..., str]) -> None:
    assert "shapes.py: " in asked() and "radius * 3.14159" in asked()


def test_open_files_are_told_as_they_are_in_the_editor(
    client: Client, asked: Callable[..., str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_FRESH_S", 0.0)
    asked()
    shapes = project / "shapes.py"
    client.open(shapes.as_uri(), STORED)
    change(client, shapes, "def radius_of_circle(area_of_circle): ...\n")
    assert "def radius_of_circle" in asked()
    client.notify("textDocument/didClose", {"textDocument": {"uri": shapes.as_uri()}})
    told = asked()
    assert "def radius_of_circle" not in told and "def area_of_circle" in told


def test_context_stays_while_somebody_types_at_one_place(
    client: Client, asked: Callable[..., str], project: Path
) -> None:
    """The prompt begins with it, and need not be read again."""
    first = asked(line=3)
    change(client, project / "main.py", "# shapes circles\n")
    (project / "shapes.py").write_text("# area_of_circle radius\n" + STORED)
    assert asked(line=5) == first
    assert asked(line=40) != first


def test_context_is_left_out_when_that_is_wished(asked: Callable[..., str]) -> None:
    assert asked(context=False) == ""


@pytest.mark.parametrize("root", [None, "file:///", "file:///no/such/folder"])
def test_context_is_left_out_when_there_is_no_project(
    client: Client, holes: list[Hole], writes: Callable[..., None], root: str | None
) -> None:
    writes("x")
    client.initialize(rootUri=root)
    uri = "file:///no/such/folder/main.py"
    client.open(uri, ASKS)
    client.request(INLINE, inline(uri, 3, 0))
    assert holes[-1].references == ()


def test_older_question_asks_no_more_when_its_context_comes_late(
    client: Client,
    asked: Callable[..., str],
    holes: list[Hole],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked()
    found: list[None] = []
    find = neighbours.Neighbours._find

    def slow(*args: Any) -> Any:
        found.append(None)
        time.sleep(0.5 if len(found) == 1 else 0.0)
        return find(*args)

    monkeypatch.setattr(neighbours, "_FRESH_S", 0.0)
    monkeypatch.setattr(neighbours.Neighbours, "_find", slow)
    before, uri = len(holes), (project / "main.py").as_uri()
    numbers = [client.begin(INLINE, inline(uri, line, 0)) for line in (3, 7)]
    older, newer = (client.reply(number)["result"]["items"] for number in numbers)
    assert older == [] and newer and len(holes) == before + 1

"""The real command, over its real standard input and output."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codegeex.lsp.stdio import read_message
from codegeex.testing import tiny_code_model
from glm_core.checkpoint.pretrained import save_pretrained

from .client import Client, framed, inline
from .conftest import FILE

INLINE = "textDocument/inlineCompletion"
TEXT = "def area(radius):\n    return \n"


@pytest.mark.parametrize(
    ("data", "bodies"),
    [
        (b"Content-Length: 2\r\n\r\n{}Content-Length: 1\r\n\r\n5", [b"{}", b"5"]),
        (b"Content-Type: x; charset=utf-8\r\ncontent-length:  2 \r\n\r\n{}", [b"{}"]),
        (b"Content-Length: 2\n\n{}", [b"{}"]),
        (
            b"Content-Length: two\r\n\r\nContent-Length: -1\r\n\r\nContent-Length: 1\r\n\r\n5",
            [b"5"],
        ),
        (b"\xff\xff\r\n\r\nContent-Length: 1\r\n\r\n5", [b"5"]),
        (b"Content-Length: 0\r\n\r\nContent-Length: 1\r\n\r\n5", [b"", b"5"]),
        (b"Content-Length: 9\r\n\r\n{}", []),
        (b"Content-Length: 9", []),
        (b"", []),
    ],
)
def test_messages_are_read_when_headers_are_of_any_kind(data: bytes, bodies: list[bytes]) -> None:
    stream = io.BytesIO(data)
    assert list(iter(lambda: read_message(stream), None)) == bodies


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "tiny-code"
    save_pretrained(*tiny_code_model(), made)
    return made


class Started:
    """The command, as an editor starts it."""

    def __init__(self, model: Path, log: Path) -> None:
        self._log = log
        command = "import sys; from codegeex.cli import main; sys.exit(main())"
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, "lsp", "--model", str(model)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.client = Client(self.process.stdin, self.process.stdout)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def status(self) -> int:
        return self.process.wait(60)


@pytest.fixture
def editor(folder: Path, tmp_path: Path) -> Iterator[Started]:
    made = Started(folder, tmp_path / "log")
    yield made
    made.process.kill()
    made.status()


def test_editor_gets_completions_and_takes_its_leave(editor: Started) -> None:
    client = editor.client
    client.initialize()
    assert "is loaded" not in editor.log
    client.open(FILE, TEXT)
    (item,) = client.request(INLINE, inline(FILE, 1, 11))["items"]
    assert item["insertText"].strip()
    assert client.request(INLINE, inline(FILE, 1, 11))["items"] == [item]
    by_hand = client.request(INLINE, inline(FILE, 1, 11, by_hand=True))["items"]
    assert by_hand[0] == item and len(by_hand) == 3
    number = client.begin(INLINE, inline(FILE, 1, 11))
    client.notify("$/cancelRequest", {"id": number})
    assert client.reply(number)["error"]["code"] == -32800
    assert client.refusal(INLINE, inline("file:///none.py", 0, 0))["code"] == -32602
    assert client.refusal(INLINE, inline(FILE, 99, 0))["code"] == -32602
    client.write(b"\xff\x00\r\n\r\n")
    client.write(framed(b"{"))
    assert client.wait(lambda one: "error" in one)["error"]["code"] == -32700
    assert client.request(INLINE, inline(FILE, 1, 11))["items"] == [item]
    client.end()
    assert editor.status() == 0
    assert client.received == []
    assert "tiny-code is ready" in editor.log and "Traceback" not in editor.log


def test_command_ends_when_the_editor_is_gone(editor: Started) -> None:
    """It does while the model is still being loaded, too."""
    editor.client.initialize()
    assert editor.process.stdin is not None
    editor.process.stdin.close()
    assert editor.status() == 1
    assert "the editor is gone" in editor.log and "rror" not in editor.log

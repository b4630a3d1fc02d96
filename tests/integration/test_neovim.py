"""A real editor: Neovim, with the client of docs/guides/editors.md, against `codegeex lsp`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codegeex.testing import tiny_code_model
from glm_core.checkpoint.pretrained import save_pretrained

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "editors.md"
COMMAND = 'local cmd = { "codegeex", "lsp", "--model", "nano-code" }'
RUN = "import sys; from codegeex.cli import main; sys.exit(main())"
TEXT = "def area(radius):\n    return \n\n\nprint(area(2))\n"

pytestmark = pytest.mark.skipif(shutil.which("nvim") is None, reason="Neovim is not installed")


class Neovim:
    """An editor without a screen, driven by its keys."""

    def __init__(self, init: Path, file: Path, socket: Path) -> None:
        self._server = ["nvim", "--server", str(socket)]
        self._process = subprocess.Popen(
            ["nvim", "--headless", "--clean", "-u", str(init), "--listen", str(socket), str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.until(socket.exists, 20)

    def press(self, keys: str) -> None:
        subprocess.run([*self._server, "--remote-send", keys], check=True, timeout=20)

    def value(self, lua: str) -> object:
        """Returns what an expression in Lua is."""
        asked = f"luaeval('vim.fn.json_encode({lua})')"
        done = subprocess.run(
            [*self._server, "--remote-expr", asked], capture_output=True, check=True, timeout=20
        )
        return json.loads(done.stdout or done.stderr)

    @property
    def hint(self) -> list[str]:
        """The lines that are shown and not in the file."""
        marks = self.value(
            'vim.api.nvim_buf_get_extmarks(0, vim.api.nvim_create_namespace("codegeex"), '
            "0, -1, {details = true})"
        )
        lines: list[str] = []
        for *_, details in marks:
            lines = [details["virt_text"][0][0]]
            lines += [line[0][0] for line in details.get("virt_lines", [])]
        return lines

    @property
    def lines(self) -> list[str]:
        return self.value("vim.api.nvim_buf_get_lines(0, 0, -1, false)")

    def until(self, is_so, patience_s: float = 120) -> None:
        deadline = time.monotonic() + patience_s
        while not is_so():
            assert time.monotonic() < deadline and self._process.poll() is None
            time.sleep(0.1)

    def quit(self) -> None:
        self.press("<Esc>:qa!<CR>")
        self._process.wait(20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def neovim(tmp_path: Path) -> Iterator[Neovim]:
    save_pretrained(*tiny_code_model(), tmp_path / "tiny-code")
    (found,) = [
        block
        for block in re.findall(r"```lua\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
        if COMMAND in block
    ]
    words = [sys.executable, "-c", RUN, "lsp", "--model", str(tmp_path / "tiny-code")]
    quoted = ", ".join(json.dumps(word) for word in words)
    (tmp_path / "init.lua").write_text(found.replace(COMMAND, f"local cmd = {{ {quoted} }}"))
    (tmp_path / "module.py").write_text(TEXT)
    editor = Neovim(tmp_path / "init.lua", tmp_path / "module.py", tmp_path / "socket")
    yield editor
    editor.kill()


def test_editor_shows_a_completion_and_takes_it_over(neovim: Neovim) -> None:
    neovim.until(lambda: neovim.value("vim.tbl_count(vim.lsp.buf_get_clients(0))") == 1)
    neovim.press("2GAr")
    neovim.until(lambda: bool(neovim.hint))
    hint = neovim.hint
    assert hint[0] and neovim.lines == TEXT.replace("return ", "return r").splitlines()
    neovim.press("<Tab>")
    before, after = ["def area(radius):"], ["", "", "print(area(2))"]
    neovim.until(lambda: neovim.lines[1] != "    return r", 20)
    assert neovim.lines == [*before, "    return r" + hint[0], *hint[1:], *after]
    line, column = neovim.value("vim.api.nvim_win_get_cursor(0)")
    assert line == 1 + len(hint) and column == len(neovim.lines[line - 1].encode())
    neovim.quit()

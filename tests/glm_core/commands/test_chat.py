"""``glm chat`` on tiny random models, from a pipe and on a terminal."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core import cli
from glm_core.chat import chat_format
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.commands import chat
from glm_core.commands.chat_terminal import printable
from glm_core.commands.model_arguments import NamedModel
from glm_core.infer import SamplingConfig
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler

from ..chat.tiny_chat import KINDS, tiny_chat

GetFolder = Callable[[str], str]
TOOL = {"name": "get_weather", "description": "x", "parameters": {}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> GetFolder:
    """Returns a function that gives the saved tiny model of a kind."""
    root = tmp_path_factory.mktemp("chat")

    def folder(kind: str) -> str:
        if not (root / kind).exists():
            folder = root / f"{kind}-tokenizer"
            generator = tiny_chat(kind, folder, max_position_embeddings=1024)
            save_pretrained(generator.model, generator.tokenizer, root / kind)
        return str(root / kind)

    return folder


@pytest.fixture
def run(
    folders: GetFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Returns a function that pipes lines into the command: status, stdout, stderr."""

    def run_chat(kind: str, lines: str, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        argv = ["chat", "--model", folders(kind) if kind in KINDS else kind]
        status = cli.main([*argv, "--seed", "1", "--max-new-tokens", "8", *flags])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_chat


def _flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    return parser.parse_args(["--model", "x", *words])


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_is_answered_when_lines_are_piped(run: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    status, out, err = run(kind, f"你好\n\nWhat?\n/save {path}\n")
    assert status == 0
    saved = json.loads(path.read_text())
    assert saved["chat_format"] == kind
    questions = [m["content"] for m in saved["messages"] if m["role"] == "user"]
    answers = [m["content"] for m in saved["messages"] if m["role"] == "assistant"]
    assert questions == ["你好", "What?"]
    assert out.replace("\n", "") == "".join(answers).replace("\n", "")
    assert err.count("8 tokens, ") == 2 and "/1024" in err and f"messages to {path}" in err


def test_tilde_is_the_own_folder_when_a_file_is_named(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    status, _, err = run("glm4", "a\n/save ~/chat.json\n/clear\n/load ~/chat.json\n")
    assert status == 0 and "loaded 2 messages from ~/chat.json" in err
    assert (tmp_path / "chat.json").is_file()


def test_json_tells_each_answer_on_a_line(run: Any) -> None:
    status, out, _ = run("glm4", "hello\n/undo\nhello again\n", "--json", "--context", "100")
    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert (first["message"], second["message"]) == ("hello", "hello again")
    assert first["num_tokens"] == 8 and first["num_context_tokens"] == 10 + 8
    assert first["answer"] == first["messages"][-1]["content"]
    assert first["finish_reason"] == "max_new_tokens" and first["num_dropped_turns"] == 0


def test_conversation_goes_on_when_it_is_loaded(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    run("chatglm3", f"one\n/system Be brief.\n/save {path}\n")
    _, whole, _ = run("chatglm3", "one\n/system Be brief.\ntwo\n", "--temperature", "0")
    run("chatglm3", f"one\n/system Be brief.\n/save {path}\n", "--temperature", "0")
    _, rest, _ = run("chatglm3", "two\n", "--load", str(path), "--temperature", "0")
    assert rest and whole.endswith(rest)
    assert json.loads(path.read_text())["system"] == "Be brief."


def test_commands_do_what_they_say(run: Any) -> None:
    lines = "a\n/undo\n/undo\n/system\n/system Hi.\n/system -\n/clear\n/help\n//x\n/exit\nnever\n"
    status, out, err = run("glm4", lines)
    assert status == 0 and err.count("8 tokens, ") == 2
    said = ["taken back: a", "there is nothing to undo", "system prompt: (none)",
            "system prompt: Hi.", "system prompt: (none)", "forgotten", "/save FILE"]  # fmt: skip
    places = [err.index(text) for text in said[:4]]
    assert places == sorted(places) and all(text in err for text in said)


def test_left_out_turns_are_told(run: Any) -> None:
    _, _, err = run("glm4", "question\n" * 6, "--context", "80")
    assert "its 1 oldest turn(s) are left out" in err and "its 2 oldest turn(s)" in err


@pytest.mark.parametrize(
    ("kind", "lines", "flags", "message"),
    [
        ("nano-text", "a\n", [], "byte_bpe tokenizer was not trained to chat: use `glm generate`"),
        ("glm4", "/clea\n", [], "unknown command /clea: did you mean /clear? /help lists"),
        ("glm4", "/etc/passwd?\n", [], "begin with // to send a message that starts with /"),
        ("glm4", "/save\n", [], "/save needs a file: /save FILE"),
        ("glm4", "/load nowhere\n", [], "nowhere is missing; give a file that was written by"),
        ("glm4", "x" * 1200 + "\n", [], "shorten the message by at least"),
        ("glm4", "", ["--temperature", "-1"], "sampling.temperature is -1.0"),
        ("glm4", "", ["--context", "2000"], "2000"),
        ("glm4", "", ["--load", "nowhere"], "nowhere is missing; give a file that was written"),
        ("glm4", "", ["--tools", "nowhere"], "nowhere is missing; --tools takes a JSON file"),
        ("chatglm2", "", ["--system", "x"], "the chatglm2 format has no place for a system"),
        ("chatglm2", "", ["--format", "glm4"], "chatglm2 tokenizer has no <|user|>, with which"),
        ("nowhere", "", [], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    run: Any, kind: str, lines: str, flags: list[str], message: str
) -> None:
    status, out, err = run(kind, lines, *flags)
    assert status == 2 and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_loaded_conversation_is_refused_before_the_weights_are_read(
    run: Any, tmp_path: Path, folders: GetFolder
) -> None:
    path = tmp_path / "chat.json"
    run("chatglm3", f"one\n/save {path}\n", "--system", "Be brief.")
    status, _, err = run("chatglm2", "", "--load", str(path))
    assert status == 2 and "the chatglm2 format has no place for a system prompt" in err
    assert "free on cpu" not in err  # the memory plan comes before the weights
    assert run("chatglm2", "two\n", "--load", str(path), "--system", "")[0] == 0


@pytest.mark.parametrize("content", ['{"a": 1}', "[3]", "[{}]"])
def test_tools_file_is_refused_when_it_lists_no_tools(
    run: Any, tmp_path: Path, content: str
) -> None:
    (tmp_path / "tools.json").write_text(content)
    status, _, err = run("glm4", "", "--tools", str(tmp_path / "tools.json"))
    assert status == 2 and ("must hold a list of tools" in err or "it must have a name" in err)


def test_tool_call_is_shown_and_the_next_line_is_its_result(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: GetFolder
) -> None:
    from glm_core.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folders("glm4"))
    observation, user = map(tokenizer.token_id, ("<|observation|>", "<|user|>"))
    call = tokenizer.encode('get_weather\n{"city": "北京"}')
    answers = iter([*call, observation, *tokenizer.encode("\n22"), user])
    monkeypatch.setattr(Sampler, "choose", lambda *_: TokenLogprob(next(answers), 0.0))
    tools, path = tmp_path / "tools.json", tmp_path / "chat.json"
    tools.write_text(json.dumps([TOOL]))
    lines = f'weather?\n{{"degrees": 22}}\n/save {path}\n'
    flags = ("--tools", str(tools), "--max-new-tokens", "100")
    status, out, _ = run("glm4", lines, *flags)
    assert status == 0 and out == '[calls get_weather] {"city": "北京"}\n22\n'
    roles = [message["role"] for message in json.loads(path.read_text())["messages"]]
    assert roles == ["user", "assistant", "observation", "assistant"]


def test_text_that_is_not_utf8_is_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, err = run("glm4", "caf\udce9\n")
    assert status == 2 and "error: the message is not UTF-8: convert it" in err


def test_message_of_several_lines_stands_between_quotes(run: Any) -> None:
    _, out, _ = run("glm4", '"""\none\n\n/two\n"""\n"""\nlast', "--json")
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["one\n\n/two", "last"]


def test_every_sampling_flag_has_a_field() -> None:
    words = ["--temperature", "0.5", "--top-k", "3", "--top-p", "0.4", "--min-p", "0.1",
             "--repetition-penalty", "1.2", "--seed", "7", "--max-new-tokens", "9"]  # fmt: skip
    given = chat.given_sampling(_flags(*words))
    assert len(given) == len(words) / 2
    assert set(given) <= {field.name for field in fields(SamplingConfig)}
    assert chat.given_sampling(_flags()) == {}


def test_defaults_are_the_formats_and_the_seed_is_new_each_time(tmp_path: Path) -> None:
    generator = tiny_chat("chatglm", tmp_path)
    loaded = NamedModel(generator.model, generator.tokenizer, context=300)
    sessions = [chat.open_session(_flags(), loaded, chat_format("chatglm"), []) for _ in "ab"]
    sampling = sessions[0].sampling
    # the budget is the context that the memory plan has room for, not all that the model could
    assert sessions[0].context == 300 and sampling.max_new_tokens == 150
    assert (sampling.temperature, sampling.top_p) == (0.95, 0.7)
    assert sampling.seed != sessions[1].sampling.seed


def test_formats_are_those_that_exist() -> None:
    assert [chat_format(name).name for name in chat.FORMATS] == list(chat.FORMATS)


def test_terminal_is_not_commanded_by_a_model() -> None:
    assert printable("a\x1b]0;x\x07b\r\n\t你👋\x9b") == "a]0;xb\n\t你👋"


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, argv: list[str]) -> None:
        self._master, slave = pty.openpty()
        code = "import sys; from glm_core.cli import main; sys.exit(main(sys.argv[1:]))"
        # setsid and the first terminal opened: Ctrl-C reaches the command and nobody else
        opened = f"import os; os.open({os.ttyname(slave)!r}, os.O_RDWR); {code}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", opened, *argv],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self, text: str) -> None:
        """Presses Ctrl-C at a prompt until `text` answers.

        Python's line editor overlooks a signal that comes while it takes in a character.
        """
        for _ in range(20):
            self.type("\x03")
            if text in self.until(lambda shown: text in shown, seconds=2):
                return
        raise AssertionError(f"nothing answers Ctrl-C: {self.shown}")

    def expect(self, text: str) -> str:
        """Returns what is shown up to and with `text`, which must come."""
        shown = self.until(lambda shown: text in shown)
        assert text in shown, f"{text!r} does not come: {self.shown}"
        return shown

    def until(self, is_enough: Callable[[str], bool], seconds: float = 60) -> str:
        """Returns what is shown from now on until it is enough, or nothing comes for a while."""
        shown = ""
        while not is_enough(shown) and select.select([self._master], [], [], seconds)[0]:
            try:
                shown += self._decoder.decode(os.read(self._master, 1))
            except OSError:  # the command has ended
                break
        self.shown += shown
        return shown


def test_ctrl_c_stops_the_answer_and_the_session_goes_on(tmp_path: Path) -> None:
    generator = tiny_chat("glm4", tmp_path / "tokenizer", max_position_embeddings=30000)
    with torch.no_grad():  # greedy decoding then never ends an answer by itself
        generator.model.head_weight_VD[list(generator.tokenizer.stop_ids)] = 0
    save_pretrained(generator.model, generator.tokenizer, tmp_path / "model")
    flags = ["--temperature", "0", "--max-new-tokens", "29000"]
    terminal = Terminal(["chat", "--model", str(tmp_path / "model"), *flags])
    try:
        terminal.expect("/help lists the commands")
        terminal.expect("> ")
        for question in ("hello", "again"):
            terminal.type(f"{question}\n")
            terminal.expect(f"{question}\r\n")
            terminal.until(lambda shown: len(shown) > 20)  # the answer comes piece by piece
            terminal.type("\x03")
            assert "29000 tokens" not in terminal.expect("stopped by Ctrl-C")
            terminal.expect("> ")
        terminal.type("abc")  # Ctrl-C takes back what is typed, and leaves an empty prompt
        terminal.expect("abc")
        terminal.interrupt("> ")
        terminal.type("/nonsense\n")
        terminal.expect("error: unknown command /nonsense")
        terminal.expect("> ")
        terminal.type(f"/save {tmp_path / 'chat.json'}\n")
        terminal.expect("saved 4 messages")
        terminal.expect("> ")
        terminal.type("x")
        terminal.expect("x")
        terminal.type("\x7f")
        terminal.expect("\x08")
        terminal.interrupt("\n")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.process.kill()
    messages = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert all(message["content"] and message["is_cut"] for message in messages[1::2])

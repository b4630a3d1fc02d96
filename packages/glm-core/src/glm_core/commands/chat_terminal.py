"""The terminal side of ``glm chat``: lines in, answers out, Ctrl-C, slash commands."""

from __future__ import annotations

import difflib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_core.chat import ChatSession, Message, Reply, ToolCall

BLOCK = '"""'
HELP_TEXT = """\
Type a message. A line of three quotes begins and ends a message of several lines.
  /help          this text
  /clear         forget the conversation; the system prompt stays
  /undo          take back the last message and its answer
  /save FILE     write the conversation to a file
  /load FILE     go on with a saved conversation
  /system TEXT   change the system prompt; without TEXT show it, with - remove it
  /exit          leave (also Ctrl-D, or Ctrl-C at an empty prompt)
Ctrl-C stops an answer; what was written stays. Begin with // to send a message that starts with /.
When the model calls a tool, the next message is what the tool answers; nothing is run for you.
/undo takes the call back."""


class ChatTerminal:
    """Reads messages from standard input and prints answers.

    Answers go to standard output, everything else to standard error. Errors end the program unless
    a person is there to mend them.

    Args:
        session: the conversation.
        is_interactive: whether a person types.
        as_json: print one JSON object per answer, once it is complete.
    """

    def __init__(self, session: ChatSession, is_interactive: bool, as_json: bool) -> None:
        self._session = session
        self._is_interactive = is_interactive
        self._as_json = as_json
        self._num_dropped = 0
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self._note(HELP_TEXT),
            "clear": self._clear,
            "undo": self._undo,
            "save": self._save,
            "load": self._load,
            "system": self._system,
        }

    def run(self) -> None:
        """Talks until the user leaves or the input ends."""
        if self._is_interactive:
            _line_editing()
            form, context = self._session.format.name, self._session.context
            self._note(f"{form} format, context of {context} tokens; /help lists the commands")
        while True:
            try:
                text = self._next_message()
                if text is None or not self._take(text):
                    return
            except KeyboardInterrupt:  # pressed once more than was needed to stop an answer
                if not self._is_interactive:
                    raise
            except (ValueError, OSError) as error:
                if not self._is_interactive or isinstance(error, BrokenPipeError):
                    raise
                self._note(f"error: {error}")

    def _take(self, text: str) -> bool:
        """Does what a message or a command asks for; returns whether to go on."""
        if not text.strip():
            return True
        if text.startswith("/") and not text.startswith("//"):
            return self._command(text)
        text = text.removeprefix("/") if text.startswith("//") else text
        asks = self._session.observe if self._session.awaits_observation else self._session.ask
        self._answer(asks, text)
        return True

    def _command(self, line: str) -> bool:
        name, _, rest = line[1:].partition(" ")
        if name in ("exit", "quit"):
            return False
        if name not in self._commands:
            near = difflib.get_close_matches(name, [*self._commands, "exit"], n=1)
            hint = f"did you mean /{near[0]}? " if near else ""
            raise ValueError(
                f"unknown command /{name}: {hint}/help lists the commands; begin with // to send "
                "a message that starts with /"
            )
        self._commands[name](rest.strip())
        return True

    def _answer(self, asks: Callable[[str], Reply], text: str) -> None:
        begin = time.monotonic()
        reply = asks(text)
        self._tell_dropped(reply)
        with Interruption(self._is_interactive) as interruption:
            shown = "".join(self._pieces(reply, interruption))
        seconds = time.monotonic() - begin
        if self._as_json:
            data = answer_data(reply, text, shown, seconds)
            print(json.dumps(data, ensure_ascii=False), flush=True)
            return
        calls = [call for message in reply.messages for call in message.tool_calls]
        self._write("\n" if shown else "")
        self._write("".join(f"{call_text(call)}\n" for call in calls))
        for message in reply.messages:
            if message.fault:
                self._note(f"no readable tool call: {message.fault}")
        self._note(self._summary(reply, seconds))

    def _pieces(self, reply: Reply, interruption: Interruption) -> Iterator[str]:
        """Writes the answer as it comes, until it ends or Ctrl-C stops it."""
        try:
            for piece in reply:
                self._write(piece)
                yield piece
                interruption.can_wait = True
                if interruption.requested:
                    break
        except KeyboardInterrupt:
            interruption.requested = True
        if not reply.messages:
            rest = reply.cut()
            self._write(rest)
            yield rest

    def _summary(self, reply: Reply, seconds: float) -> str:
        rate = reply.num_tokens / seconds if seconds > 0 else 0.0
        parts = [
            f"{reply.num_tokens} tokens",
            f"{rate:.1f} tokens/s",
            f"context {reply.num_context_tokens}/{self._session.context}",
        ]
        if not reply.messages:
            parts.append("stopped before the answer began: your message is not kept")
        elif reply.finish_reason is None:
            parts.append("stopped by Ctrl-C")
        elif reply.messages[-1].is_cut:
            parts.append("answer cut at its longest: raise --max-new-tokens")
        return ", ".join(parts)

    def _tell_dropped(self, reply: Reply) -> None:
        if reply.num_dropped != self._num_dropped and reply.num_dropped:
            self._note(
                f"the conversation has outgrown the context: its {reply.num_dropped} oldest "
                "turn(s) are left out of what the model reads"
            )
        self._num_dropped = reply.num_dropped

    def _clear(self, rest: str) -> None:
        self._session.clear()
        self._note("the conversation is forgotten")

    def _undo(self, rest: str) -> None:
        undone = self._session.undo()
        self._note(f"taken back: {undone[0].content}" if undone else "there is nothing to undo")

    def _save(self, rest: str) -> None:
        self._session.save(_file(rest, "/save"))
        self._note(f"saved {len(self._session.messages)} messages to {rest}")

    def _load(self, rest: str) -> None:
        self._session.load(_file(rest, "/load"))
        self._note(f"loaded {len(self._session.messages)} messages from {rest}")

    def _system(self, rest: str) -> None:
        if rest:
            self._session.configure("" if rest == "-" else rest, self._session.tools)
        self._note(f"system prompt: {self._session.system or '(none)'}")

    def _next_message(self) -> str | None:
        """The next message; None when the user leaves."""
        prompt = "result> " if self._session.awaits_observation else "> "
        line = self._next_line(prompt)
        if line is None or line.strip() != BLOCK:
            return line
        lines: list[str] = []
        while (line := self._next_line("... ")) is not None and line.strip() != BLOCK:
            lines.append(line)
        return None if line is None and not lines else "\n".join(lines)

    def _next_line(self, prompt: str) -> str | None:
        if not self._is_interactive:
            return _utf8(sys.stdin.readline())
        while True:
            try:
                return _utf8(_typed(prompt) + "\n")
            except EOFError:
                self._note("")
                return None
            except KeyboardInterrupt:
                self._note("")
                if not _typed_so_far():
                    return None

    def _write(self, text: str) -> None:
        if text and not self._as_json:
            sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()

    def _note(self, text: str) -> None:
        """Says something that is no answer: dim, where that can be seen."""
        is_dim = text and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        sys.stderr.write(f"\x1b[2m{printable(text)}\x1b[0m\n" if is_dim else f"{text}\n")
        sys.stderr.flush()


def answer_data(reply: Reply, text: str, shown: str, seconds: float) -> dict[str, Any]:
    """What ``--json`` tells of one answer."""
    messages: list[Message] = reply.messages
    return {
        "message": text,
        "answer": shown,
        "messages": [message.to_dict() for message in messages],
        "finish_reason": reply.finish_reason.value if reply.finish_reason else "interrupted",
        "num_tokens": reply.num_tokens,
        "num_context_tokens": reply.num_context_tokens,
        "num_dropped_turns": reply.num_dropped,
        "seconds": round(seconds, 3),
    }


class Interruption:
    """While entered, Ctrl-C is asked for instead of falling in just anywhere.

    It falls in all the same as long as it `can_wait` not, and when it is pressed a second time.

    Args:
        is_wanted: False leaves Ctrl-C what it was, the end of the program.
    """

    def __init__(self, is_wanted: bool) -> None:
        self.requested = False
        self.can_wait = False
        """Whether somebody will soon ask: False while the model reads the prompt."""
        self._is_wanted = is_wanted
        self._before: Any = None

    def __enter__(self) -> Interruption:
        if self._is_wanted:
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_wanted:
            signal.signal(signal.SIGINT, self._before)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        falls_in = self.requested or not self.can_wait
        self.requested = True
        if falls_in:
            raise KeyboardInterrupt


def call_text(call: ToolCall) -> str:
    """A tool call for a person."""
    arguments = call.text or json.dumps(dict(call.arguments), ensure_ascii=False)
    return f"[calls {call.name}] {arguments}"


def printable(text: str) -> str:
    """Text without characters that command a terminal: a model may write any."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def _file(rest: str, command: str) -> str:
    """The file that a command names; ~ is the user's own folder, as in a shell."""
    if not rest:
        raise ValueError(f"{command} needs a file: {command} FILE")
    return os.path.expanduser(rest)


def _utf8(line: str) -> str | None:
    """A line without its end, None at the end of the input."""
    try:
        line.encode("utf-8")
    except UnicodeError as error:
        raise ValueError("the message is not UTF-8: convert it, for example with iconv") from error
    return line.rstrip("\r\n") if line else None


def _typed(prompt: str) -> str:
    """A line from a person."""
    if sys.stdout.isatty():
        return input(prompt)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _line_editing() -> None:
    """Lets a person edit lines and go back to earlier ones, where Python can."""
    try:
        import readline  # noqa: F401  (importing it is what changes input())
    except ImportError:
        return


def _typed_so_far() -> str:
    try:
        import readline
    except ImportError:
        return ""
    return readline.get_line_buffer()

"""From what the model writes to messages, while it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from glm_core.chat.message import Message, Role, ToolCall
from glm_core.chat.postprocess import StreamedFix
from glm_core.chat.tool_calls import UnreadableCall, looks_like_name

CallReader = Callable[[str], ToolCall]
"""Reads the content of a call of one tool; raises UnreadableCall."""


class AnswerReader(Protocol):
    """Takes an answer piece by piece."""

    @property
    def ended(self) -> Sequence[Message]:
        """The messages that have ended so far."""
        ...

    def push(self, text: str) -> str:
        """Takes text of the current message; returns what can be shown of it now."""
        ...

    def next_message(self) -> str:
        """Ends the current message, for another one follows; returns the rest to show."""
        ...

    def finish(self, wants_observation: bool, is_cut: bool) -> tuple[str, list[Message]]:
        """Ends the answer.

        Args:
            wants_observation: the model gave the word to a tool.
            is_cut: the answer did not come to its end.

        Returns:
            The rest to show, and the answer's messages.
        """
        ...


class PlainReader:
    """An answer that is text and nothing else.

    Args:
        punctuation: as in `StreamedFix`. The messages hold the text as it is shown.
    """

    def __init__(self, punctuation: bool) -> None:
        self._fix = StreamedFix(punctuation)
        self._text = ""
        self.ended: list[Message] = []

    def push(self, text: str) -> str:
        shown = self._fix.push(text)
        self._text += shown
        return shown

    def next_message(self) -> str:
        return ""

    def finish(self, wants_observation: bool, is_cut: bool) -> tuple[str, list[Message]]:
        shown = self._fix.finish()
        self.ended.append(Message(Role.assistant, self._text + shown, is_cut=is_cut))
        return shown, self.ended


class HeadedReader:
    """An answer of messages whose first line is empty for text, or names the tool they call.

    A call is not shown, unless it cannot be read. A first line that names no tool is text.

    Args:
        readers: how to read the call of each tool.
    """

    def __init__(self, readers: Mapping[str, CallReader]) -> None:
        self._readers = readers
        self.ended: list[Message] = []
        self._raw, self._name, self._is_text = "", "", False
        self._fix = StreamedFix()

    def push(self, text: str) -> str:
        self._raw += text
        if self._is_text:
            return self._fix.push(text)
        if self._name or not self._raw.strip():
            return ""
        head, line_break, _ = self._raw.partition("\n")
        if line_break and head.strip() in self._readers:
            self._name = head.strip()
            return ""
        if not line_break and any(name.startswith(head.strip()) for name in self._readers):
            return ""
        self._is_text = True
        return self._fix.push(self._raw)

    def next_message(self) -> str:
        shown = self._end(wants_observation=False)
        self._begin()
        return shown

    def finish(self, wants_observation: bool, is_cut: bool) -> tuple[str, list[Message]]:
        shown = self._end(wants_observation and not is_cut)
        if is_cut:
            self.ended[-1] = replace(self.ended[-1], is_cut=True)
        return shown, self.ended

    def _begin(self) -> None:
        self._raw, self._name, self._is_text = "", "", False
        self._fix = StreamedFix()

    def _end(self, wants_observation: bool) -> str:
        if self._name:
            call = self._call()
            self.ended.append(call)
            return f"{call.name}\n{call.content}" if call.fault else ""
        shown = self._fix.finish() if self._is_text else self._raw.strip()
        head, line_break, rest = self._raw.partition("\n")
        name = head.strip()
        if wants_observation and line_break and looks_like_name(name):
            fault = f"the model calls {name}, which is none of its tools"
            self.ended.append(Message(Role.assistant, rest, name, fault=fault))
        else:
            self.ended.append(Message(Role.assistant, self._raw.strip()))
        return shown

    def _call(self) -> Message:
        content = self._raw.partition("\n")[2]
        try:
            call = self._readers[self._name](content)
        except UnreadableCall as error:
            return Message(Role.assistant, content, self._name, fault=str(error))
        return Message(Role.assistant, content, self._name, (call,))

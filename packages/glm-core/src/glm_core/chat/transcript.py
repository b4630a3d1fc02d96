"""Conversations with models that were never trained to chat: written out as a transcript.

    System text

    User: ...

    Assistant: ...

The model goes on behind the last `Assistant:`, and its answer ends where it would speak for the
user. It is a text like any other: nothing but the wording tells who speaks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_core.chat.call_syntax import CallSyntax
from glm_core.chat.formats import ChatFormat, chat_format_for
from glm_core.chat.message import Message, Role, Tool, ToolCall, check_conversation
from glm_core.chat.reader import AnswerReader, PlainReader
from glm_core.infer.blanks import continuation_prompt
from glm_core.infer.layout import Layout
from glm_core.tokenizer.protocol import Tokenizer

_SPEAKERS = {Role.user: "User", Role.assistant: "Assistant"}
_HEAD = re.compile(r"^(?=(?:User|Assistant):)", re.MULTILINE)


@dataclass(frozen=True)
class Transcript:
    """A chat format for one model."""

    layout: Layout
    """Where the model expects a text that it goes on with."""
    name: str = "transcript"
    temperature: float = 0.8
    top_p: float = 0.9
    text_head: str = ""
    stop: tuple[str, ...] = ("\nUser:", "\nAssistant:")

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[Tool] = ()
    ) -> list[int]:
        check_conversation(messages)
        if tools or any(one.name or one.role == Role.observation for one in messages):
            raise ValueError(self._no_tools())
        if not messages or messages[-1].role != Role.user:
            raise ValueError("the conversation must end with a user's message to be answered")
        return list(continuation_prompt(self.prompt(messages), tokenizer, self.layout).context_ids)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Returns the conversation as text; lines that only look like a speaker's are indented."""
        parts = []
        for message in messages:
            text = _HEAD.sub(" ", message.content.strip())
            speaker = _SPEAKERS.get(message.role)
            parts.append(f"{speaker}: {text}" if speaker else text)
        return "\n\n".join([*parts, "Assistant:"])

    def write_call(self, call: ToolCall, json_text: str = "") -> Message:
        raise ValueError(self._no_tools())

    def call_syntax(self, function: Mapping[str, Any], prefix: str = "") -> CallSyntax:
        raise ValueError(self._no_tools())

    def marks(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        return ()

    def reader(self, tools: Sequence[Tool] = ()) -> AnswerReader:
        if tools:
            raise ValueError(self._no_tools())
        return PlainReader(punctuation=False)

    def _no_tools(self) -> str:
        return (
            "this model was not trained to chat and knows no tools: use a model of the chatglm3 "
            "or glm4 format, or leave the tools away"
        )


def format_or_transcript(tokenizer: Tokenizer, layout: Layout) -> ChatFormat:
    """Returns the format that the model was trained on; a transcript if there is none."""
    try:
        return chat_format_for(tokenizer.kind)
    except ValueError:
        return Transcript(layout)

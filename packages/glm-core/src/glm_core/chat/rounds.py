"""ChatGLM-6B and ChatGLM2-6B: questions and answers in numbered rounds of plain text.

Sources: ChatGLM-6B modeling_chatglm.py `chat`; ChatGLM2-6B tokenization_chatglm.py `build_prompt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_core.chat.call_syntax import CallSyntax
from glm_core.chat.message import Message, Role, Tool, ToolCall, check_conversation
from glm_core.chat.reader import AnswerReader, PlainReader
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import GMASK, SOP


@dataclass(frozen=True)
class Rounds:
    """Rounds of `问：` (question) and `答：` (answer)."""

    name: str
    temperature: float
    top_p: float
    first_round: int
    """Number of the first round."""
    line_break: str
    """What ends a line."""
    bare_question: bool
    """Whether a first question stands alone, without a round around it."""
    marks_first: bool
    """Whether [gMASK] and <|startofpiece|> come first; otherwise [gMASK] comes last, and the
    model's layout opens the answer with <|startofpiece|>."""
    mends_punctuation: bool
    """Whether answers get full-width punctuation beside Chinese characters."""
    text_head: str = ""
    stop: tuple[str, ...] = ()

    @classmethod
    def chatglm(cls) -> Rounds:
        """ChatGLM-6B: counts from 0."""
        return cls("chatglm", 0.95, 0.7, 0, "\n", True, False, True)

    @classmethod
    def chatglm2(cls) -> Rounds:
        """ChatGLM2-6B: counts from 1."""
        return cls("chatglm2", 0.8, 0.8, 1, "\n\n", False, True, False)

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[Tool] = ()
    ) -> list[int]:
        self._check(messages, tools)
        text_ids = tokenizer.encode(self.prompt(messages))
        if self.marks_first:
            return [tokenizer.token_id(GMASK), tokenizer.token_id(SOP), *text_ids]
        return [*text_ids, tokenizer.token_id(GMASK)]

    def prompt(self, messages: Sequence[Message]) -> str:
        """Returns the conversation as text: questions and answers by turns."""
        if len(messages) == 1 and self.bare_question:
            return messages[0].content
        text, end = "", self.line_break
        for index, message in enumerate(messages):
            if message.role == Role.user:
                number = self.first_round + index // 2
                text += f"[Round {number}]{end}问：{message.content}{end}答："
            else:
                text += f"{message.content}{end}"
        return text

    def write_call(self, call: ToolCall, json_text: str = "") -> Message:
        raise ValueError(self._no_tools())

    def call_syntax(self, function: Mapping[str, Any], prefix: str = "") -> CallSyntax:
        raise ValueError(self._no_tools())

    def marks(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        return ()

    def reader(self, tools: Sequence[Tool] = ()) -> AnswerReader:
        if tools:
            raise ValueError(self._no_tools())
        return PlainReader(self.mends_punctuation)

    def _check(self, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        check_conversation(messages)
        has_calls = any(message.name or message.role == Role.observation for message in messages)
        if tools or has_calls:
            raise ValueError(self._no_tools())
        if any(message.role == Role.system for message in messages):
            raise ValueError(
                f"the {self.name} format has no place for a system prompt: write it into the "
                "first message, or use a model of the chatglm3 or glm4 format"
            )
        roles = [message.role for message in messages]
        by_turns = all(
            role == (Role.assistant, Role.user)[i % 2 == 0] for i, role in enumerate(roles)
        )
        if not by_turns or len(roles) % 2 == 0:
            raise ValueError("the conversation must end with a user's message to be answered")

    def _no_tools(self) -> str:
        return (
            f"the {self.name} format knows no tools: use a model of the chatglm3 or glm4 format, "
            "or leave the tools away"
        )

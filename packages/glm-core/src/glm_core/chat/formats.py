"""How a conversation becomes the ids that a model was trained on: one format per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from glm_core.chat.call_syntax import CallSyntax
from glm_core.chat.message import Message, Tool, ToolCall
from glm_core.chat.reader import AnswerReader
from glm_core.chat.roles import GLM4, ChatGLM3, ToolDialect
from glm_core.chat.rounds import Rounds
from glm_core.tokenizer.protocol import Tokenizer


class ChatFormat(Protocol):
    """What a conversation looks like to one model. A small value."""

    @property
    def name(self) -> str:
        """How `chat_format` and the command line call it."""
        ...

    @property
    def temperature(self) -> float:
        """The model's own default."""
        ...

    @property
    def top_p(self) -> float:
        """The model's own default."""
        ...

    @property
    def text_head(self) -> str:
        """What stands before the text of an answer in words, encoded apart."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer, besides the model's own end."""
        ...

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """Returns the context in which the model gives the next answer.

        Everything is in it but the tokens that the model's layout opens an answer with. Text is
        encoded by itself and can never become a special token.

        Raises:
            ValueError: the format has no place for a message or for tools, or the messages are
                in no order that it knows.
        """
        ...

    def write_call(self, call: ToolCall, json_text: str = "") -> Message:
        """Returns the message in which the model makes a call, as it writes one itself.

        Args:
            call: the call.
            json_text: its arguments as somebody has written them in JSON; a format whose calls
                are JSON keeps them as they are.

        Raises:
            ValueError: the format cannot say it.
        """
        ...

    def call_syntax(self, function: Mapping[str, Any], prefix: str = "") -> CallSyntax:
        """Returns how the model writes calls of a function, for decoding under a grammar.

        Args:
            function: name and parameters of the function.
            prefix: begins the names of the grammar's rules.

        Raises:
            ValueError: the format has no calls, or none for such parameters.
        """
        ...

    def marks(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Returns the special tokens that stand between the messages of an answer."""
        ...

    def reader(self, tools: Sequence[Tool] = ()) -> AnswerReader:
        """Returns what makes messages of an answer."""
        ...


_FORMATS: dict[str, ChatFormat] = {
    known.name: known
    for known in (
        Rounds.chatglm(),
        Rounds.chatglm2(),
        ChatGLM3(),
        ChatGLM3(ToolDialect.compact),
        GLM4(),
    )
}


def chat_format(name: str) -> ChatFormat:
    """Returns a format by its name.

    Raises:
        ValueError: there is none.
    """
    if name not in _FORMATS:
        raise ValueError(f"chat format {name!r} is unknown: choose one of {', '.join(_FORMATS)}")
    return _FORMATS[name]


def chat_format_for(kind: str) -> ChatFormat:
    """Returns the format of the model whose tokenizer is of this kind.

    Raises:
        ValueError: such models were not trained to chat.
    """
    if kind not in _FORMATS:
        raise ValueError(
            f"a model with a {kind} tokenizer was not trained to chat: use `glm generate` to "
            f"continue texts with it, or name the format it was tuned on: {', '.join(_FORMATS)}"
        )
    return _FORMATS[kind]

"""A conversation with a model: its history, its budget of tokens, its answers as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from glm_core.chat.formats import ChatFormat, chat_format_for
from glm_core.chat.message import Message, Role, Tool, check_conversation, exchanges
from glm_core.chat.reader import AnswerReader
from glm_core.chat.saved import SavedChat, read_chat, write_chat
from glm_core.infer.answer import FinishReason
from glm_core.infer.ids_stream import IdsStream
from glm_core.infer.prompt_cache import PromptCache
from glm_core.infer.sampling import SamplingConfig
from glm_core.infer.text_generator import TextGenerator

DEFAULT_MAX_NEW_TOKENS = 1024
_QUESTION = Message(Role.user, "?")  # any: shows whether the format takes what comes before


class ChatSession:
    """Talks with a model and remembers what was said.

        session = ChatSession(generator)
        for text in session.ask("Hello"):
            print(text, end="")

    The model never reads more than `context` tokens less the room for its answer: when the
    conversation has grown longer, whole old turns are left out of what it reads (never parts of a
    turn), and `Reply.num_dropped` says how many. They stay in `messages`.

    Args:
        generator: the model.
        format: how the model reads a conversation; by default as its tokenizer's kind says.
        system: the system prompt; empty for none.
        tools: what the model may call.
        sampling: how answers are decoded; by default as the originals do. The seed grows by one
            with every answer.
        context: tokens that prompt and answer may take together; by default all the model has.

    Raises:
        ValueError: the model cannot chat, or has no place for a system prompt or tools; the
            context is larger than the model's, or too small for an answer.
    """

    def __init__(
        self,
        generator: TextGenerator,
        format: ChatFormat | None = None,
        *,
        system: str = "",
        tools: Sequence[Tool] = (),
        sampling: SamplingConfig | None = None,
        context: int | None = None,
    ) -> None:
        self.generator = generator
        self.format = format or chat_format_for(generator.tokenizer.kind)
        self.context = _checked_context(context, generator.model.config.max_position_embeddings)
        self.sampling = sampling or default_sampling(self.format, self.context)
        self.messages: list[Message] = []
        self._num_answers = 0
        self._cache = PromptCache()
        if self.sampling.max_new_tokens >= self.context:
            raise ValueError(
                f"max_new_tokens is {self.sampling.max_new_tokens}, but the context holds "
                f"{self.context} tokens for prompt and answer together: lower max_new_tokens"
            )
        self.configure(system, tools)

    def configure(self, system: str, tools: Sequence[Tool]) -> None:
        """Changes system prompt and tools; the conversation goes on.

        Raises:
            ValueError: the format has no place for them; nothing has changed then.
        """
        tools = tuple(tools)
        self._encode(system, tools, [_QUESTION])
        self.format.reader(tools)
        self.system, self.tools = system, tools

    @property
    def awaits_observation(self) -> bool:
        """Whether the model's last message calls a tool."""
        return bool(self.messages and self.messages[-1].tool_calls)

    def ask(self, text: str) -> Reply:
        """Says something to the model; iterate over the reply.

        Raises:
            ValueError: the message is empty, or does not fit into the context by itself.
        """
        return self._answer(Message(Role.user, text))

    def observe(self, text: str) -> Reply:
        """Gives the model what the tool that it called has answered.

        A call that could not be read may be answered too, with what is wrong with it.

        Raises:
            ValueError: as `ask`; also when the model's last message called no tool.
        """
        if not self.awaits_observation and not (self.messages and self.messages[-1].fault):
            raise ValueError("there is nothing to observe: the last message calls no tool")
        return self._answer(Message(Role.observation, text))

    def undo(self) -> list[Message]:
        """Takes back the last question (or observation) and all that followed; returns them."""
        asked = [i for i, m in enumerate(self.messages) if m.role != Role.assistant]
        start = asked[-1] if asked else 0
        undone, self.messages = self.messages[start:], self.messages[:start]
        return undone

    def clear(self) -> None:
        """Forgets the conversation; system prompt and tools stay."""
        self.messages = []

    def save(self, path: Path | str) -> None:
        """Writes the conversation to a file, whole or not at all.

        Raises:
            ValueError: the file is there and is no saved conversation.
            OSError: it cannot be written; what was there before is untouched.
        """
        chat = SavedChat(self.format.name, self.system, self.tools, tuple(self.messages))
        write_chat(Path(path), chat)

    def load(
        self, path: Path | str, system: str | None = None, tools: Sequence[Tool] | None = None
    ) -> None:
        """Goes on with a saved conversation.

        Args:
            path: what `save` wrote.
            system: a system prompt in place of the saved one.
            tools: tools in place of the saved ones.

        Raises:
            ValueError: the file is no saved conversation, or has what this model's format has no
                place for; nothing has changed then.
        """
        chat = read_chat(Path(path))
        check_conversation(chat.messages)
        if chat.messages and chat.messages[-1].role != Role.assistant:
            raise ValueError(f"{path} ends without an answer: remove its last message")
        system = chat.system if system is None else system
        tools = chat.tools if tools is None else tools
        self._encode(system, tools, [*chat.messages, _QUESTION])
        self.configure(system, tools)
        self.messages = list(chat.messages)

    def _answer(self, question: Message) -> Reply:
        if not question.content.strip():
            raise ValueError(f"the {question.role} message is empty: write something")
        num_dropped, ids = self._fit([*self.messages, question])
        seed = (self.sampling.seed + self._num_answers) % 2**63
        marks = self.format.marks(self.generator.tokenizer)
        sampling = replace(self.sampling, seed=seed)
        stream = self.generator.stream_ids(ids, sampling, marks, self._cache)
        self._num_answers += 1
        return Reply(self, question, stream, self.format.reader(self.tools), num_dropped)

    def _fit(self, messages: list[Message]) -> tuple[int, list[int]]:
        """Returns how few of the oldest turns must go, and the ids of the rest."""
        turns = exchanges(messages)
        opening = len(self.generator.layout.opening(self.generator.tokenizer))
        budget = self.context - self.sampling.max_new_tokens - opening

        def ids_after(dropped: int) -> list[int]:
            rest = [message for turn in turns[dropped:] for message in turn]
            return self._encode(self.system, self.tools, rest)

        low, high = 0, len(turns) - 1
        ids = ids_after(low)
        if len(ids) <= budget:
            return 0, ids
        if len(last := ids_after(high)) > budget:
            raise ValueError(self._too_long(len(last), budget))
        while low + 1 < high:  # `low` turns dropped are too few, `high` are enough
            middle = (low + high) // 2
            low, high = (low, middle) if len(ids_after(middle)) <= budget else (middle, high)
        return high, ids_after(high)

    def _encode(self, system: str, tools: Sequence[Tool], messages: list[Message]) -> list[int]:
        first = [Message(Role.system, system)] if system else []
        return self.format.encode([*first, *messages], self.generator.tokenizer, tools)

    def _too_long(self, needed: int, budget: int) -> str:
        extra = " with the system prompt and the tools" if self.system or self.tools else ""
        return (
            f"the message needs {needed} tokens{extra}, but there is room for {budget}: the "
            f"context holds {self.context}, of which max_new_tokens keeps "
            f"{self.sampling.max_new_tokens} for the answer; shorten the message by at least "
            f"{needed - budget} tokens, or lower max_new_tokens"
        )


class Reply:
    """An answer as it comes: iterate over it for the text to show.

    Each token gives one piece, which may be empty, so that a loop over them can stop at any token.
    Question and answer enter the session together when the answer has ended, by itself or by
    `cut`; a reply that is dropped on the way leaves no trace.
    """

    def __init__(
        self,
        session: ChatSession,
        question: Message,
        stream: IdsStream,
        reader: AnswerReader,
        num_dropped: int,
    ) -> None:
        self.num_dropped = num_dropped
        """Old turns that the model could not see for this answer."""
        self.messages: list[Message] = []
        """The answer, once it has ended."""
        self._session = session
        self._question = question
        self._stream = stream
        self._reader = reader
        self._pieces = self._read()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self._stream.tokens)

    @property
    def num_context_tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return self._stream.num_context_tokens + self.num_tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None if it was cut."""
        return self._stream.finish_reason

    def cut(self) -> str:
        """Stops the answer and keeps what has come of it, marked as cut.

        Returns:
            The rest of the text to show. An answer of which nothing has come is not kept, nor is
            its question.
        """
        self._stream.close()
        if self.messages or not self._stream.tokens:
            return ""
        return self._end(is_cut=True)

    def _read(self) -> Iterator[str]:
        for piece in self._stream:
            text = self._reader.push(piece.text)
            if piece.mark is not None:
                text += self._reader.next_message()
            yield text
        ends = (FinishReason.stop_token, FinishReason.stop_string)
        rest = self._end(is_cut=self.finish_reason not in ends)
        yield rest

    def _end(self, is_cut: bool) -> str:
        tokenizer = self._session.generator.tokenizer
        observation = "<|observation|>"
        wants = tokenizer.has(observation) and (
            self._stream.stop_id == tokenizer.token_id(observation)
        )
        rest, self.messages = self._reader.finish(wants, is_cut)
        self._session.messages += [self._question, *self.messages]
        return rest


def default_sampling(format: ChatFormat, context: int) -> SamplingConfig:
    """Returns how the format's model answers if nothing else is asked for."""
    return SamplingConfig(
        max_new_tokens=max(1, min(DEFAULT_MAX_NEW_TOKENS, context // 2)),
        temperature=format.temperature,
        top_p=format.top_p,
        stop=list(format.stop),
    )


def _checked_context(context: int | None, limit: int) -> int:
    if context is None:
        return limit
    if not 2 <= context <= limit:
        raise ValueError(
            f"context is {context}: it must lie between 2 and the model's {limit} tokens"
        )
    return context

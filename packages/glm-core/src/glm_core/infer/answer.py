"""One answer while it is decoded: its tokens, its text, and why it ended."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from torch import Tensor

from glm_core.infer.sampling import Sampler
from glm_core.infer.stream import TextStream
from glm_core.tokenizer.incremental import IncrementalDecoder
from glm_core.tokenizer.protocol import Tokenizer


class FinishReason(StrEnum):
    """Why an answer ended."""

    stop_token = "stop_token"
    """The model ended it."""
    stop_string = "stop_string"
    """A stop string came."""
    max_new_tokens = "max_new_tokens"
    """It was as long as the request allows."""
    context = "context"
    """The model's context was full."""


class Vocabulary:
    """Which ids end an answer and which no answer may hold.

    Args:
        tokenizer: knows the special tokens.
        num_logits: rows of the model's head; those beyond the tokenizer are padding.
        marks: special ids that an answer may hold all the same; they give no text.
    """

    def __init__(self, tokenizer: Tokenizer, num_logits: int, marks: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.marks = frozenset(marks)
        self.stop_ids = list(tokenizer.stop_ids)
        specials = sorted(tokenizer.special_ids.difference(self.stop_ids, self.marks))
        self.excluded_ids = specials + list(range(tokenizer.vocab_size, num_logits))


class Answer:
    """The answer in one blank.

    Args:
        sampler: chooses tokens; shared by the blanks of one request.
        vocabulary: stop ids and the tokenizer.
        seen_ids: text tokens before this answer, for the repetition penalty.
        budget: columns the context has left for this answer.
        continues: whether the answer is part of the prompt's text, or a text of its own.
    """

    def __init__(
        self,
        sampler: Sampler,
        vocabulary: Vocabulary,
        seen_ids: list[int],
        budget: int,
        continues: bool = True,
    ) -> None:
        self.sampler = sampler
        self.vocabulary = vocabulary
        self.tokens: list[int] = []
        self.logprob = 0.0
        self.finish_reason: FinishReason | None = None
        self.stop_id: int | None = None
        """The token with which the model ended the answer."""
        self.num_fed = 0
        self._seen = seen_ids
        self._budget = budget
        self._decoder = IncrementalDecoder(vocabulary.tokenizer, continues)
        self._stream = TextStream(self._decoder, sampler.config.stop)

    @property
    def is_done(self) -> bool:
        """Whether the answer has ended."""
        return self.finish_reason is not None

    @property
    def seen_ids(self) -> list[int]:
        """Text tokens before this answer and in it."""
        return self._seen + self.tokens

    @property
    def max_tokens(self) -> int:
        """Longest this answer can become."""
        return min(self.sampler.config.max_new_tokens, self._budget)

    @property
    def text(self) -> str:
        """The answer's text so far, without what is still held back."""
        return self._stream.text

    def accept(self, logits_V: Tensor) -> str:
        """Chooses the next token from the model's logits; returns text that can be shown now."""
        token, logprob = self.sampler.choose(logits_V, self.seen_ids, len(self.tokens))
        return self.append(token, logprob)

    def append(self, token: int, logprob: float) -> str:
        """Takes a token that was chosen; returns text that can be shown now."""
        self.logprob += logprob
        if token in self.vocabulary.stop_ids:
            self.stop_id = token
            return self._finish(FinishReason.stop_token)
        self.tokens.append(token)
        is_mark = token in self.vocabulary.marks
        text = self._stream.finish() if is_mark else self._stream.push(token)
        if self._stream.stopped:
            self._drop_tokens_of_stop()
            self.finish_reason = FinishReason.stop_string
        elif len(self.tokens) == self.sampler.config.max_new_tokens:
            text += self._finish(FinishReason.max_new_tokens)
        elif len(self.tokens) == self._budget:
            text += self._finish(FinishReason.context)
        return text

    def next_input(self) -> int | None:
        """Returns the token that the model has not seen yet, or None."""
        if self.num_fed >= len(self.tokens):
            return None
        self.num_fed += 1
        return self.tokens[self.num_fed - 1]

    def _finish(self, reason: FinishReason) -> str:
        self.finish_reason = reason
        return self._stream.finish()

    def _drop_tokens_of_stop(self) -> None:
        """Keeps the tokens whose text stands before the stop string."""
        size = self._decoder.num_dropped + len(self.text.encode())
        while self.tokens and len(self.vocabulary.tokenizer.decode_bytes(self.tokens)) > size:
            self.tokens.pop()

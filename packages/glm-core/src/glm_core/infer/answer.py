"""One answer while it is decoded: its tokens, its text, and why it ended."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from torch import Tensor

from glm_core.infer.choose_rows import Turn, choose_rows
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler, SamplingConfig
from glm_core.infer.stream import TextStream
from glm_core.tokenizer.incremental import IncrementalDecoder
from glm_core.tokenizer.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_core.infer.beginning import Beginning, BeginningState
    from glm_core.infer.grammar import CompiledGrammar, GrammarState


_NEVER = 2**62
"""Larger than any length of a text."""


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
    stopped = "stopped"
    """Whoever asked had enough of it."""


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

    def sampler(
        self,
        config: SamplingConfig,
        num_top: int = 0,
        grammar: CompiledGrammar | Beginning | None = None,
    ) -> Sampler:
        """Returns what chooses the tokens of one request; the arguments are those of `Sampler`.

        Raises:
            ValueError: the config names an id outside the tokenizer's vocabulary, or cannot be
                had together with the other arguments.
        """
        num_ids = self.tokenizer.vocab_size
        named = {"logit_bias": config.logit_bias, "stop_token_ids": config.stop_token_ids}
        for name, ids in named.items():
            outside = [token for token in ids if token >= num_ids]
            if outside:
                raise ValueError(
                    f"sampling.{name} names the id {outside[0]}: "
                    f"this model's ids lie between 0 and {num_ids - 1}"
                )
        return Sampler(
            config,
            self.stop_ids,
            self.excluded_ids,
            num_top=num_top,
            num_ids=num_ids,
            grammar=grammar,
        )


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
        seen_ids: Sequence[int],
        budget: int,
        continues: bool = True,
    ) -> None:
        self.sampler = sampler
        self.vocabulary = vocabulary
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        """One for each of `tokens`."""
        self.logprob = 0.0
        """Sum over all tokens chosen, the end and those of a stop string included, in nats."""
        self.finish_reason: FinishReason | None = None
        self.stop_id: int | None = None
        """The token with which the model ended the answer."""
        self.num_fed = 0
        self._num_chosen = 0
        self._seen = array("q", seen_ids)
        self._budget = budget
        self._decoder = IncrementalDecoder(vocabulary.tokenizer, continues)
        self._stream = TextStream(self._decoder, sampler.config.stop)
        self._ends: list[int] = []
        """Characters of text after each token; more than there can be where a character is cut."""
        self._num_taken = 0
        self._grammar: GrammarState | BeginningState | None = (
            None if sampler.grammar is None else sampler.grammar.start(continues)
        )

    @property
    def is_done(self) -> bool:
        """Whether the answer has ended."""
        return self.finish_reason is not None

    @property
    def seen_ids(self) -> Sequence[int]:
        """Text tokens before this answer and in it; not to be changed."""
        return self._seen

    @property
    def max_tokens(self) -> int:
        """Longest this answer can become."""
        return min(self.sampler.config.max_new_tokens, self._budget)

    @property
    def text(self) -> str:
        """The answer's text so far, without what is still held back."""
        return self._stream.text

    @property
    def mean_logprob(self) -> float:
        """`logprob` per token chosen; 0 before the first."""
        return self.logprob / max(self._num_chosen, 1)

    @property
    def turn(self) -> Turn:
        """What `choose_rows` needs to choose the next token."""
        return Turn(self.sampler, self._seen, len(self.tokens), self._grammar)

    def append(self, chosen: TokenLogprob) -> str:
        """Takes a token that was chosen; returns text that can be shown now."""
        token = chosen.token
        self.logprob += chosen.logprob
        self._num_chosen += 1
        if token in self.sampler.stop_ids:
            self.stop_id = token
            return self._finish(FinishReason.stop_token)
        if self._grammar is not None:
            self._grammar.accept(token)
            if self._grammar.allows_all:
                self._grammar = None
        self.tokens.append(token)
        self._seen.append(token)
        self.logprobs.append(chosen)
        is_mark = token in self.vocabulary.marks
        text = self._stream.finish() if is_mark else self._stream.push(token)
        self._ends.append(self._stream.num_known if self._decoder.is_whole else _NEVER)
        if self._stream.stopped:
            self._drop_tokens_of_stop()
            self.finish_reason = FinishReason.stop_string
        elif len(self.tokens) == self.sampler.config.max_new_tokens:
            text += self._finish(FinishReason.max_new_tokens)
        elif len(self.tokens) == self._budget:
            text += self._finish(FinishReason.context)
        return text

    def stop(self) -> str:
        """Ends the answer where it is; returns text that was kept back."""
        return self._finish(FinishReason.stopped)

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Returns the tokens that became certain since the last call: no stop string drops them."""
        count = len(self.tokens)
        if self.sampler.config.stop and not self.is_done:
            shown = len(self.text)
            while count > self._num_taken and self._ends[count - 1] > shown:
                count -= 1
        taken = tuple(self.logprobs[self._num_taken : count])
        self._num_taken = count
        return taken

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
        count = len(self.tokens)
        while count and self._ends[count - 1] > len(self.text):
            count -= 1
        for kept in (self.tokens, self.logprobs, self._ends):
            del kept[count:]


def accept_rows(logits_BV: Tensor, answers: Sequence[Answer]) -> list[str | Exception]:
    """Chooses the next token of every answer from the model's logits; none may be done.

    Returns:
        For each answer the text that can be shown now, or why it cannot go on: its logits are not
        finite, or no token can come next. The others have got their token all the same.
    """
    chosen = choose_rows(logits_BV, [answer.turn for answer in answers])
    return [
        one if isinstance(one, Exception) else answer.append(one)
        for one, answer in zip(chosen, answers, strict=True)
    ]

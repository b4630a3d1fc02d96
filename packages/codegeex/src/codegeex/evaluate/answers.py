"""Many prompts answered together by the engine, in the order in which they were asked."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from glm_core.infer.beginning import Begins
from glm_core.infer.blanks import Prompt
from glm_core.infer.engine import BlankAnswer, Engine, EngineRequest, Ticket
from glm_core.infer.sampling import SamplingConfig

_AHEAD = 2
"""Requests under way for each that can run at once: a finished one is followed at once."""


IsOver = Callable[[str, str], bool]
"""Told a growing text and its newest piece: whether it holds a whole answer."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One answer wanted."""

    key: str
    """The task, and what else the seed depends on."""
    number: int
    """Which answer to it."""
    prompt: Prompt
    is_over: IsOver
    begins: str = ""
    """What the answer must begin with; it is no part of the text that comes back."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end the answer, beside the model's own."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the model wrote."""

    question: Question
    text: str
    finish: str
    """As glm_core's `FinishReason`; `stopped` where `is_over` ended it."""
    num_tokens: int


def answers(
    engine: Engine, questions: Iterable[Question], sampling: SamplingConfig
) -> Iterator[Answered]:
    """Yields an answer to each question; leaving early cancels what is under way.

    Every answer has a seed of its own, made of the sampling's seed, the question's key and its
    number: it does not depend on which answers were made before.

    Raises:
        ValueError: a question can never be answered: its prompt is too long.
        EngineError: the engine failed.
    """
    under_way: deque[tuple[Question, Ticket]] = deque()
    most = _AHEAD * engine.config.max_running
    try:
        for question in questions:
            under_way.append((question, engine.submit(_request(question, sampling))))
            if len(under_way) >= most:
                yield _next(under_way)
        while under_way:
            yield _next(under_way)
    finally:
        for _, ticket in under_way:
            ticket.cancel()


def seed_of(seed: int, key: str, number: int) -> int:
    """Returns the seed of one answer."""
    digest = hashlib.blake2b(f"{seed}\0{key}\0{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _request(question: Question, sampling: SamplingConfig) -> EngineRequest:
    return EngineRequest(
        prompt=question.prompt,
        sampling=replace(
            sampling,
            seed=seed_of(sampling.seed, question.key, question.number),
            stop_token_ids=[*sampling.stop_token_ids, *question.stop_ids],
            max_new_tokens=sampling.max_new_tokens + len(question.begins),
        ),
        grammar=Begins(question.begins.encode()) if question.begins else None,
        watch=lambda _: _Watch(question.is_over, len(question.begins)),
    )


@dataclass
class _Watch:
    """Puts an answer's pieces together."""

    is_over: IsOver
    skips: int
    """Characters that are no part of the answer."""
    text: str = field(default="")

    def __call__(self, piece: str) -> bool:
        self.text += piece
        new = piece[max(0, len(piece) - len(self.text) + self.skips) :]
        return bool(new) and self.is_over(self.text[self.skips :], new)


def _next(under_way: deque[tuple[Question, Ticket]]) -> Answered:
    question, ticket = under_way[0]
    answer: BlankAnswer = ticket.outcome().choices[0][0]
    under_way.popleft()
    return Answered(
        question=question,
        text=answer.text[len(question.begins) :],
        finish=str(answer.finish_reason),
        num_tokens=len(answer.tokens),
    )

"""What one asks of the engine, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glm_core.infer.answer import Answer, FinishReason
from glm_core.infer.blanks import Prompt
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import SamplingConfig

if TYPE_CHECKING:
    from glm_core.infer.grammar import Grammar


Watcher = Callable[[str], bool]
"""Is told each new text of an answer, by the engine's thread, for which it must be quick. When it
returns True the answer ends there, and no other token is decoded for it."""


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """One prompt and how to answer it."""

    prompt: Prompt
    """What the model reads; every blank in it is filled."""
    sampling: SamplingConfig
    """How the answers are decoded; beams are none of the engine's."""
    choices: int = 1
    """Answers wanted. The prompt is read once; answer i has the seed `seed_of_choice(seed, i)`."""
    marks: tuple[int, ...] = ()
    """Special ids that an answer may hold, such as those of a chat format's roles."""
    grammar: Grammar | None = None
    """What every answer must be."""
    draft: tuple[int, ...] = ()
    """A guess of the answer: what of it the model would write is read in few steps, and not in one
    for each token. The answer is the same with any draft; only the first blank has one."""
    watch: Callable[[int], Watcher] | None = None
    """Returns what watches answer i; called by `submit`."""
    logprobs: int | None = None
    """How many alternatives come with each token's log-probability; None: nobody looks at them."""
    prompt_logprobs: int | None = None
    """As `logprobs`, for the tokens of the prompt. The prompt is read anew for it."""
    adapter: str = ""
    """Name under which a LoRA or a tuned prefix was loaded; empty for the model alone."""
    priority: int = 0
    """Lower is served first; of equal ones, the first that came."""
    client: str = ""
    """Who asks."""
    newest_wins: bool = False
    """Unfinished requests of the same client are cancelled, as an editor's older ones are."""
    timeout_s: float | None = None
    """Seconds after which the request is given up."""

    def __post_init__(self) -> None:
        _require(self.choices >= 1, "choices", self.choices, "be at least 1")
        for name, count in (("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            _require(count is None or count >= 0, name, count, "be at least 0, or None")
        _require(
            self.timeout_s is None or self.timeout_s > 0, "timeout_s", self.timeout_s, "be above 0"
        )
        _require(
            self.sampling.num_beams == 1,
            "sampling.num_beams",
            self.sampling.num_beams,
            "be 1 in the engine; use TextGenerator.generate for beam search",
        )
        _require(
            bool(self.client) or not self.newest_wins,
            "client",
            self.client,
            "name the client when newest_wins is set",
        )


@dataclass(frozen=True)
class BlankAnswer:
    """What was written into one blank."""

    marker: str
    """[MASK], [sMASK] or [gMASK]; empty for the continuation of a causal model."""
    text: str
    tokens: tuple[int, ...]
    """Marks included, the end left out."""
    logprobs: tuple[TokenLogprob, ...]
    """One for each of `tokens`."""
    logprob: float
    """Sum over all tokens chosen, the end's included, in nats, before any sampling rule."""
    mean_logprob: float
    """`logprob` per token chosen."""
    finish_reason: FinishReason
    stop_id: int | None
    """The token with which the model ended the answer."""

    @classmethod
    def of(cls, marker: str, answer: Answer) -> BlankAnswer:
        """Returns the record of an answer that has ended."""
        assert answer.finish_reason is not None
        return cls(
            marker,
            answer.text,
            tuple(answer.tokens),
            tuple(answer.logprobs),
            answer.logprob,
            answer.mean_logprob,
            answer.finish_reason,
            answer.stop_id,
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new in one answer."""

    choice: int
    """Which of the request's answers."""
    blank: int
    """Which blank of the prompt."""
    text: str
    """Characters that became certain; may be empty."""
    tokens: tuple[TokenLogprob, ...]
    """Tokens that became certain; every token of an answer is in one of its pieces."""
    mark: int | None = None
    """The last of `tokens`, if it is one of the request's marks; it comes after `text`."""
    end: BlankAnswer | None = None
    """The whole answer, with its last piece."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt: int
    """Those the model had to know before it answered."""
    cached: int
    """Those of the prompt that had been read for other requests."""
    completion: int
    """Those of all answers, their ends not counted."""


@dataclass(frozen=True)
class Timings:
    """Seconds of one request."""

    queued_s: float
    """From its arrival until its prompt was begun."""
    prompt_s: float
    """Reading the prompt, beside all other work."""
    first_token_s: float
    """From its arrival to its first token."""
    total_s: float
    """From its arrival to its end."""


@dataclass(frozen=True)
class Outcome:
    """A request that has ended by itself."""

    choices: tuple[tuple[BlankAnswer, ...], ...]
    """For each answer wanted, each blank of the prompt."""
    usage: Usage
    timings: Timings
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    """Of every token of the prompt but the first, which comes after nothing."""


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}: it must {rule}")

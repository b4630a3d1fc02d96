"""What comes back of a completion."""

from __future__ import annotations

from dataclasses import dataclass

from glm_core.infer.engine import Timings, Usage
from glm_core.infer.logprobs import TokenLogprob


@dataclass(frozen=True)
class Completion:
    """One text for the hole."""

    text: str
    """In the line endings of the file."""
    tokens: tuple[int, ...]
    """Of the text; the last one may go beyond its end, the first may begin before it."""
    mean_logprob: float
    """Log-probability per token, in nats; 0 without tokens."""
    finish_reason: str
    """stop: it ended by itself or a rule ended it; length: it was as long as was allowed."""
    stop_type: str
    """eos: the model ended it; word: one of the stop strings; limit: tokens or time; rule."""
    stopping_word: str = ""
    """The stop string that ended it."""
    rule: str = ""
    """The rule that ended it."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `tokens`."""
    choice: int = 0
    """Which of the answers that were tried it is; as in its pieces."""


@dataclass(frozen=True)
class CompletionPiece:
    """What is new in one of the answers. What was given is never taken back."""

    choice: int
    text: str
    end: Completion | None = None
    """The whole completion, with its last piece."""


@dataclass(frozen=True)
class Completed:
    """A request that has ended by itself."""

    choices: tuple[Completion, ...]
    """The best first, none twice; none for a request that only reads the prompt."""
    usage: Usage
    timings: Timings

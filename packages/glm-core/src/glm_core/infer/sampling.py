"""How the next token is chosen from a model's scores.

The order of the rules: what a grammar allows, repetition penalty, presence and frequency penalty,
logit bias, tokens that no answer holds, top-k, temperature, top-p and min-p.
Letters: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from glm_core.infer.logprobs import TokenLogprob, log_normalizer, top_logprobs
from glm_core.infer.sampling_rules import (
    Scores,
    as_ids,
    candidates,
    draw,
    penalize_repetition,
    penalize_use,
)

if TYPE_CHECKING:
    from glm_core.infer.beginning import Beginning, BeginningState
    from glm_core.infer.grammar import CompiledGrammar, GrammarState


MAX_PENALTY = 2
MAX_BIAS = 100
"""Bounds of the OpenAI API reference for presence and frequency penalty, and for logit_bias."""


@dataclass(kw_only=True, slots=True)
class SamplingConfig:
    """How an answer is decoded. The default is greedy."""

    max_new_tokens: int = 64
    """Longest answer in tokens, for each blank by itself."""
    min_new_tokens: int = 0
    """The answer cannot end before it has this many tokens."""
    temperature: float = 0.0
    """Divides the logits; 0 takes the most probable token."""
    top_k: int = 0
    """Sample among the k most probable tokens; 0 means all."""
    top_p: float = 1.0
    """Sample among the fewest tokens that together have this probability."""
    min_p: float = 0.0
    """Sample among tokens at least this many times as probable as the most probable one."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that already stand in the text less probable."""
    presence_penalty: float = 0.0
    """Taken off the logit of every token that the answer already holds."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token for each time that the answer holds it."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    """Added to the logits of these ids."""
    num_beams: int = 1
    """Hypotheses followed at a time; above 1 is beam search."""
    length_penalty: float = 1.0
    """Beam search divides a hypothesis' log-probability by its length to this power."""
    seed: int = 0
    """Seed of this request's own random generator."""
    stop: list[str] = field(default_factory=list)
    """The answer ends before the first of these strings."""
    stop_token_ids: list[int] = field(default_factory=list)
    """These tokens end the answer too, as the model's own end does; they are no part of it."""

    def __post_init__(self) -> None:
        self._require(self.max_new_tokens >= 1, "max_new_tokens", "be at least 1")
        self._require(
            0 <= self.min_new_tokens <= self.max_new_tokens,
            "min_new_tokens",
            f"lie between 0 and max_new_tokens ({self.max_new_tokens})",
        )
        self._require(
            0.0 <= self.temperature < float("inf"),
            "temperature",
            "be a finite number of at least 0; 0 is greedy",
        )
        self._require(self.top_k >= 0, "top_k", "be at least 0; 0 keeps all tokens")
        self._require(0.0 < self.top_p <= 1.0, "top_p", "lie in (0, 1]; 1 keeps all tokens")
        self._require(0.0 <= self.min_p <= 1.0, "min_p", "lie in [0, 1]; 0 keeps all tokens")
        self._require(
            0.001 <= self.repetition_penalty <= 1000.0,  # beyond it logits overflow
            "repetition_penalty",
            "lie between 0.001 and 1000; 1 changes nothing",
        )
        self._check_penalties()
        self._require(self.num_beams >= 1, "num_beams", "be at least 1; 1 is no beam search")
        self._require(
            self.num_beams == 1 or self.temperature == 0.0,
            "num_beams",
            f"be 1 when temperature is {self.temperature}; set temperature=0 for beam search",
        )
        self._require(
            -10.0 <= self.length_penalty <= 10.0, "length_penalty", "lie between -10 and 10"
        )
        self._require(-(2**63) <= self.seed < 2**63, "seed", "fit into 64 bits")
        self._require("" not in self.stop, "stop", "hold no empty string")
        self._require(
            all(token >= 0 for token in self.stop_token_ids), "stop_token_ids", "hold no id below 0"
        )

    def _check_penalties(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            self._require(
                -MAX_PENALTY <= value <= MAX_PENALTY,
                name,
                f"lie between -{MAX_PENALTY} and {MAX_PENALTY}; 0 changes nothing",
            )
        self._require(
            all(
                token >= 0 and -MAX_BIAS <= bias <= MAX_BIAS
                for token, bias in self.logit_bias.items()
            ),
            "logit_bias",
            f"name ids of at least 0 and numbers between -{MAX_BIAS} and {MAX_BIAS}",
        )

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"sampling.{name} is {getattr(self, name)!r}: it must {rule}")


class DamagedLogits(ValueError):
    """The model gave NaN or infinity: nothing that was asked for is to blame."""


class Sampler:
    """Chooses the tokens of one request; owns its random generator.

    Args:
        config: how to choose.
        stop_ids: tokens that end an answer; impossible before `min_new_tokens`. Those of
            `config.stop_token_ids` are added.
        excluded_ids: tokens that no answer holds: marks of the format, padding rows of the head.
        num_top: alternatives given with each token's log-probability.
        num_ids: rows of the head that are tokens; by default all.
        grammar: what every answer of the request must be.
    """

    def __init__(
        self,
        config: SamplingConfig,
        stop_ids: Sequence[int],
        excluded_ids: Sequence[int],
        *,
        num_top: int = 0,
        num_ids: int | None = None,
        grammar: CompiledGrammar | Beginning | None = None,
    ) -> None:
        if grammar is not None and config.num_beams > 1:
            raise ValueError(
                f"sampling.num_beams is {config.num_beams}: it must be 1 with a grammar"
            )
        if num_top < 0:
            raise ValueError(f"logprobs is {num_top}: it must be at least 0")
        self.config = config
        self.grammar = grammar
        self.stop_ids = frozenset([*stop_ids, *config.stop_token_ids])
        self.num_top = num_top
        self.num_ids = num_ids
        excluded = set(excluded_ids) - self.stop_ids
        self._forbidden = frozenset(excluded)
        self._stops = as_ids(sorted(self.stop_ids))
        self._excluded = as_ids(sorted(excluded))
        self._bias_ids = as_ids(list(config.logit_bias))
        self._biases = np.asarray(list(config.logit_bias.values()), dtype=np.float32)
        self._has_rules = bool(
            config.repetition_penalty != 1.0
            or config.presence_penalty
            or config.frequency_penalty
            or config.logit_bias
        )
        self._generator = torch.Generator().manual_seed(config.seed)

    def restrict(
        self,
        scores_V: Scores,
        seen_ids: Sequence[int],
        num_new: int,
        grammar: GrammarState | BeginningState | None = None,
    ) -> Scores:
        """Returns a copy with the penalties applied and -inf for what cannot come next.

        Args:
            scores_V: logits or log-probabilities.
            seen_ids: tokens of the text so far, the answer's at the end.
            num_new: tokens of the answer so far.
            grammar: what the answer may still become.
        """
        scores_V = scores_V.copy() if grammar is None else self._allow(scores_V, grammar)
        if self._has_rules:
            self._penalize(scores_V, seen_ids, num_new)
        scores_V[self._excluded] = -np.inf
        must_end = grammar is not None and grammar.is_done
        if num_new < self.config.min_new_tokens and not must_end:
            scores_V[self._stops] = -np.inf
        return scores_V

    def choose(
        self,
        logits_V: Tensor,
        seen_ids: Sequence[int],
        num_new: int,
        grammar: GrammarState | BeginningState | None = None,
    ) -> TokenLogprob:
        """Chooses the next token; the arguments are those of `restrict`.

        Raises:
            DamagedLogits: the model gave NaN or infinity.
            ValueError: nothing is possible.
        """
        raw_V = logits_V.detach().float().cpu().numpy()
        normalizer = log_normalizer(raw_V)
        _check_finite(normalizer)
        token = self._choose(raw_V, seen_ids, num_new, grammar)
        top = top_logprobs(raw_V[: self.num_ids], normalizer, self.num_top) if self.num_top else ()
        return TokenLogprob(token, float(raw_V[token]) - normalizer, top)

    def takes_best(self, token: int, num_new: int) -> bool:
        """Whether the most probable token is chosen as it is, no rule changing anything."""
        return (
            self.config.temperature == 0.0
            and not self._has_rules
            and token not in self._forbidden
            and (num_new >= self.config.min_new_tokens or token not in self.stop_ids)
        )

    def _choose(
        self,
        raw_V: Scores,
        seen_ids: Sequence[int],
        num_new: int,
        grammar: GrammarState | BeginningState | None,
    ) -> int:
        if grammar is None and self.config.temperature == 0.0:
            best = int(raw_V.argmax())
            if self.takes_best(best, num_new):
                return best
        config = self.config
        scores_V = self.restrict(raw_V, seen_ids, num_new, grammar)
        best = int(scores_V.argmax())
        if scores_V[best] == -np.inf:
            raise ValueError("no token can come next: the rules of this request exclude all")
        if config.temperature == 0.0:
            return best
        ids, weights_C = candidates(
            scores_V, config.temperature, config.top_k, config.top_p, config.min_p
        )
        index = draw(weights_C, self._generator)
        return index if ids is None else int(ids[index])

    def _allow(self, scores_V: Scores, grammar: GrammarState | BeginningState) -> Scores:
        """A copy with -inf for what the grammar does not allow; ends are allowed where it may."""
        allowed = np.zeros(scores_V.shape, dtype=np.bool_)
        mask = grammar.mask()
        allowed[: mask.size] = mask
        allowed[self._stops] = grammar.may_end
        return np.where(allowed, scores_V, np.float32(-np.inf))

    def _penalize(self, scores_V: Scores, seen_ids: Sequence[int], num_new: int) -> None:
        config = self.config
        if config.repetition_penalty != 1.0 and seen_ids:
            penalize_repetition(scores_V, as_ids(seen_ids), config.repetition_penalty)
        if num_new and (config.presence_penalty or config.frequency_penalty):
            new = as_ids(seen_ids[-num_new:])
            penalize_use(scores_V, new, config.presence_penalty, config.frequency_penalty)
        scores_V[self._bias_ids] += self._biases


def _check_finite(normalizer: float) -> None:
    if not np.isfinite(normalizer):
        raise DamagedLogits(
            "the model's logits are not finite: the weights are damaged, or overflow in this "
            "dtype (load the model with dtype=torch.float32)"
        )

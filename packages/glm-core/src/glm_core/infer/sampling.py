"""How the next token is chosen from a model's scores.

Each rule is a small function from logits [..., V] to logits [..., V]; excluded tokens get -inf.
The rules and their order are those of transformers' logits processors, which the tests use as
oracle. Letters: V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


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
    num_beams: int = 1
    """Hypotheses followed at a time; above 1 is beam search."""
    length_penalty: float = 1.0
    """Beam search divides a hypothesis' log-probability by its length to this power."""
    seed: int = 0
    """Seed of this request's own random generator."""
    stop: list[str] = field(default_factory=list)
    """The answer ends before the first of these strings."""

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
            0.0 < self.repetition_penalty < float("inf"),
            "repetition_penalty",
            "be a positive number; 1 changes nothing",
        )
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

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"sampling.{name} is {getattr(self, name)!r}: it must {rule}")


def penalize_repetition(logits: Tensor, token_ids: Tensor, penalty: float) -> Tensor:
    """Divides positive logits of `token_ids` by `penalty` and multiplies negative ones.

    Args:
        logits: [..., V].
        token_ids: int64 [..., M], tokens that already stand in the text; repeats count once.
        penalty: above 1 makes them less probable.

    Source: arXiv 1909.05858, section 4.1.
    """
    seen = logits.gather(-1, token_ids)
    return logits.scatter(-1, token_ids, torch.where(seen > 0, seen / penalty, seen * penalty))


def exclude_tokens(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Makes the tokens `token_ids` (int64 [M]) impossible."""
    return logits.index_fill(-1, token_ids, float("-inf"))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keeps the k largest logits (and those equal to the k-th)."""
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the fewest most probable tokens whose probabilities add up to at least p.

    Source: arXiv 1904.09751, section 3.1 (nucleus sampling).
    """
    ascending, order = logits.sort(dim=-1)
    cumulative = ascending.softmax(dim=-1).cumsum(dim=-1)
    drop_sorted = cumulative <= 1.0 - p
    drop_sorted[..., -1] = False
    drop = torch.zeros_like(drop_sorted).scatter(-1, order, drop_sorted)
    return logits.masked_fill(drop, float("-inf"))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keeps tokens at least p times as probable as the most probable one.

    Source: arXiv 2407.01082, section 3.
    """
    probabilities = logits.softmax(dim=-1)
    floor = p * probabilities.max(dim=-1, keepdim=True).values
    return logits.masked_fill(probabilities < floor, float("-inf"))


def draw(logits_V: Tensor, generator: torch.Generator) -> int:
    """Draws one token by inverting the cumulative distribution at one uniform number.

    One number per token, whatever the vocabulary or the batch, keeps a request's draws its own. In
    float64, since the sum over a vocabulary of 150,000 loses four digits in float32.
    """
    cumulative = logits_V.double().softmax(dim=-1).cumsum(dim=-1).cpu()
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    # right=True steps over tokens of probability zero, where the sum does not rise.
    index = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    last_possible = int(logits_V.isfinite().nonzero()[-1])
    return min(index, last_possible)


def shape_distribution(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Applies temperature, top-k, top-p and min-p, in this order. `temperature` must not be 0."""
    logits = logits / config.temperature
    if config.top_k > 0:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1.0:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p > 0.0:
        logits = keep_min_p(logits, config.min_p)
    return logits


class Sampler:
    """Chooses the tokens of one request; owns its random generator.

    Args:
        config: how to choose.
        stop_ids: tokens that end an answer; impossible before `min_new_tokens`.
        excluded_ids: tokens that no answer holds: marks of the format, padding rows of the head.
    """

    def __init__(
        self, config: SamplingConfig, stop_ids: list[int], excluded_ids: list[int]
    ) -> None:
        self.config = config
        self._excluded = torch.tensor(excluded_ids, dtype=torch.int64)
        self._excluded_early = torch.tensor(excluded_ids + stop_ids, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(config.seed)

    def restrict(self, scores: Tensor, seen_ids: list[int], num_new: int) -> Tensor:
        """Applies the repetition penalty and excludes what cannot come next.

        Args:
            scores: logits or log-probabilities, [V].
            seen_ids: tokens of the text so far.
            num_new: tokens of the answer so far.
        """
        if self.config.repetition_penalty != 1.0 and seen_ids:
            seen = torch.tensor(seen_ids, dtype=torch.int64, device=scores.device)
            scores = penalize_repetition(scores, seen, self.config.repetition_penalty)
        early = num_new < self.config.min_new_tokens
        excluded = self._excluded_early if early else self._excluded
        return exclude_tokens(scores, excluded.to(scores.device))

    def choose(self, logits_V: Tensor, seen_ids: list[int], num_new: int) -> tuple[int, float]:
        """Chooses the next token.

        Returns:
            The token and its log-probability under the model (before any rule), in nats.

        Raises:
            ValueError: the model gave NaN or infinity.
        """
        logits_V = logits_V.float()
        normalizer = logits_V.logsumexp(dim=-1)
        if not bool(normalizer.isfinite()):
            raise ValueError(
                "the model's logits are not finite: the weights are damaged, or overflow in this "
                "dtype (load the model with dtype=torch.float32)"
            )
        restricted = self.restrict(logits_V, seen_ids, num_new)
        if self.config.temperature == 0.0:
            token = int(restricted.argmax(dim=-1))
        else:
            token = draw(shape_distribution(restricted, self.config), self._generator)
        return token, float(logits_V[token] - normalizer)

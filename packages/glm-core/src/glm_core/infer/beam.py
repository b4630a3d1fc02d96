"""Beam search: the answer of highest score, following several hypotheses at a time.

Letters: R hypotheses followed (rows of the batch), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_core.infer.answer import Answer
from glm_core.infer.batch import DecodingBatch, Place
from glm_core.infer.stream import find_stop


@dataclass(frozen=True)
class Hypothesis:
    """A possible answer."""

    tokens: tuple[int, ...] = ()
    """Includes the stop token, when one ended it."""
    logprobs: tuple[float, ...] = ()
    """The model's own log-probability of each token, in nats."""
    total: float = 0.0
    """Sum of the log-probabilities after the sampling rules, in nats."""

    def score(self, length_penalty: float) -> float:
        """Returns the total divided by length ** length_penalty."""
        return self.total / float(len(self.tokens) ** length_penalty)


def beam_search(batch: DecodingBatch, answer: Answer, place: Callable[[int], Place]) -> Hypothesis:
    """Searches the best answer; follows transformers' rules (early_stopping=False).

    Args:
        batch: one row, whose logits are those of the answer's first token. Afterwards it has as
            many rows as there are beams, which hold what was tried.
        answer: gives the sampler, the stop tokens and the longest length; it is not changed.
        place: place of the answer's token i as input.

    Returns:
        The finished hypothesis with the highest score.
    """
    config = answer.sampler.config
    running, finished = [Hypothesis()], list[Hypothesis]()
    for length in range(1, answer.max_tokens + 1):
        candidates = _expand(batch.logits_BV, running, answer)
        next_running: list[tuple[int, Hypothesis]] = []
        for rank, (parent, hypothesis) in enumerate(candidates):
            if length == answer.max_tokens or _has_ended(hypothesis, answer):
                # Like transformers: an ending ranked below the beams is not worth keeping.
                if rank < config.num_beams:
                    finished.append(hypothesis)
            elif len(next_running) < config.num_beams:
                next_running.append((parent, hypothesis))
        finished.sort(key=lambda h: h.score(config.length_penalty), reverse=True)
        del finished[config.num_beams :]
        running = [hypothesis for _, hypothesis in next_running]
        if not running or _cannot_improve(running[0], finished, answer):
            break
        batch.keep([parent for parent, _ in next_running])
        batch.step([(h.tokens[-1], place(length - 1)) for h in running])
    return finished[0]


def _expand(
    logits_RV: Tensor, running: list[Hypothesis], answer: Answer
) -> list[tuple[int, Hypothesis]]:
    """Returns the best continuations by one token with their parents' rows, best first."""
    logprobs_RV = logits_RV.detach().float().log_softmax(dim=-1).cpu()
    scores_RV = _among_tokens(logprobs_RV, answer.sampler.num_ids)
    totals_RV = torch.stack(
        [
            hypothesis.total
            + torch.from_numpy(
                answer.sampler.restrict(
                    scores_V, [*answer.seen_ids, *hypothesis.tokens], len(hypothesis.tokens)
                )
            )
            for hypothesis, scores_V in zip(running, scores_RV.numpy(), strict=True)
        ]
    )
    # Enough that num_beams remain when every beam's stop tokens come out on top.
    wanted = (1 + len(answer.sampler.stop_ids)) * answer.sampler.config.num_beams
    best = totals_RV.flatten().topk(min(wanted, totals_RV.numel()))
    candidates = []
    for total, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row, token = divmod(index, totals_RV.shape[1])
        if total > float("-inf"):
            old = running[row]
            logprob = float(logprobs_RV[row, token])
            new = Hypothesis((*old.tokens, token), (*old.logprobs, logprob), total)
            candidates.append((row, new))
    return candidates


def _among_tokens(logprobs_RV: Tensor, num_ids: int | None) -> Tensor:
    """Log-probabilities given that it is a token: what the padding rows of the head have must not
    decide between hypotheses."""
    if num_ids is None or num_ids >= logprobs_RV.shape[-1]:
        return logprobs_RV
    return logprobs_RV - logprobs_RV[:, :num_ids].logsumexp(dim=-1, keepdim=True)


def _has_ended(hypothesis: Hypothesis, answer: Answer) -> bool:
    if hypothesis.tokens[-1] in answer.sampler.stop_ids:
        return True
    stop = answer.sampler.config.stop
    if not stop:
        return False
    text = answer.vocabulary.tokenizer.decode(hypothesis.tokens)
    return find_stop(text, stop) is not None


def _cannot_improve(best: Hypothesis, finished: list[Hypothesis], answer: Answer) -> bool:
    config = answer.sampler.config
    if len(finished) < config.num_beams:
        return False
    return best.score(config.length_penalty) <= finished[-1].score(config.length_penalty)

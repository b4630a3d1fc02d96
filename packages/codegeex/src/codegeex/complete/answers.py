"""From what the engine answers to completions: texts shaped, duplicates dropped, best first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from codegeex.complete.completion import Completion
from codegeex.complete.watch import AnswerWatch
from glm_core.infer.answer import FinishReason
from glm_core.infer.engine import BlankAnswer
from glm_core.tokenizer.protocol import Tokenizer

_BY_LENGTH = (FinishReason.max_new_tokens, FinishReason.context)


def completion_of(
    choice: int, answer: BlankAnswer, watch: AnswerWatch, tokenizer: Tokenizer
) -> Completion:
    """Returns what an answer that has ended is worth.

    Args:
        choice: which of the request's answers it is.
        watch: what watched it.
    """
    shaper = watch.shaper
    text = shaper.finish(answer.text)
    count = num_tokens(answer.tokens, shaper.num_kept, tokenizer) if text else 0
    kept = answer.logprobs[:count]
    stop_type = _stop_type(answer, watch)
    return Completion(
        text=text,
        tokens=answer.tokens[:count],
        mean_logprob=sum(one.logprob for one in kept) / max(count, 1),
        finish_reason="length" if stop_type == "limit" else "stop",
        stop_type=stop_type,
        stopping_word=shaper.stop.word if shaper.stop else "",
        rule=shaper.stop.rule if shaper.stop else "",
        logprobs=kept,
        choice=choice,
    )


def num_tokens(tokens: Sequence[int], num_chars: int, tokenizer: Tokenizer) -> int:
    """Returns how many of an answer's tokens its first `num_chars` characters need."""
    data = b""
    for count, token in enumerate(tokens):
        if len(data.decode("utf-8", errors="ignore")) >= num_chars:
            return count
        data += tokenizer.decode_bytes([token])
    return len(tokens)


def best_of(completions: Iterable[Completion]) -> tuple[Completion, ...]:
    """Returns each text once, the most probable first; nothing at all is the last choice."""
    best: dict[str, Completion] = {}
    for one in completions:
        known = best.setdefault(one.text, one)
        if one.mean_logprob > known.mean_logprob:
            best[one.text] = replace(one, choice=known.choice)
    return tuple(
        sorted(best.values(), key=lambda one: (not one.text.strip(), -one.mean_logprob, one.choice))
    )


def _stop_type(answer: BlankAnswer, watch: AnswerWatch) -> str:
    if watch.shaper.stop is not None:
        return "word" if watch.shaper.stop.word else "rule"
    if watch.is_late or answer.finish_reason in _BY_LENGTH:
        return "limit"
    return "eos"

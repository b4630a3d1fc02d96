"""From answers to completions."""

from __future__ import annotations

import pytest

from codegeex.complete.answers import best_of, completion_of, num_tokens
from codegeex.complete.completion import Completion
from codegeex.complete.rules import Words
from codegeex.complete.shaper import Shaper
from codegeex.complete.watch import AnswerWatch
from glm_core.infer.answer import FinishReason
from glm_core.infer.engine import BlankAnswer
from glm_core.infer.logprobs import TokenLogprob
from glm_core.tokenizer import ByteBPETokenizer

TOKENIZER = ByteBPETokenizer.train(["x = größe + 1\n"] * 9, 290)


def _completion(text: str, logprob: float, choice: int = 0) -> Completion:
    return Completion(text, (), logprob, "stop", "eos", choice=choice)


def _answer(text: str, reason: FinishReason = FinishReason.stop_token) -> BlankAnswer:
    tokens = TOKENIZER.encode(text)
    logprobs = tuple(TokenLogprob(token, -float(index)) for index, token in enumerate(tokens))
    return BlankAnswer("", text, tuple(tokens), logprobs, 0.0, 0.0, reason, None)


def test_texts_come_once_and_the_most_probable_first() -> None:
    found = best_of(
        [
            _completion("", -0.1, 0),
            _completion("a", -2.0, 1),
            _completion("b", -1.0, 2),
            _completion("a", -0.5, 3),
            _completion("  ", -0.2, 4),
        ]
    )
    assert [one.text for one in found] == ["a", "b", "", "  "]
    assert (found[0].mean_logprob, found[0].choice) == (-0.5, 1)
    assert best_of([]) == ()


@pytest.mark.parametrize("size", range(14))
def test_tokens_are_as_many_as_the_text_needs(size: int) -> None:
    text = "x = größe + 1"
    ids = TOKENIZER.encode(text)
    count = num_tokens(ids, size, TOKENIZER)
    assert TOKENIZER.decode(ids[:count]).replace("\ufffd", "").startswith(text[:size])
    assert count == 0 or not TOKENIZER.decode(ids[: count - 1]).startswith(text[:size])


def test_probability_is_that_of_the_tokens_kept() -> None:
    watch = AnswerWatch(Shaper([Words(("+",))]))
    completion = completion_of(2, _answer("x = größe + 1"), watch, TOKENIZER)
    assert completion.text == "x = größe "
    count = len(completion.tokens)
    assert completion.tokens == tuple(TOKENIZER.encode("x = größe + 1"))[:count]
    assert completion.mean_logprob == -sum(range(count)) / count
    assert (completion.stop_type, completion.stopping_word, completion.choice) == ("word", "+", 2)
    nothing = completion_of(0, _answer("+"), AnswerWatch(Shaper([Words(("+",))])), TOKENIZER)
    assert (nothing.text, nothing.tokens, nothing.mean_logprob) == ("", (), 0.0)


@pytest.mark.parametrize(
    ("reason", "stop_type", "finish_reason"),
    [
        (FinishReason.stop_token, "eos", "stop"),
        (FinishReason.max_new_tokens, "limit", "length"),
        (FinishReason.context, "limit", "length"),
    ],
)
def test_finish_reason_says_what_ended_it(
    reason: FinishReason, stop_type: str, finish_reason: str
) -> None:
    found = completion_of(0, _answer("x", reason), AnswerWatch(Shaper()), TOKENIZER)
    assert (found.stop_type, found.finish_reason) == (stop_type, finish_reason)

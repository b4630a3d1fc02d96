"""The completer on a real engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from codegeex.complete import Completer, Options
from codegeex.hole import Hole, Mode
from glm_core.infer.engine import RequestCancelled

HOLE = Hole(prefix="def wrap(text):\n    retu", suffix="\n\n\ndef fill(text):\n    pass\n")


def test_pieces_join_to_the_outcome(completer: Completer) -> None:
    options = Options(max_new_tokens=20, temperature=1.0, num_choices=3, seed=4)
    pending = completer.submit(HOLE, options)
    texts, ends = ["", "", ""], {}
    for piece in pending:
        texts[piece.choice] += piece.text
        if piece.end is not None:
            ends[piece.choice] = piece.end
    completed = pending.outcome()
    assert [ends[choice].text for choice in range(3)] == texts
    assert {one.text for one in completed.choices} == set(texts)
    assert completed.choices == completer.submit(HOLE, options).outcome().choices


def test_async_pieces_join_to_the_outcome(completer: Completer) -> None:
    async def read() -> None:
        pending = completer.submit(HOLE, Options(max_new_tokens=12))
        text = ""
        async for piece in pending:
            text += piece.text
        assert [one.text for one in (await pending.aoutcome()).choices] == [text]

    asyncio.run(read())


def test_nothing_is_decoded_when_a_prompt_is_only_read(completer: Completer) -> None:
    warmed = completer.warm(HOLE).outcome()
    assert warmed.choices == () and warmed.usage.completion == 0
    assert list(completer.warm(HOLE)) == []
    after = completer.submit(HOLE, Options(max_new_tokens=4)).outcome()
    assert after.usage.cached > 0.5 * after.usage.prompt


def test_request_is_gone_when_it_is_cancelled(completer: Completer) -> None:
    pending = completer.submit(HOLE, Options(max_new_tokens=100, raw=True))
    pending.cancel()
    with pytest.raises(RequestCancelled):
        pending.outcome()


def test_line_mode_ends_with_the_line_and_no_token_is_decoded_beyond(
    completer: Completer, script
) -> None:
    script(["rn text  \n    more = 1\n"])
    hole = replace(HOLE, mode=Mode.line)
    completed = completer.submit(hole, Options(max_new_tokens=50)).outcome()
    (only,) = completed.choices
    assert only.text == "rn text"
    assert (only.finish_reason, only.stop_type, only.rule) == ("stop", "rule", "one line")
    line = completer.tokenizer.encode(" return text  \n")
    assert completed.usage.completion <= len(line)

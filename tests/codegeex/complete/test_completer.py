"""The completer on a real engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from codegeex.complete import Completed, Completer, Options
from codegeex.fim import MIDDLE, PREFIX, SENTINELS, SUFFIX, fim_ids, format_of
from codegeex.hole import Hole, Mode
from glm_core.infer.engine import Engine, EngineConfig, RequestCancelled
from glm_core.model import Transformer, TransformerConfig
from glm_core.tokenizer import ByteBPETokenizer

Script = Callable[[list[str]], None]
HOLE = Hole(
    prefix="def wrap(text):\n    retu",
    suffix="\n\n\ndef fill(text):\n    pass\n",
    language="python",
)
PLAIN = Options(max_new_tokens=50)


def _one(completed: Completed) -> str:
    (only,) = completed.choices
    return only.text


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


@torch.no_grad()
def test_raw_text_is_what_the_model_finds_most_probable(
    completer: Completer, model: Transformer, tokenizer: ByteBPETokenizer
) -> None:
    plain = Completer(completer.engine, completer.format, "tiny", heals=False)
    found = plain.submit(HOLE, Options(max_new_tokens=9, raw=True)).outcome().choices[0]
    ids = fim_ids(HOLE, format_of(tokenizer), tokenizer, 400)
    forbidden = sorted(tokenizer.special_ids - {tokenizer.eos_id})
    for token in found.tokens:
        logits = model.logits(model(torch.tensor([ids])))[0, -1]
        logits[forbidden] = -torch.inf
        assert token == int(logits.argmax())
        ids.append(token)


def test_nothing_is_decoded_when_a_prompt_is_only_read(completer: Completer) -> None:
    warmed = completer.warm(HOLE).outcome()
    assert warmed.choices == () and warmed.usage.completion == 0
    assert list(completer.warm(HOLE)) == []
    after = completer.submit(HOLE, Options(max_new_tokens=4)).outcome()
    assert after.usage.cached > 0.5 * after.usage.prompt


def test_prompt_of_a_large_file_is_cut_alike_when_it_is_only_read(completer: Completer) -> None:
    large = replace(HOLE, prefix="x = 1\n" * 500 + HOLE.prefix)
    completer.warm(large).outcome()
    usage = completer.submit(large, Options(max_new_tokens=100)).outcome().usage
    assert usage.prompt > 250 and usage.cached >= usage.prompt - 16


def test_prefix_is_read_once_while_somebody_types(completer: Completer) -> None:
    body = "\n".join(f"    value_{index} = text[{index}]" for index in range(12))
    typed = replace(HOLE, prefix=f"def wrap(text):\n{body}\n    x")
    completer.submit(typed, PLAIN).outcome()
    for char in " = text":
        typed = replace(typed, prefix=typed.prefix + char)
        usage = completer.submit(typed, Options(max_new_tokens=1)).outcome().usage
        assert usage.prompt - usage.cached <= 16 + 8  # a page and the tokens that changed


def test_line_mode_ends_with_the_line_and_no_token_is_decoded_beyond(
    completer: Completer, script: Script
) -> None:
    script(["rn text  \n    more = 1\n"])
    hole = replace(HOLE, mode=Mode.line)
    before = completer.engine.stats().counters["completion_tokens"]
    completed = completer.submit(hole, PLAIN).outcome()
    (only,) = completed.choices
    assert only.text == "rn text"
    assert (only.finish_reason, only.stop_type, only.rule) == ("stop", "rule", "one line")
    decoded = completer.engine.stats().counters["completion_tokens"] - before
    line = completer.tokenizer.encode(" return text  \n    more")
    assert decoded == completed.usage.completion < len(line)


def test_slot_is_free_within_a_decode_step_when_a_request_is_cancelled(
    completer: Completer,
) -> None:
    pending = completer.submit(HOLE, Options(max_new_tokens=400, raw=True, temperature=1.0))
    next(iter(pending))
    with pytest.raises(RequestCancelled):
        pending.outcome()
    counters = completer.engine.stats().counters
    completer.engine.drain()
    after = completer.engine.stats()
    assert after.running == 0 and after.pages_used == 0
    assert after.counters["completion_tokens"] - counters["completion_tokens"] <= 1


def test_older_request_of_a_client_is_cancelled_by_a_newer_one(completer: Completer) -> None:
    options = Options(max_new_tokens=400, raw=True, client="editor", newest_wins=True)
    older = completer.submit(HOLE, options)
    newer = completer.submit(HOLE, replace(options, max_new_tokens=3))
    assert newer.outcome().choices
    with pytest.raises(RequestCancelled):
        older.outcome()


def test_request_is_gone_when_its_task_is_cancelled(completer: Completer) -> None:
    async def leave() -> None:
        pending = completer.submit(HOLE, Options(max_new_tokens=400, raw=True))
        task = asyncio.create_task(pending.aoutcome())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RequestCancelled):
            await pending.aoutcome()
        assert pending.is_done

    asyncio.run(leave())


def test_choices_come_once_and_the_best_first(completer: Completer, script: Script) -> None:
    script(["rn a\n", "rn b\n", "rn a  \n\n\n", "rn c\n"])
    options = Options(max_new_tokens=30, num_choices=4, temperature=1.0, logprobs=0)
    choices = completer.submit(HOLE, options).outcome().choices
    assert sorted(one.text for one in choices) == ["rn a", "rn b", "rn c"]
    logprobs = [one.mean_logprob for one in choices]
    assert logprobs == sorted(logprobs, reverse=True)
    for one in choices:
        assert [chosen.token for chosen in one.logprobs] == list(one.tokens)


def test_stop_string_ends_the_text_and_is_named(completer: Completer, script: Script) -> None:
    script(["rn text[2:].strip()"])
    (only,) = completer.submit(HOLE, Options(stop=("zz", ".strip"))).outcome().choices
    assert (only.text, only.stop_type, only.stopping_word) == ("rn text[2:]", "word", ".strip")


def test_forced_beginning_is_no_stop_string(completer: Completer, script: Script) -> None:
    script(["rn text"])
    assert _one(completer.submit(HOLE, Options(stop=("retu", "\n")))
                .outcome()) == "rn text"  # fmt: skip


def test_length_is_the_reason_when_the_text_is_cut(completer: Completer, script: Script) -> None:
    script(["rn text" * 40])
    (only,) = completer.submit(HOLE, Options(max_new_tokens=6)).outcome().choices
    assert (only.finish_reason, only.stop_type) == ("length", "limit")


def test_time_limit_ends_a_text_of_several_lines(completer: Completer, script: Script) -> None:
    script(["rn text\n    x = 1\n    y = 2\n    z = 3"])
    (only,) = completer.submit(HOLE, replace(PLAIN, time_limit_s=0.0)).outcome().choices
    assert only.text in ("rn text", "rn text\n    x")
    assert (only.finish_reason, only.stop_type) == ("length", "limit")


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_file_gets_its_line_endings_back(completer: Completer, script: Script, ending: str) -> None:
    script(["rn [\n        text,\n    ]\n"])
    prefix, suffix = HOLE.prefix.replace("\n", ending), HOLE.suffix.replace("\n", ending)
    lines = replace(HOLE, prefix=prefix, suffix=suffix)
    assert _one(completer.submit(lines, PLAIN).outcome()) == "rn [\n        text,\n    ]".replace(
        "\n", ending
    )


def test_model_sees_no_byte_order_mark_and_no_carriage_return(completer: Completer) -> None:
    marked = Hole(prefix="\ufeffx = 1\r\ny = ", suffix="\r\n")
    plain = Hole(prefix="x = 1\ny = ", suffix="\n")
    options = Options(max_new_tokens=6, raw=True)
    found, expected = (completer.submit(hole, options).outcome() for hole in (marked, plain))
    assert found.choices[0].tokens == expected.choices[0].tokens
    assert found.usage.prompt == expected.usage.prompt


def test_sentinels_in_code_are_text(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = []
    submit = completer.engine.submit
    monkeypatch.setattr(
        completer.engine, "submit", lambda request: prompts.append(request) or submit(request)
    )
    code = "".join([*SENTINELS, "<|endoftext|>"])
    completer.submit(Hole(prefix=code, suffix=code), Options(max_new_tokens=1)).outcome()
    completer.submit_text(f"{SUFFIX}{PREFIX}x{MIDDLE}", Options(max_new_tokens=1)).outcome()
    injected, written = (list(request.prompt.context_ids) for request in prompts)
    sentinels = [completer.tokenizer.token_id(name) for name in SENTINELS]
    assert all(injected.count(token) == 1 for token in sentinels)
    assert completer.tokenizer.eos_id not in injected
    assert all(written.count(token) == 1 for token in sentinels)


def test_prompt_that_a_client_wrote_follows_the_rules_of_its_hole(
    completer: Completer, script: Script
) -> None:
    script(["x)\n"])
    prompt = f"{SUFFIX})\r\n{PREFIX}print({MIDDLE}"
    assert _one(completer.submit_text(prompt, PLAIN).outcome()) == "x"
    assert _one(completer.submit_text(prompt, replace(PLAIN, raw=True)).outcome()) == "x)\n"
    assert _one(completer.submit_text("print(", PLAIN).outcome()) == "x)\n"
    assert _one(completer.submit_text("print(", Options(stop=(")",))).outcome()) == "x"


def test_long_prompt_of_a_client_is_cut_where_a_hole_is(completer: Completer) -> None:
    long = "x = 1\n" * 2000
    usage = completer.submit_text(f"{SUFFIX}\n{PREFIX}{long}{MIDDLE}", PLAIN).outcome().usage
    assert 200 < usage.prompt <= completer.context - PLAIN.max_new_tokens
    assert completer.submit_text(long, PLAIN).outcome().usage.prompt > 300


@pytest.mark.parametrize("prefix", ["", "x", "\n\n", "    ", "\ud800a", "a = '\ud83d"])
def test_hole_may_be_empty(completer: Completer, prefix: str) -> None:
    assert completer.submit(Hole(prefix=prefix), Options(max_new_tokens=3)).outcome().choices


def test_large_file_takes_no_longer_than_what_is_read_of_it(completer: Completer) -> None:
    large = Hole(prefix="x = 1\n" * 1_700_000, suffix="y = 2\n" * 1_700_000)
    start = time.perf_counter()
    assert completer.submit(large, Options(max_new_tokens=2)).outcome().usage.prompt < 512
    assert time.perf_counter() - start < 5.0


def test_binary_file_is_refused(completer: Completer) -> None:
    with pytest.raises(ValueError, match="a.out holds NUL characters: it is binary, not code"):
        completer.submit(Hole(prefix="\x7fELF\0\0", path="a.out"), PLAIN)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1: it must be at least 0"),
        ({"num_choices": 0}, "num_choices is 0: it must be at least 1"),
        ({"min_indent": -1}, "min_indent is -1: it must be at least 0"),
        ({"max_lines": -1}, "max_lines is -1: it must be at least 0"),
        ({"time_limit_s": -0.1}, "time_limit_s is -0.1: it must be at least 0, or None"),
        ({"stop": ("",)}, r"stop is \('',\): it must hold no empty string"),
    ],
)
def test_option_is_refused_when_it_means_nothing(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**fields)  # type: ignore[arg-type]


def test_request_is_refused_when_the_engine_cannot_have_it(completer: Completer) -> None:
    with pytest.raises(ValueError, match="choices is 9: it must be at most 6"):
        completer.submit(HOLE, Options(num_choices=9, temperature=1.0))
    with pytest.raises(ValueError, match=r"sampling.top_p is 0: it must lie in \(0, 1\]"):
        completer.submit(HOLE, Options(top_p=0))


def test_prompt_fits_when_more_is_wanted_than_the_context_has(completer: Completer) -> None:
    hole = replace(HOLE, prefix="x = 1\n" * 400)
    usage = completer.submit(hole, Options(max_new_tokens=100_000, raw=True)).outcome().usage
    assert completer.context // 4 < usage.prompt <= completer.context // 2


def test_model_goes_on_from_the_prefix_when_it_cannot_fill_in(
    completer: Completer, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(["rn text\n\n\ndef fill"])
    alone = Completer(completer.engine, None, "tiny")
    completed = alone.submit(HOLE, PLAIN).outcome()
    assert _one(completed) == "rn text"
    tag = completer.tokenizer.encode("# language: Python\n")
    prefix = completer.tokenizer.encode("def wrap(text):\n   ")
    assert completed.usage.prompt == len(tag) + len(prefix)
    with pytest.raises(ValueError, match="the prefix is empty, and this model was not taught"):
        alone.submit(Hole(prefix=""), PLAIN)


def test_model_with_blanks_is_refused(tokenizer: ByteBPETokenizer) -> None:
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        max_position_embeddings=64,
    )
    small = EngineConfig(max_running=1, cache_bytes=1 << 20)
    with Engine(Transformer(config), tokenizer, config=small) as engine:
        with pytest.raises(ValueError, match="glm fills blanks of its own kind and is no code"):
            Completer(engine, format_of(tokenizer), "glm")

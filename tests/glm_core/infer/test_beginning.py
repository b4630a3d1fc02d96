"""Answers that begin with given bytes: masks against every cut of the bytes, then any text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glm_core.infer import Begins, SamplingConfig, TextGenerator
from glm_core.infer.answer import Answer, Vocabulary, accept_rows
from glm_core.infer.beginning import Beginning, TokenBytes, token_bytes
from glm_core.infer.grammar import compile_grammar
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

TOKENIZER = ByteBPETokenizer.train(["return ret re größe 你好\xff\n        x"] * 9, 300)
PIECES = [TOKENIZER.decode_bytes([token]) for token in range(TOKENIZER.vocab_size)]


def _answer(data: bytes, seed: int, **fields: object) -> Answer:
    """An answer of random logits."""
    vocabulary = Vocabulary(TOKENIZER, TOKENIZER.vocab_size + 3)
    config = SamplingConfig(**{"temperature": 1.0, "seed": seed, "max_new_tokens": 30} | fields)
    sampler = vocabulary.sampler(config, grammar=compile_grammar(Begins(data), TOKENIZER))
    answer = Answer(sampler, vocabulary, [], budget=100)
    generator = torch.Generator().manual_seed(seed)
    while not answer.is_done:
        logits = torch.randn(1, TOKENIZER.vocab_size + 3, generator=generator) * 3
        (text,) = accept_rows(logits, [answer])
        assert isinstance(text, str), text
    return answer


@given(
    st.binary(min_size=1, max_size=6) | st.sampled_from([b"retu", b"    ", b"\xff\xff", b"\xe4"])
)
def test_tokens_are_those_with_which_the_bytes_can_begin(data: bytes) -> None:
    table = token_bytes(TOKENIZER)
    possible = {
        token
        for token, piece in enumerate(PIECES)
        if piece and (piece.startswith(data) or data.startswith(piece))
    }
    assert set(table.possible(data).tolist()) == possible
    assert len(table.possible(data)) == len(possible)
    longer = any(piece.startswith(data) and piece != data for piece in PIECES)
    assert table.has_longer(data) == longer


@pytest.mark.parametrize("data", [b"retu", "grö".encode(), "你".encode()[:2], b"      ", b"\xff"])
def test_answer_begins_with_the_bytes_at_any_seed(data: bytes) -> None:
    found = [_answer(data, seed) for seed in range(20)]
    for answer in found:
        assert TOKENIZER.decode_bytes(answer.tokens).startswith(data)
        assert not set(answer.tokens) & TOKENIZER.special_ids
    assert len({tuple(answer.tokens) for answer in found}) > 10


def test_nothing_is_required_once_the_bytes_have_come() -> None:
    state = Beginning(b"ret", TOKENIZER).start()
    assert not state.may_end and not state.allows_all
    state.accept(PIECES.index(b"r"))
    with pytest.raises(ValueError, match="cannot have the token .* it must go on with b'et'"):
        state.accept(PIECES.index(b"x"))
    with pytest.raises(ValueError, match="cannot have the token"):
        state.accept(TOKENIZER.eos_id)
    state.accept(PIECES.index(b"e"))
    state.accept(PIECES.index(b"t"))
    assert state.may_end and state.allows_all
    answer = _answer(b"ret", 0)
    assert answer.turn.grammar is None  # and choosing is as fast as without


def test_answer_can_go_on_within_its_first_token() -> None:
    assert np.isin(PIECES.index(b"return"), token_bytes(TOKENIZER).possible(b"retu"))
    vocabulary = Vocabulary(TOKENIZER, TOKENIZER.vocab_size)
    sampler = vocabulary.sampler(SamplingConfig(), grammar=Beginning(b"retu", TOKENIZER))
    answer = Answer(sampler, vocabulary, [], budget=9)
    logits = torch.zeros(1, TOKENIZER.vocab_size)
    logits[0, PIECES.index(b"x")], logits[0, PIECES.index(b"return")] = 9.0, 1.0
    assert accept_rows(logits, [answer]) == ["return"]
    assert accept_rows(logits, [answer]) == ["x"]


def test_end_waits_for_the_bytes_when_it_is_most_probable() -> None:
    answer = _answer(b"return", 1, logit_bias={TOKENIZER.eos_id: 100.0})
    assert answer.text == "return"


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "the beginning is empty: give at least one byte"), (b"Z", "no token for b'Z'")],
)
def test_beginning_is_refused_when_it_cannot_be_had(data: bytes, message: str) -> None:
    class NoZ:
        vocab_size, special_ids = TOKENIZER.vocab_size, TOKENIZER.special_ids

        def decode_bytes(self, ids: list[int]) -> bytes:
            return TOKENIZER.decode_bytes(ids).replace(b"Z", b"")

    with pytest.raises(ValueError, match=message):
        Beginning(data, NoZ())  # type: ignore[arg-type]


def test_bytes_are_sorted_once_for_a_tokenizer() -> None:
    assert token_bytes(TOKENIZER) is token_bytes(TOKENIZER)
    assert isinstance(token_bytes(TOKENIZER), TokenBytes)


def test_texts_begin_so_when_a_model_writes_them(
    build_model: Callable[..., Transformer], tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    generator = TextGenerator(model, tokenizer)
    config = SamplingConfig(max_new_tokens=12, temperature=1.0)
    for completion in generator.generate(["The", "A context"], config, Begins(b" manag")):
        assert completion.text.startswith(" manag")

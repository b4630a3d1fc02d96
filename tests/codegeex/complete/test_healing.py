"""The last tokens of a prompt, taken back where they may be half a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegeex.complete.healing import half_token
from glm_core.tokenizer import ByteBPETokenizer

TOKENIZER = ByteBPETokenizer.train(["    return returned\n        größe 你好"] * 20, 400)
PIECES = {TOKENIZER.decode_bytes([token]) for token in range(TOKENIZER.vocab_size)}


def test_word_is_taken_back_when_a_longer_token_begins_so() -> None:
    assert b" return" in PIECES
    assert half_token("    x\n    retu", TOKENIZER) == " retu"
    assert half_token("x = retu", TOKENIZER) in ("retu", " retu")


@pytest.mark.parametrize("prefix", ["", "x =?"])
def test_nothing_is_taken_back_when_no_token_goes_on(prefix: str) -> None:
    assert half_token(prefix, TOKENIZER) == ""


@given(st.text(alphabet="retun gö你好\n", max_size=20))
def test_what_is_taken_back_is_the_beginning_of_a_token(prefix: str) -> None:
    half = half_token(prefix, TOKENIZER)
    assert prefix.endswith(half)
    if half:
        data = half.encode()
        assert any(piece.startswith(data) and piece != data for piece in PIECES)
        # the tokens before it are those of the whole text
        ids = TOKENIZER.encode(prefix)
        assert any(
            TOKENIZER.decode_bytes(ids[:count]) == prefix.removesuffix(half).encode()
            for count in range(len(ids))
        )

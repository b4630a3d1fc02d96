"""What every released tokenizer inherits, on one whose pieces are letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_core.tokenizer import Tokenizer
from glm_core.tokenizer.base import ReleasedTokenizer

NAMES = ["</s>", "[MASK]", "[sMASK]", "[gMASK]", "sop", "eop", "[CLS]", "<dBLOCK>"]
SPECIALS = {name: 26 + rank for rank, name in enumerate(NAMES)}


class Letters(ReleasedTokenizer):
    kind = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def piece(self, token: int) -> bytes:
        return bytes([token + ord("a")])


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "letters.txt").write_text("a to z")
    return tmp_path / "letters.txt"


def letters(vocabulary: Path, **changes) -> Letters:
    options = {"nameless_ids": [34], "options": {"case": "lower"}, **changes}
    return Letters([vocabulary], SPECIALS, 35, ["eop", "</s>"], **options)


def test_protocol_is_fulfilled_when_every_special_token_is_there(vocabulary):
    tokenizer = letters(vocabulary)
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.mask_id, tokenizer.smask_id, tokenizer.gmask_id) == (27, 28, 29)
    assert (tokenizer.sop_id, tokenizer.eop_id, tokenizer.cls_id) == (30, 31, 32)
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.dblock_id) == (26, 26, 33)
    assert tokenizer.stop_ids == (26, 31)
    assert tokenizer.special_ids == set(range(26, 35))


def test_special_ids_give_nothing_when_decoded(vocabulary):
    tokenizer = letters(vocabulary)
    assert tokenizer.decode_bytes([26, 0, 34, 1, 30]) == b"ab"
    assert tokenizer.decode([0, 33, 25]) == "az"


def test_names_are_shown_when_there_is_one(vocabulary):
    tokenizer = letters(vocabulary)
    shown = [tokenizer.token_name(token) for token in (0, 26, 30, 34)]
    assert shown == ["a", "</s>", "sop", "<|reserved_34|>"]


@pytest.mark.parametrize("token", [-1, 35])
def test_error_names_the_id_when_it_is_outside_the_vocabulary(vocabulary, token):
    tokenizer = letters(vocabulary)
    for read in (tokenizer.decode, tokenizer.decode_bytes, lambda ids: tokenizer.token_name(*ids)):
        with pytest.raises(ValueError, match=f"token id {token} is outside the vocabulary of 35"):
            read([token])


def test_error_lists_the_names_when_a_special_token_is_unknown(vocabulary):
    with pytest.raises(ValueError, match=r"letters tokenizer has no .* '<\|user\|>': .*</s>, "):
        letters(vocabulary).token_id("<|user|>")


def test_files_and_settings_are_written_when_saved(vocabulary, tmp_path):
    letters(vocabulary).save(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "letters.txt").read_text() == "a to z"
    saved = json.loads((tmp_path / "a" / "b" / "tokenizer_config.json").read_text())
    assert (saved["kind"], saved["vocab_size"], saved["case"]) == ("letters", 35, "lower")
    assert saved["special_tokens"]["</s>"] == 26


def test_vocabulary_stays_when_saved_where_it_was(vocabulary):
    letters(vocabulary).save(vocabulary.parent)
    assert vocabulary.read_text() == "a to z"


def test_fingerprint_changes_when_anything_that_counts_does(vocabulary):
    first = letters(vocabulary).fingerprint()
    assert letters(vocabulary).fingerprint() == first
    assert letters(vocabulary, options={"case": "upper"}).fingerprint() != first
    vocabulary.write_text("b to z")
    assert letters(vocabulary).fingerprint() != first

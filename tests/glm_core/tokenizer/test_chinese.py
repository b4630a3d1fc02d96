"""The Chinese vocabulary: the library's ids, and both ways its special tokens were numbered."""

from __future__ import annotations

import json

import pytest
import sentencepiece

from glm_core.tokenizer import IncrementalDecoder, load_tokenizer
from glm_core.tokenizer.chinese import ChineseTokenizer, UnfixedChineseTokenizer

FIXED = ["<|endoftext|>", "[SEP]", "[CLS]", "[MASK]", "[UNK]"]


@pytest.fixture
def folder(tmp_path, chinese_model):
    (tmp_path / "cog-pretrain.model").write_bytes(chinese_model)
    return tmp_path


@pytest.fixture(scope="module")
def library(chinese_model):
    return sentencepiece.SentencePieceProcessor(model_proto=chinese_model)


@pytest.mark.parametrize(
    "text", ["你好，世界。", "  hello   there\n", "[CLS] [gMASK] <|endoftext|>"]
)
def test_ids_are_the_librarys_when_text_is_anything(folder, library, text):
    tokenizer = ChineseTokenizer.load(folder)
    assert tokenizer.encode(text) == library.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == library.decode(library.encode(text))
    assert not tokenizer.special_ids.intersection(tokenizer.encode(text))


def test_unknown_characters_are_text_when_encoded(folder, library):
    tokenizer = ChineseTokenizer.load(folder)
    ids = tokenizer.encode("你好龘")
    assert ids[-1] == library.unk_id()
    assert tokenizer.decode(ids) == library.decode(ids) == "你好 \u2047 "
    decoder = IncrementalDecoder(tokenizer)
    assert "".join(map(decoder.push, ids)) == tokenizer.decode(ids)


def test_special_ids_follow_the_pieces_when_fixed(folder, library):
    first = library.vocab_size()
    tokenizer = ChineseTokenizer.load(folder)
    assert [tokenizer.token_id(name) for name in FIXED] == list(range(first, first + 5))
    assert (tokenizer.sop_id, tokenizer.eop_id) == (first + 6, first + 7)
    assert (tokenizer.smask_id, tokenizer.gmask_id) == (first + 8, first + 9)
    assert tokenizer.pad_id == tokenizer.eos_id == first
    assert tokenizer.stop_ids == (first, first + 7)
    assert tokenizer.vocab_size == first + 10
    assert first + 5 in tokenizer.special_ids
    assert tokenizer.decode(range(first, first + 10)) == ""


def test_gmask_is_the_end_of_a_piece_when_unfixed(folder, library):
    first = library.vocab_size()
    tokenizer = load_tokenizer(folder, "chinese_sp_unfixed")
    assert isinstance(tokenizer, UnfixedChineseTokenizer)
    assert tokenizer.gmask_id == tokenizer.eop_id == first + 7
    assert tokenizer.smask_id == first + 8
    assert tokenizer.vocab_size == first + 9
    tokenizer.save(folder / "saved")
    assert load_tokenizer(folder / "saved").gmask_id == first + 7


def test_numbering_is_told_by_added_tokens_when_loaded(folder, library):
    path = folder / "added_tokens.json"
    assert load_tokenizer(folder).kind == "chinese_sp"
    for gmask, kind in ((9, "chinese_sp"), (7, "chinese_sp_unfixed")):
        path.write_text(json.dumps({"<|endofpiece|>": 7, "[gMASK]": gmask}))
        assert load_tokenizer(folder).kind == kind


@pytest.mark.parametrize("model", ["glm-10b-chinese", "glm-large-chinese"])
def test_ids_are_known_when_the_released_file_is_given(released, model):
    """Source: FlagAI's test of the same file."""
    tokenizer = released(model, "chinese_sp")
    assert tokenizer.encode("今天吃饭吃了肯德基") == [3378, 1567, 2613, 20282]
    assert tokenizer.decode([3378, 1567, 2613, 20282]) == "今天吃饭吃了肯德基"
    assert tokenizer.token_name(43371) == "人"
    assert [tokenizer.token_id(name) for name in FIXED] == list(range(50000, 50005))
    assert (tokenizer.sop_id, tokenizer.eop_id) == (50006, 50007)
    assert (tokenizer.smask_id, tokenizer.gmask_id) == (50008, 50009)

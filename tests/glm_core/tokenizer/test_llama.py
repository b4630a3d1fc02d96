"""LLaMA's vocabulary against the sentencepiece library."""

from __future__ import annotations

import json

import pytest
import sentencepiece

from glm_core.tokenizer import load_tokenizer
from glm_core.tokenizer.llama import LlamaTokenizer

TEXTS = ["hello there", " hello", "  x\n\ty", "👋 你好 e\u0301", "<s> </s> <unk> [PAD]", "\x00"]


@pytest.fixture
def folder(tmp_path, bpe_model):
    (tmp_path / "tokenizer.model").write_bytes(bpe_model)
    return tmp_path


@pytest.fixture(scope="module")
def library(bpe_model):
    return sentencepiece.SentencePieceProcessor(model_proto=bpe_model)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_librarys_when_text_is_anything(folder, library, text):
    tokenizer = LlamaTokenizer.load(folder)
    assert tokenizer.encode(text) == library.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ends_are_special_when_loaded(folder, library):
    tokenizer = LlamaTokenizer.load(folder)
    names = ("<unk>", "<s>", "<bos>", "</s>")
    assert [tokenizer.token_id(name) for name in names] == [0, 1, 1, 2]
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (2, 2, (2,))
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.vocab_size == library.vocab_size()
    assert not tokenizer.has("[MASK]")


def test_added_tokens_are_special_when_the_folder_names_some(folder, library):
    size = library.vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": size + 1, "<s>": 1}))
    tokenizer = load_tokenizer(folder, "llama")
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (size + 1, size + 2)
    assert tokenizer.decode([size, size + 1]) == ""
    assert size + 1 not in tokenizer.encode("<pad>")
    tokenizer.save(folder / "saved")
    assert load_tokenizer(folder / "saved").pad_id == size + 1


def test_error_names_both_files_when_an_added_token_is_inside_the_vocabulary(folder):
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 5}))
    with pytest.raises(ValueError, match=r"puts <pad> at 5, inside the \d+ pieces of tokenizer"):
        LlamaTokenizer.load(folder)


def test_file_is_refused_when_it_has_no_ends(tmp_path, train_sentencepiece):
    model = train_sentencepiece("unigram", vocab_size=200, bos_id=-1)
    (tmp_path / "tokenizer.model").write_bytes(model)
    with pytest.raises(ValueError, match="not LLaMA's: it has no special <s> and </s>"):
        LlamaTokenizer.load(tmp_path)


def test_ids_are_known_when_vicuna_is_given(released):
    tokenizer = released("vicuna-7b-v1.5", "llama")
    assert tokenizer.encode("Hello world") == [15043, 3186]
    assert (tokenizer.token_id("<s>"), tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 32000)

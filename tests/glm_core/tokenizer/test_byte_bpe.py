import json

import pytest

from glm_core.tokenizer import SPECIAL_TOKENS, ByteBPETokenizer, Tokenizer, token_lengths
from glm_core.tokenizer.byte_bpe import MIN_VOCAB_SIZE, byte_alphabet

TEXTS = ["The with statement wraps a block. It is a context manager in 2026.\n\n    x = 1\n"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return ByteBPETokenizer.train(TEXTS, 400)


def test_protocol_is_satisfied_when_checked_at_run_time(tokenizer):
    assert isinstance(tokenizer, Tokenizer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "The with",
        "\n\n  \t x",
        "naïve café",
        "日本語",
        "🙂 e\u0301",
        "\x00\x7f",
        "a" * 500,
    ],
)
def test_text_is_unchanged_when_encoded_and_decoded(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_special_id_never_appears_when_text_spells_it(tokenizer, name):
    ids = tokenizer.encode(f"a {name} b{name}")
    assert max(ids) < tokenizer.vocab_size - len(SPECIAL_TOKENS)
    assert tokenizer.decode(ids) == f"a {name} b{name}"


def test_special_id_never_appears_when_training_text_is_full_of_them():
    trained = ByteBPETokenizer.train(["[MASK] <|endoftext|> " * 50], 400)
    assert trained.mask_id not in trained.encode("[MASK] <|endoftext|>")
    assert trained.eos_id not in trained.encode("[MASK] <|endoftext|>")


def test_special_ids_follow_the_pieces_when_trained(tokenizer):
    ids = [tokenizer.token_id(name) for name in SPECIAL_TOKENS]
    assert ids == list(range(tokenizer.vocab_size - len(SPECIAL_TOKENS), tokenizer.vocab_size))
    named = [
        tokenizer.eos_id,
        tokenizer.cls_id,
        tokenizer.mask_id,
        tokenizer.smask_id,
        tokenizer.gmask_id,
        tokenizer.sop_id,
        tokenizer.eop_id,
        tokenizer.dblock_id,
    ]
    assert named == ids
    assert tokenizer.pad_id == tokenizer.eos_id


def test_specials_give_no_text_when_decoded(tokenizer):
    ids = [tokenizer.cls_id, *tokenizer.encode("wraps"), tokenizer.eop_id]
    assert tokenizer.decode(ids) == "wraps"


def test_digits_are_single_tokens_when_encoded(tokenizer):
    assert [tokenizer.token_name(token) for token in tokenizer.encode("2026")] == list("2026")


def test_batch_equals_single_when_encoded(tokenizer):
    texts = ["The with", "", "block é", "1 2"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_lone_surrogate_becomes_a_question_mark_when_encoded(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_tokenizer_is_equal_when_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = ByteBPETokenizer.load(tmp_path)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert loaded.vocab_size == tokenizer.vocab_size


def test_fingerprint_differs_when_merges_differ(tokenizer):
    assert ByteBPETokenizer.train(TEXTS, 300).fingerprint() != tokenizer.fingerprint()


def test_vocabulary_is_smaller_when_corpus_has_few_merges():
    assert ByteBPETokenizer.train(["ab"], 5000).vocab_size < 300


def test_every_byte_is_encodable_when_trained_on_nothing():
    tokenizer = ByteBPETokenizer.train([], MIN_VOCAB_SIZE)
    assert tokenizer.vocab_size == MIN_VOCAB_SIZE
    assert tokenizer.decode(tokenizer.encode("é\n")) == "é\n"


def test_alphabet_is_a_bijection_when_listed():
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_lengths_sum_to_bytes_when_text_is_encoded(tokenizer):
    text = "The with statement: naïve 🙂"
    lengths = token_lengths(tokenizer)
    assert lengths[tokenizer.encode(text)].sum() == len(text.encode())
    assert lengths[tokenizer.mask_id] == 0


def test_error_names_the_least_size_when_vocabulary_is_too_small():
    with pytest.raises(ValueError, match=f"vocab_size=200 is too small.*at least {MIN_VOCAB_SIZE}"):
        ByteBPETokenizer.train(TEXTS, 200)


def test_error_lists_names_when_special_token_is_unknown(tokenizer):
    with pytest.raises(ValueError, match=r"unknown special token '\[mask\]'.*\[MASK\]"):
        tokenizer.token_id("[mask]")


@pytest.mark.parametrize("token", [-1, 400, 10**9])
def test_error_names_the_id_when_it_is_outside_the_vocabulary(tokenizer, token):
    with pytest.raises(ValueError, match=f"token id {token} is outside the vocabulary of"):
        tokenizer.decode([token])


def test_error_names_the_file_when_it_is_corrupt(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a readable tokenizer"):
        ByteBPETokenizer.load(tmp_path)


def test_added_tokens_are_refused_when_a_file_has_them(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [
        {"id": len(data["model"]["vocab"]), "content": "[X]", "special": True, **flags}
    ]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="added tokens, which text could produce"):
        ByteBPETokenizer.load(tmp_path)


def test_other_vocabularies_are_refused_when_they_are_not_byte_level(tmp_path):
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers import models

    with pytest.raises(ValueError, match="not byte-level"):
        ByteBPETokenizer(HFTokenizer(models.BPE({"▁the": 0, "the world": 1}, [])))


def test_extra_specials_come_after_the_others_when_trained_saved_and_loaded(tmp_path):
    extra = ("<|before|>", "<|behind|>")
    tokenizer = ByteBPETokenizer.train(TEXTS, 400, extra)
    tokenizer.save(tmp_path)
    loaded = ByteBPETokenizer.load(tmp_path)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert [loaded.token_id(name) for name in extra] == [
        tokenizer.vocab_size - 2,
        tokenizer.vocab_size - 1,
    ]
    assert set(loaded.special_ids) >= {loaded.token_id(name) for name in extra}
    assert not set(loaded.encode("a <|before|> b")) & loaded.special_ids
    assert loaded.vocab_size == tokenizer.vocab_size <= 400


def test_extra_specials_are_refused_when_there_is_one_already():
    with pytest.raises(ValueError, match="name a token twice"):
        ByteBPETokenizer.train(TEXTS, 400, ("[MASK]",))


def test_too_small_vocabulary_is_refused_when_extra_specials_need_room():
    with pytest.raises(ValueError, match="at least 265"):
        ByteBPETokenizer.train(TEXTS, 264, ("<|before|>",))

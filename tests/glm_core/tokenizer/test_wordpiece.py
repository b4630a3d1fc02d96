import json
import unicodedata

import pytest
from transformers.models.bert_japanese.tokenization_bert_japanese import (
    BasicTokenizer,
    WordpieceTokenizer,
)

from glm_core.tokenizer import IncrementalDecoder
from glm_core.tokenizer.wordpiece import WordPieceTokenizer

PAD, UNK, CLS, SEP, MASK = 0, 3, 4, 5, 6
HEAD = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "un", "##aff", "##able", "hello", "##ing", "make", "##s", "don", "cafe", "σας"]


def small_vocab():
    """BERT's special tokens, words, and every assigned character below U+3000 as both pieces."""
    chars = [chr(code) for code in [*range(33, 0x3000), *range(0x4E00, 0x4E20), 0x1F642]]
    chars = [char for char in chars if unicodedata.category(char)[0] not in "CZ"]
    return list(dict.fromkeys([*HEAD, *WORDS, *chars, *(f"##{char}" for char in chars)]))


@pytest.fixture(scope="module")
def vocab():
    return small_vocab()


@pytest.fixture
def folder(tmp_path, vocab):
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def tokenizer(folder):
    return WordPieceTokenizer.load(folder)


@pytest.fixture(scope="module")
def oracle(vocab):
    """The plain Python WordPiece that transformers keeps; no name in brackets is left whole."""
    ids = {piece: token for token, piece in enumerate(vocab)}
    basic = BasicTokenizer(do_lower_case=True, never_split=None)
    wordpiece = WordpieceTokenizer(ids, "[UNK]", 100)
    return lambda text: [ids[p] for word in basic.tokenize(text) for p in wordpiece.tokenize(word)]


def test_ids_equal_the_python_wordpiece_when_texts_are_encoded(tokenizer, oracle, texts):
    more = [
        "Unaffable HELLO, don't!",
        "ΣΑΣ Σ.",
        "CAFÉ cafe\u0301",
        "你好the世界",
        "㐀𠀀𫠠𫤠豈",
        "x" * 101,
    ]
    many = [*texts, *more, "İSTANBUL", "a\u2028b\x85c\x1cd", "[MASK]", "^$`~|"]
    expected = [oracle(text) for text in many]
    assert [tokenizer.encode(text) for text in many] == expected
    assert tokenizer.encode_batch(many) == expected


def test_ids_equal_the_python_wordpiece_when_any_character_stands_in_a_word(tokenizer, oracle):
    # Every 13th code point up to the last ideographs; all 1.1 million were compared once.
    codes = [code for code in range(0, 0x30000, 13) if not 0xD800 <= code < 0xE000]
    words = [f"a{chr(code)}b" for code in codes]
    batches = [" ".join(words[start : start + 500]) for start in range(0, len(words), 500)]
    for text, ids in zip(batches, tokenizer.encode_batch(batches), strict=True):
        assert ids == oracle(text)


def test_word_is_unknown_as_a_whole_when_a_character_or_its_length_is(tokenizer, vocab):
    assert tokenizer.encode("the\ua000 " + "x" * 101) == [UNK, UNK]
    assert tokenizer.decode([vocab.index("the"), UNK]) == "the [UNK]"
    assert UNK not in tokenizer.special_ids  # encoding gives it, so it is text


def test_words_have_one_space_between_them_when_decoded(tokenizer, vocab):
    ids = tokenizer.encode("The UNAFFABLE\n\n  making")
    pieces = ["the", "un", "##aff", "##able", "make"]
    assert ids[:4] == [vocab.index(piece) for piece in pieces[:4]]
    assert tokenizer.decode([CLS, *ids[:4], MASK, vocab.index("make"), vocab.index("##s")]) == (
        "the unaffable makes"
    )
    assert tokenizer.decode_bytes([vocab.index("the"), vocab.index("##s")]) == b" thes"
    assert tokenizer.decode([vocab.index("##ing")]) == "ing"


def test_special_tokens_are_berts_and_two_more_when_loaded(tokenizer, vocab):
    count = len(vocab)
    assert (tokenizer.eos_id, tokenizer.pad_id) == (PAD, PAD)
    assert (tokenizer.cls_id, tokenizer.mask_id, tokenizer.token_id("[SEP]")) == (CLS, MASK, SEP)
    assert (tokenizer.sop_id, tokenizer.eop_id) == (count, count + 1)
    assert tokenizer.vocab_size == count + 2
    assert tokenizer.stop_ids == (PAD, count + 1)
    assert tokenizer.special_ids == {PAD, 1, 2, CLS, SEP, MASK, count, count + 1}
    assert not tokenizer.has("[gMASK]")
    with pytest.raises(ValueError, match=r"wordpiece tokenizer has no special token '\[gMASK\]'"):
        _ = tokenizer.gmask_id


def test_text_stays_text_when_it_spells_special_tokens(tokenizer):
    text = "[MASK] [PAD] [CLS] [unused1] <|startofpiece|> [SEP]"
    ids = tokenizer.encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids).startswith("[ mask ] [ pad ]")


def test_task_masks_come_from_added_tokens_when_the_folder_names_them(folder, vocab):
    count = len(vocab)
    names = ["<|startofpiece|>", "<|endofpiece|>", "[gMASK]", "[sMASK]", "[dBLOCK]"]
    added = {name: count + rank for rank, name in enumerate(names)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    tokenizer = WordPieceTokenizer.load(folder)
    assert (tokenizer.gmask_id, tokenizer.smask_id) == (count + 2, count + 3)
    assert tokenizer.dblock_id == count + 4
    assert tokenizer.vocab_size == count + 5


def test_saved_folder_gives_the_same_tokenizer_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    again = WordPieceTokenizer.load(tmp_path / "saved")
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.encode("Hello, unaffable") == tokenizer.encode("Hello, unaffable")


def test_words_arrive_one_by_one_when_streamed(tokenizer):
    decoder = IncrementalDecoder(tokenizer)
    ids = [tokenizer.cls_id, *tokenizer.encode("hello unaffable 🙂")]
    shown = [decoder.push(token) for token in ids]
    assert shown == ["", "hello", " un", "aff", "able", " 🙂"]


def test_lone_surrogate_becomes_a_question_mark_when_encoded(tokenizer):
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a?b")


def test_load_names_the_file_when_it_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"vocab.txt is missing: copy it from the released model"):
        WordPieceTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\nthe\nthe\n", "has the line 'the' twice, so every id after it is wrong"),
        (b"[PAD]\n[UNK]\nthe\n", r"lacks \[CLS\], \[SEP\], \[MASK\]: it is not BERT's vocabulary"),
        (b"[PAD]\n\xff\n", "is not UTF-8 text"),
    ],
)
def test_load_says_what_is_wrong_when_the_vocabulary_is_damaged(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.load(tmp_path)


def test_last_line_counts_when_it_has_no_line_end(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(HEAD + ["the"]))
    assert WordPieceTokenizer.load(tmp_path).encode("the") == [7]


def test_known_ids_come_out_when_the_released_file_is_given(known):
    # Source: FlagAI tests/test_tokenizer.py; special ids: bert-large-uncased's vocab.txt.
    tokenizer = WordPieceTokenizer.load(known("glm-large"))
    ids = [13017, 7975, 3084, 2033, 3407]
    assert tokenizer.encode("fried chicken makes me happy") == ids
    assert tokenizer.decode(ids) == "fried chicken makes me happy"
    assert (tokenizer.eos_id, tokenizer.cls_id, tokenizer.mask_id) == (0, 101, 103)
    assert (tokenizer.sop_id, tokenizer.eop_id) == (30522, 30523)

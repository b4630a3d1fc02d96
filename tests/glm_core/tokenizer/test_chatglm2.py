"""ChatGLM2 and ChatGLM3: SentencePiece's own ids, and special tokens that no text can spell."""

from __future__ import annotations

import json

import pytest
import sentencepiece

from glm_core.tokenizer import IncrementalDecoder, load_tokenizer
from glm_core.tokenizer.chatglm2 import ChatGLM2Tokenizer, ChatGLM3Tokenizer

ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
ANY_TEXT = [
    "",
    " ",
    "  two spaces\n\n\ttab  and end  ",
    "👋🏽 family 👨‍👩‍👧 e\u0301 \u202eright-to-left",
    "\x00\x01\x7f\r\n\u2028",
    "你好，世界",
    "<unk> </s> <0x41> [gMASK] sop <|user|>",
]


@pytest.fixture
def folder(tmp_path, bpe_model):
    (tmp_path / "tokenizer.model").write_bytes(bpe_model)
    return tmp_path


@pytest.fixture(params=[ChatGLM2Tokenizer, ChatGLM3Tokenizer], ids=["chatglm2", "chatglm3"])
def tokenizer(request, folder):
    return request.param.load(folder)


@pytest.fixture(scope="module")
def library(bpe_model):
    return sentencepiece.SentencePieceProcessor(model_proto=bpe_model)


@pytest.mark.parametrize("text", ANY_TEXT)
def test_ids_are_the_librarys_when_text_is_anything(tokenizer, library, text):
    ids = library.encode(text)
    assert tokenizer.encode(text) == ids
    assert tokenizer.encode_batch([text, "x"]) == [ids, library.encode("x")]
    assert not tokenizer.special_ids.intersection(ids)


@pytest.mark.parametrize("text", ANY_TEXT)
def test_text_comes_back_when_encoded_and_decoded(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == (f" {text}".encode() if text else b"")


def test_lone_surrogate_becomes_a_question_mark_when_encoded(tokenizer):
    ids = tokenizer.encode("a?b")
    assert tokenizer.encode("a\ud800b") == ids
    assert tokenizer.encode_batch(["a\ud800b", "a?b"]) == [ids, ids]


def test_each_piece_begins_with_a_space_when_encoded_alone(tokenizer, library):
    assert tokenizer.encode("\n") == [library.piece_to_id("▁"), 13]
    hello = tokenizer.encode("hello")
    assert tokenizer.encode("hello\nhello") != [*tokenizer.encode("hello\n"), *hello]


def test_special_ids_follow_the_pieces_when_loaded(tokenizer, library):
    first = library.vocab_size()
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]
    assert [tokenizer.token_id(name) for name in names] == list(range(first, first + 5))
    assert (tokenizer.gmask_id, tokenizer.sop_id) == (first + 1, first + 3)
    assert tokenizer.token_id("<sop>") == tokenizer.token_id("<|startofpiece|>") == first + 3
    assert (tokenizer.pad_id, tokenizer.token_id("<bos>"), tokenizer.eos_id) == (0, 1, 2)
    assert [tokenizer.token_name(token) for token in (0, 2, first + 4)] == ["<unk>", "</s>", "eop"]
    assert not tokenizer.has("<|dBLOCK|>")


def test_roles_are_special_tokens_when_the_model_is_chatglm3(folder, library):
    first = library.vocab_size() + 5
    tokenizer = ChatGLM3Tokenizer.load(folder)
    assert [tokenizer.token_id(role) for role in ROLES] == list(range(first, first + 4))
    assert tokenizer.stop_ids == (2, first + 1, first + 3)
    assert tokenizer.vocab_size == first + 4


def test_there_are_no_roles_when_the_model_is_chatglm2(folder, library):
    tokenizer = ChatGLM2Tokenizer.load(folder)
    assert tokenizer.stop_ids == (2,)
    assert tokenizer.vocab_size == library.vocab_size() + 5
    with pytest.raises(ValueError, match=r"chatglm2 tokenizer has no special token '<\|user\|>'"):
        tokenizer.token_id("<|user|>")


def test_special_ids_give_nothing_when_decoded(tokenizer):
    ids = [0, 1, tokenizer.gmask_id, tokenizer.sop_id, *tokenizer.encode("hello"), 2]
    assert tokenizer.decode(ids) == "hello"


def test_error_names_the_id_when_it_is_outside_the_vocabulary(tokenizer):
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token id {token} is outside the vocabulary"):
            tokenizer.decode([token])


def test_broken_bytes_show_as_the_library_shows_them_when_decoded(tokenizer, library):
    ids = tokenizer.encode("é👋")[:-1]
    assert tokenizer.decode(ids) == library.decode(ids)
    assert "\ufffd" in tokenizer.decode(ids)


@pytest.mark.parametrize("text", [text for text in ANY_TEXT if text])
def test_streamed_text_is_the_decoded_text_when_the_ids_stand_alone(tokenizer, text):
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + decoder.flush() == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_file_is_refused_when_it_has_no_bytes(tmp_path, icetk_model):
    (tmp_path / "tokenizer.model").write_bytes(icetk_model)
    with pytest.raises(
        ValueError, match="not the vocabulary of ChatGLM2 or 3: .* no special <unk>"
    ):
        ChatGLM2Tokenizer.load(tmp_path)


def test_saved_tokenizer_gives_the_same_ids_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded.kind == tokenizer.kind
    assert loaded.encode("hello 👋") == tokenizer.encode("hello 👋")
    assert loaded.fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("config.json", {"_name_or_path": "THUDM/codegeex2-6b"}),
        ("tokenizer_config.json", {"pad_token": "</s>"}),
    ],
)
def test_end_fills_rows_when_the_model_is_codegeex2(folder, name, settings):
    (folder / name).write_text(json.dumps(settings))
    tokenizer = load_tokenizer(folder, "chatglm2")
    assert tokenizer.pad_id == 2
    tokenizer.save(folder / "saved")
    assert load_tokenizer(folder / "saved").pad_id == 2


def test_error_lists_the_special_tokens_when_the_pad_token_is_none(folder):
    with pytest.raises(
        ValueError, match=r"pad_token='hello' is no special .*: choose one of <unk>"
    ):
        ChatGLM2Tokenizer(folder / "tokenizer.model", "hello")


def test_fingerprints_differ_when_only_the_roles_do(folder):
    kinds = (ChatGLM2Tokenizer, ChatGLM3Tokenizer)
    assert len({kind.load(folder).fingerprint() for kind in kinds}) == 2


CHAT = (
    "[Round 1]\n\n问：你好\n\n答：你好👋！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"
    "欢迎问我任何问题。\n\n[Round 2]\n\n问：晚上睡不着应该怎么办\n\n答："
)
CHAT_IDS = [
    790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211, 39701, 13, 13, 55437, 31211, 39701,
    243, 162, 148, 142, 31404, 33030, 34797, 42481, 22011, 10461, 30944, 30943, 30941, 30978,
    30949, 31123, 48895, 35214, 54622, 31123, 32616, 39905, 31901, 31639, 31155, 13, 13, 30995,
    30951, 517, 30910, 30943, 30996, 13, 13, 54761, 31211, 32820, 54266, 31876, 35153, 13, 13,
    55437, 31211,
]  # fmt: skip
CODE = "def main():\n    print('hello world')\t# greeting"
CODE_IDS = [884, 1301, 9427, 13, 296, 4466, 2029, 15616, 30914, 993, 3387, 12, 31010, 30174]
SORT = "# language: Python\n# write a bubble sort function\n"
SORT_IDS = [31010, 3239, 30954, 16719, 13, 31010, 3072, 260, 17338, 3482, 1674, 13]
KNOWN = [
    ("你好", [36474, 54591]),
    ("\n", [30910, 13]),
    (CHAT, CHAT_IDS),
    (CODE, CODE_IDS),
    (SORT, SORT_IDS),
]
"""Source: li-plus/chatglm.cpp chatglm_test.cpp, without the [gMASK] sop that its encode adds."""


@pytest.mark.parametrize(("text", "ids"), KNOWN)
@pytest.mark.parametrize(
    ("model", "kind"),
    [("chatglm2-6b", "chatglm2"), ("codegeex2-6b", "chatglm2"), ("chatglm3-6b", "chatglm3")],
)
def test_ids_are_known_when_the_released_file_is_given(released, model, kind, text, ids):
    tokenizer = released(model, kind)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode([tokenizer.gmask_id, tokenizer.sop_id, *ids]) == text


@pytest.mark.parametrize(
    ("model", "kind"), [("chatglm2-6b", "chatglm2"), ("chatglm3-6b", "chatglm3")]
)
def test_special_ids_are_known_when_the_released_file_is_given(released, model, kind):
    tokenizer = released(model, kind)
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", *(ROLES if kind == "chatglm3" else [])]
    assert [tokenizer.token_id(name) for name in names] == list(range(64789, 64789 + len(names)))
    assert (tokenizer.pad_id, tokenizer.token_id("<s>"), tokenizer.eos_id) == (0, 1, 2)

"""icetk against the original's algorithm, written down once more on the library alone."""

from __future__ import annotations

import json
import random

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from glm_core.tokenizer import IncrementalDecoder, load_tokenizer
from glm_core.tokenizer.icetk import ChatGLMTokenizer, IcetkTokenizer

NAMES = ["[MASK]", "[gMASK]", "[sMASK]", "<eod>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
BLANKS = range(2, 81)
CONTROL, USER_DEFINED, BYTE = 3, 4, 6


def extended(model: bytes, special_type: int = CONTROL, names: list[str] = NAMES) -> bytes:
    """The model file with everything that comes after the released pieces."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    added = [(name, special_type) for name in names]
    added += [(name, USER_DEFINED) for name in ["<|tab|>", *(f"<|blank_{k}|>" for k in BLANKS)]]
    added += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    for piece, kind in added:
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    proto.trainer_spec.byte_fallback = True
    return proto.SerializeToString()


class Original:
    """Encoding and decoding as the original tokenizers of GLM-130B and ChatGLM-6B do them."""

    def __init__(self, model: bytes, shift: int) -> None:
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=extended(model))
        self.shift = shift

    def encode(self, text: str, dummy_prefix: bool = True) -> list[int]:
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        for count in reversed(BLANKS):
            text = text.replace(" " * count, f"<|blank_{count}|>")
        ids = self.sp.encode(text if dummy_prefix else "<n>" + text)
        return [token + self.shift for token in ids][0 if dummy_prefix else 2 :]

    def decode(self, ids: list[int]) -> str:
        text = self.sp.decode([token - self.shift for token in ids if token >= self.shift])
        text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
        for count in BLANKS:
            text = text.replace(f"<|blank_{count}|>", " " * count)
        return text


@pytest.fixture
def folder(tmp_path, icetk_model):
    (tmp_path / "ice_text.model").write_bytes(icetk_model)
    return tmp_path


@pytest.fixture
def tokenizer(folder):
    return IcetkTokenizer.load(folder)


@pytest.fixture(scope="module")
def num_pieces(icetk_model):
    return sentencepiece.SentencePieceProcessor(model_proto=icetk_model).vocab_size()


def random_texts(count: int) -> list[str]:
    """Texts of words, white space of every length, odd characters and spelt-out pieces."""
    rng = random.Random(0)
    words = ["hello", "世界", "👋", "é", "e\u0301", "\x00", "\r\n", "(", "'", "▁", "日本", "\u200b"]
    words += [*NAMES, "<n>", "<|tab|>", "<|blank_7|>", "<|blank_1|>", "<0x41>", "<unk>", "</s>"]
    words += ["\n", "\t", *(" " * k for k in (1, 2, 3, 79, 80, 81, 82, 161))]
    return ["".join(rng.choices(words, k=rng.randrange(9))) for _ in range(count)]


def test_ids_are_the_originals_when_text_is_anything(tokenizer, icetk_model):
    original = Original(icetk_model, 20000)
    texts = random_texts(300)
    assert [tokenizer.encode(text) for text in texts] == [original.encode(t) for t in texts]
    assert tokenizer.encode_batch(texts) == [original.encode(text) for text in texts]


def test_ids_are_the_originals_when_text_goes_on_from_other_text(tokenizer, icetk_model):
    original = Original(icetk_model, 20000)
    for text in random_texts(100):
        assert tokenizer.encode(text, dummy_prefix=False) == original.encode(text, False)
    assert tokenizer.encode("hello") != tokenizer.encode("hello", dummy_prefix=False)


def test_text_is_the_originals_when_decoded(tokenizer, icetk_model):
    original = Original(icetk_model, 20000)
    rng = random.Random(1)
    for _ in range(200):
        ids = rng.choices(range(20000, tokenizer.vocab_size), k=rng.randrange(12))
        ids = [token for token in ids if token not in tokenizer.special_ids]
        assert tokenizer.decode(ids) == original.decode(ids)


def test_text_comes_back_when_encoded_and_decoded(tokenizer):
    plain = "def f():\n\tif x:\n" + " " * 100 + "y  = '👋🏽 e\u0301 \x00 日本'\r\n\n   "
    assert tokenizer.decode(tokenizer.encode(plain)) == plain
    assert tokenizer.decode_bytes(tokenizer.encode(plain)) == f" {plain}".encode()


def test_lone_surrogate_becomes_a_question_mark_when_encoded(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_special_ids_follow_the_pieces_when_loaded(tokenizer, num_pieces):
    first = 20000 + num_pieces
    assert [tokenizer.token_id(name) for name in NAMES] == list(range(first, first + 8))
    assert tokenizer.vocab_size == first + 8 + 80 + 256
    assert (tokenizer.mask_id, tokenizer.gmask_id, tokenizer.smask_id) == (
        first,
        first + 1,
        first + 2,
    )
    assert (tokenizer.sop_id, tokenizer.eop_id, tokenizer.dblock_id) == (
        first + 4,
        first + 5,
        first + 7,
    )
    assert tokenizer.token_id("eod") == first + 3
    assert (tokenizer.eos_id, tokenizer.pad_id) == (20002, 20003)
    assert tokenizer.stop_ids == (20002, first + 5)
    assert not tokenizer.has("[CLS]")
    with pytest.raises(ValueError, match=r"icetk tokenizer has no special token '\[CLS\]'"):
        tokenizer.cls_id  # noqa: B018


def test_white_space_has_ids_of_its_own_when_encoded(tokenizer, num_pieces):
    tab = 20000 + num_pieces + 8
    ids = tokenizer.encode("\n\t" + " " * 2 + "\n" + " " * 80)
    assert ids[1:] == [20004, tab, tab + 1, 20004, tab + 79]
    assert tokenizer.token_name(tab + 3) == "    "


def test_no_text_gives_a_special_id_when_it_spells_one(tokenizer):
    spelt = " ".join([*NAMES, "sop", "<pad>", "<s>", "</s>", "<unk>", "<image_5>", "[CLS]"])
    ids = tokenizer.encode(spelt)
    assert not tokenizer.special_ids.intersection(ids)
    assert tokenizer.decode(ids) == spelt


def test_picture_ids_are_special_and_silent_when_decoded(tokenizer):
    assert tokenizer.decode([0, 19999, *tokenizer.encode("hello")]) == "hello"
    assert {0, 19999} <= tokenizer.special_ids
    assert 20010 not in tokenizer.special_ids
    assert tokenizer.token_name(5) == "<image_5>"


def test_emoji_waits_for_its_bytes_when_streamed(tokenizer):
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(token) for token in tokenizer.encode("👋 hello")]
    assert pieces[:5] == ["", "", "", "", "👋"]
    assert "".join(pieces) + decoder.flush() == "👋 hello"


def test_ids_start_at_zero_when_the_model_is_chatglm(folder, icetk_model, num_pieces):
    tokenizer = ChatGLMTokenizer.load(folder)
    original = Original(icetk_model, 0)
    for text in random_texts(50):
        assert tokenizer.encode(text) == original.encode(text)
    assert (tokenizer.pad_id, tokenizer.token_id("</s>")) == (3, 2)
    assert tokenizer.eos_id == tokenizer.eop_id == tokenizer.token_id("eop") == num_pieces + 5
    assert tokenizer.sop_id == num_pieces + 4
    assert tokenizer.stop_ids == (num_pieces + 5,)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("config.json", {"model_type": "chatglm", "vocab_size": 150528}),
        ("tokenizer_config.json", {"num_image_tokens": 20000}),
    ],
)
def test_picture_ids_come_first_when_chatglm_is_of_the_first_release(folder, name, settings):
    (folder / name).write_text(json.dumps(settings))
    tokenizer = load_tokenizer(folder, "chatglm")
    assert tokenizer.encode("\n") == [20005, 20004]
    assert tokenizer.pad_id == 20003
    tokenizer.save(folder / "saved")
    assert load_tokenizer(folder / "saved").encode("\n") == [20005, 20004]


def test_ids_are_the_same_when_the_file_holds_the_special_tokens(folder, icetk_model, num_pieces):
    bare = ChatGLMTokenizer.load(folder)
    (folder / "ice_text.model").write_bytes(extended(icetk_model))
    full = load_tokenizer(folder)
    assert full.kind == "chatglm"
    assert full.vocab_size == bare.vocab_size
    assert full.gmask_id == num_pieces + 1
    for text in random_texts(50):
        assert full.encode(text) == bare.encode(text)


def test_no_text_gives_a_special_id_when_the_file_would_let_it(folder, icetk_model):
    bare = ChatGLMTokenizer.load(folder)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(extended(icetk_model, USER_DEFINED))
    proto.pieces[3].type = USER_DEFINED  # <pad>
    (folder / "ice_text.model").write_bytes(proto.SerializeToString())
    open_file = ChatGLMTokenizer.load(folder)
    spelt = " ".join(["<pad>", *NAMES])
    assert open_file.encode(spelt) == bare.encode(spelt)
    assert open_file.special_ids == bare.special_ids


def test_file_is_refused_when_it_is_not_icetks(tmp_path, bpe_model, icetk_model):
    (tmp_path / "ice_text.model").write_bytes(bpe_model)
    with pytest.raises(ValueError, match="is not icetk's: it has no piece <n>"):
        IcetkTokenizer.load(tmp_path)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(icetk_model)
    proto.pieces.add(piece="[MASK]", score=0.0, type=CONTROL)
    (tmp_path / "ice_text.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"has \[MASK\] but no <\|tab\|>"):
        IcetkTokenizer.load(tmp_path)
    (tmp_path / "ice_text.model").write_bytes(extended(icetk_model, names=["[MASK]"]))
    with pytest.raises(ValueError, match=r"has \[MASK\] but no seven further special tokens"):
        IcetkTokenizer.load(tmp_path)


def test_saved_tokenizer_gives_the_same_ids_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded.kind == "icetk"
    assert loaded.encode("hello\n\t👋") == tokenizer.encode("hello\n\t👋")
    assert loaded.fingerprint() == tokenizer.fingerprint()


CHAT = (
    "[Round 0]\n问：你好\n答：你好👋！我是人工智能助手 ChatGLM-6B，很高兴见到你，"
    "欢迎问我任何问题。\n"
    "[Round 1]\n问：晚上睡不着应该怎么办\n答："
)
CHAT_IDS = [
    53, 6945, 5, 8, 42, 4, 64286, 12, 74874, 4, 67342, 12, 74874, 130328, 130247, 130233, 130227,
    35, 65806, 68241, 75890, 14132, 5388, 340, 11, 21, 222, 6, 76693, 66877, 63852, 6, 66430,
    68747, 102501, 63823, 4, 52, 6945, 5, 9, 42, 4, 64286, 12, 65450, 83400, 64213, 66846, 4,
    67342, 12,
]  # fmt: skip
CODE = "def main():\n    print('hello world')\t# greeting"
CODE_IDS = [1616, 594, 125936, 4, 130011, 2274, 89, 7283, 398, 125686, 130008, 61, 25672]
KNOWN = [("你好", [5, 74874]), (CHAT, CHAT_IDS), (CODE, CODE_IDS)]
"""Source: li-plus/chatglm.cpp chatglm_test.cpp, without the [gMASK] <sop> that its encode adds."""


@pytest.mark.parametrize(("text", "ids"), KNOWN)
@pytest.mark.parametrize(
    ("model", "kind", "shift"), [("chatglm-6b", "chatglm", 0), ("glm-130b", "icetk", 20000)]
)
def test_ids_are_known_when_the_released_file_is_given(released, model, kind, shift, text, ids):
    tokenizer = released(model, kind)
    assert tokenizer.encode(text) == [token + shift for token in ids]
    assert tokenizer.decode([*tokenizer.encode(text), tokenizer.gmask_id, tokenizer.sop_id]) == text


def test_special_ids_are_known_when_glm_130b_is_given(released):
    tokenizer = released("glm-130b", "icetk")
    assert [tokenizer.token_id(name) for name in NAMES] == list(range(150000, 150008))
    assert (tokenizer.eos_id, tokenizer.encode("\n")[-1]) == (20002, 20004)


def test_special_ids_are_known_when_chatglm_6b_is_given(released):
    tokenizer = released("chatglm-6b", "chatglm")
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.gmask_id) == (3, 130000, 130001)
    assert (tokenizer.smask_id, tokenizer.sop_id, tokenizer.eop_id) == (130002, 130004, 130005)
    assert tokenizer.eos_id == 130005

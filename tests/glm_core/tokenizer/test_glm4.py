import base64
import json

import pytest
import regex

from glm_core.tokenizer import IncrementalDecoder
from glm_core.tokenizer.glm4 import GLM4Tokenizer

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = (
    "<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> "
    "<|observation|> <|begin_of_image|> <|end_of_image|> <|begin_of_video|> <|end_of_video|>"
).split()
SIZE = 380


@pytest.fixture(scope="module")
def bpe(train_bpe):
    return train_bpe(PATTERN, SIZE)


@pytest.fixture(scope="module")
def ranks(bpe):
    """Bytes and rank of every piece of the trained vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte = {chr(value): value for value in shown}
    byte |= {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in shown)}
    vocab = bpe.get_vocab()
    return {bytes(byte[char] for char in piece): rank for piece, rank in vocab.items()}


def write_ranks(path, ranks):
    lines = [f"{base64.b64encode(piece).decode()} {rank}\n" for piece, rank in ranks.items()]
    path.write_text("".join(lines))


@pytest.fixture
def folder(tmp_path, ranks):
    write_ranks(tmp_path / "tokenizer.model", ranks)
    return tmp_path


@pytest.fixture
def tokenizer(folder):
    return GLM4Tokenizer.load(folder)


@pytest.fixture
def write_json(tmp_path, bpe):
    """Writes the tokenizer.json of the same vocabulary, with special tokens and changes."""

    def write(**changes):
        content = json.loads(bpe.to_str())
        content["added_tokens"] = [
            {"id": SIZE + rank, "content": name, "special": True} for rank, name in enumerate(NAMES)
        ]
        (tmp_path / "tokenizer.json").write_text(json.dumps({**content, **changes}))
        return tmp_path

    return write


def merged_by_rank(ranks, piece):
    """Byte-pair encoding as tiktoken describes it: the pair of the lowest rank joins first."""
    parts = [bytes([value]) for value in piece]
    while True:
        pairs = [left + right for left, right in zip(parts, parts[1:], strict=False)]
        known = [pair for pair in pairs if pair in ranks]
        if not known:
            return [ranks[part] for part in parts]
        place = pairs.index(min(known, key=ranks.__getitem__))
        parts[place : place + 2] = [pairs[place]]


def test_ids_equal_the_written_down_algorithm_when_texts_are_encoded(tokenizer, ranks, texts):
    def oracle(text):
        pieces = regex.findall(PATTERN, text)
        return [token for piece in pieces for token in merged_by_rank(ranks, piece.encode())]

    expected = [oracle(text) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == expected
    assert tokenizer.encode_batch(texts) == expected


def test_ids_equal_the_tokenizers_library_when_read_from_its_file(write_json, bpe, texts):
    tokenizer = GLM4Tokenizer.load(write_json())
    assert [tokenizer.encode(text) for text in texts] == [bpe.encode(text).ids for text in texts]
    assert tokenizer.gmask_id == SIZE + 2


def test_text_is_unchanged_when_encoded_and_decoded(tokenizer, texts):
    for text in texts:
        ids = tokenizer.encode(text)
        assert max(ids, default=0) < SIZE
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert tokenizer.decode(ids) == text


def test_special_ids_follow_the_ranks_when_the_folder_names_none(tokenizer):
    assert [tokenizer.token_id(name) for name in NAMES] == list(range(SIZE, SIZE + 14))
    assert tokenizer.vocab_size == SIZE + 14
    assert tokenizer.special_ids == set(range(SIZE, SIZE + 14))
    assert (tokenizer.eos_id, tokenizer.pad_id) == (SIZE, SIZE)
    assert tokenizer.stop_ids == (SIZE, SIZE + 7, SIZE + 9)  # 151329, 151336, 151338
    assert tokenizer.token_id("<|startofpiece|>") == tokenizer.sop_id == SIZE + 4
    assert tokenizer.token_name(SIZE + 4) == "<sop>"
    assert tokenizer.decode(range(SIZE, SIZE + 14)) == ""
    with pytest.raises(ValueError, match=r"glm4 tokenizer has no special token '\[CLS\]'"):
        _ = tokenizer.cls_id


@pytest.mark.parametrize("name", NAMES)
def test_text_stays_text_when_it_spells_a_special_token(tokenizer, name):
    ids = tokenizer.encode(f"a{name} b")
    assert max(ids) < SIZE
    assert tokenizer.decode(ids) == f"a{name} b"


def test_further_special_tokens_come_from_the_config_when_it_names_them(folder):
    names = {SIZE + rank: name for rank, name in enumerate(NAMES)}
    names |= {SIZE + 18: "<|code_prefix|>", SIZE + 19: "<|code_middle|>"}
    table = {str(token): {"content": name} for token, name in names.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": table}))
    tokenizer = GLM4Tokenizer.load(folder)
    assert tokenizer.token_id("<|code_middle|>") == SIZE + 19
    assert tokenizer.vocab_size == SIZE + 20
    assert {SIZE + 14, SIZE + 17} <= tokenizer.special_ids  # reserved: no name, no text
    assert tokenizer.decode([SIZE + 15]) == ""


@pytest.mark.parametrize("source", ["ranks", "json"])
def test_saved_folder_gives_the_same_tokenizer_when_loaded(folder, write_json, tmp_path, source):
    names = {**{name: SIZE + rank for rank, name in enumerate(NAMES)}, "<|code_prefix|>": SIZE + 20}
    if source == "ranks":
        table = {str(token): {"content": name} for name, token in names.items()}
        (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": table}))
    else:
        (folder / "tokenizer.model").unlink()
        write_json(added_tokens=[{"id": token, "content": name} for name, token in names.items()])
    first = GLM4Tokenizer.load(folder)
    first.save(tmp_path / "saved")
    second = GLM4Tokenizer.load(tmp_path / "saved")
    assert second.fingerprint() == first.fingerprint()
    assert second.token_id("<|code_prefix|>") == SIZE + 20
    assert second.encode("hello 你好") == first.encode("hello 你好")


def test_emoji_appears_whole_when_its_bytes_are_several_tokens(tokenizer):
    decoder = IncrementalDecoder(tokenizer)
    ids = tokenizer.encode("a👩\u200d👧b")
    shown = [decoder.push(token) for token in ids]
    assert "" in shown
    assert "".join(shown) == "a👩\u200d👧b"
    assert all("\ufffd" not in piece for piece in shown)


def test_surrogates_become_what_tiktoken_makes_of_them_when_encoded(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.encode("\ud83d\ude42") == tokenizer.encode("🙂")


def test_long_white_space_is_refused_when_the_expression_cannot_take_it(tokenizer):
    assert tokenizer.decode(tokenizer.encode(" " * 400_000)) == " " * 400_000
    with pytest.raises(ValueError, match="run of over 500,000 white-space characters"):
        tokenizer.encode("x" + " " * 1_000_000 + "x")
    with pytest.raises(ValueError, match="run of over 500,000 white-space characters"):
        tokenizer.encode_batch(["\n" * 1_000_000])


def test_load_names_both_files_when_neither_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"neither tokenizer.model nor tokenizer.json: copy one"):
        GLM4Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a*b 7", "line 3 of .*tokenizer.model is not a base64 piece and its rank"),
        ("YWI= seven", "line 3 of .*tokenizer.model is not a base64 piece and its rank"),
        ("YWI=", "line 3 of .*tokenizer.model is not a base64 piece and its rank"),
        ("YWIxMjM0NTY3 999999", r"must hold the ranks 0..n-1, each once; copy the file again"),
    ],
)
def test_load_says_what_is_wrong_when_a_rank_line_is_damaged(folder, line, message):
    path = folder / "tokenizer.model"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(ValueError, match=message):
        GLM4Tokenizer.load(folder)


def test_load_says_so_when_single_bytes_are_missing(tmp_path):
    write_ranks(tmp_path / "tokenizer.model", {bytes([value]): value for value in range(250)})
    with pytest.raises(ValueError, match="lacks 6 of the 256 single bytes"):
        GLM4Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"<|user|>": SIZE}, r"so <\|user\|> must be 387, but its files say 380"),
        ({"<|new|>": 5}, r"its special token <\|new\|> has the id 5 of one of them"),
    ],
)
def test_load_says_so_when_special_tokens_belong_to_another_model(folder, added, message):
    table = {str(token): {"content": name} for name, token in added.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": table}))
    with pytest.raises(ValueError, match=message):
        GLM4Tokenizer.load(folder)


def test_load_says_so_when_the_config_is_malformed(folder):
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"380": "x"}}')
    with pytest.raises(ValueError, match="names special tokens wrongly"):
        GLM4Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "cuts text in another way than GLM-4"),
        ({"normalizer": {"type": "NFC"}}, "cuts text in another way than GLM-4"),
        ({"model": {"type": "BPE"}}, "is no byte-level tokenizer: .*vocab"),
        ({"model": {"vocab": {"\u4f60": 0}}}, "is no byte-level tokenizer"),
        ({"added_tokens": None}, "is no byte-level tokenizer"),
    ],
)
def test_load_says_so_when_tokenizer_json_is_anothers(write_json, changes, message):
    with pytest.raises(ValueError, match=message):
        GLM4Tokenizer.load(write_json(**changes))


# Source of the next two: li-plus/chatglm.cpp chatglm_test.cpp; the first text is llama.cpp's.
STRESS = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis "
    "concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````"
    "\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make "
    "it, 'D you like some tea? We'Ve a'lL"
)
STRESS_IDS = [
    198, 4710, 14721, 65020, 7847, 1572, 2303, 78043, 10942, 9281, 248, 222, 320, 8251, 8,
    26440, 114, 124564, 9281, 234, 104, 30423, 320, 35495, 98226, 96714, 8, 25442, 227, 11157,
    99, 247, 9281, 99, 247, 220, 18, 220, 100702, 220, 121577, 220, 121577, 18, 220, 121577,
    100702, 220, 121577, 121577, 220, 121577, 121577, 18, 220, 121577, 121577, 100702, 220, 18,
    13, 18, 220, 18, 496, 18, 220, 18, 1112, 18, 220, 20833, 222, 96709, 241, 44002, 233, 20833,
    237, 44002, 224, 20833, 244, 20833, 115, 20833, 253, 44002, 223, 20833, 253, 20833, 95,
    96709, 227, 74764, 223, 937, 101446, 98319, 22320, 98538, 118901, 19, 99082, 16, 98411,
    21168, 55088, 52883, 18625, 131040, 13065, 146335, 78377, 3355, 4605, 4605, 13865, 13865,
    73022, 3014, 3014, 28052, 17066, 2928, 26524, 7646, 358, 3003, 1012, 364, 83, 813, 566, 594,
    1052, 11, 364, 787, 498, 2704, 30, 364, 44, 537, 2704, 358, 3278, 1281, 432, 11, 364, 35,
    498, 1075, 1045, 15231, 30, 1205, 6, 42368, 264, 63409, 43,
]  # fmt: skip
CODE = (
    '\n```c++\n#include <iostream>\n\nint main() {\n    printf("hello world\\n");    // say hello\n'
    "}\n```\n\n```python\nif __name__ == '__main__':\n    print('hello world')        # say hello\n"
    "```\n"
)
CODE_IDS = [
    198, 73022, 66, 22879, 1067, 366, 9661, 1339, 396, 1887, 368, 341, 262, 4100, 445, 14978,
    1879, 1699, 5038, 262, 442, 1977, 23745, 198, 532, 13865, 19288, 73022, 12663, 198, 333,
    1304, 606, 563, 621, 12106, 3817, 16165, 262, 1173, 492, 14978, 1879, 863, 286, 671, 1977,
    23745, 198, 13865, 3989,
]  # fmt: skip


@pytest.mark.parametrize("model", ["glm-4-9b", "codegeex4-9b"])
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("你好", [109377]),
        ("晚上睡不着应该怎么办", [101160, 120410, 99379, 103298]),
        ("You are assistant.", [2610, 525, 17821, 13]),
        ("\nhow much is 2+2?", [198, 5158, 1753, 374, 220, 17, 10, 17, 30]),
        (STRESS, STRESS_IDS),
        (CODE, CODE_IDS),
    ],
    ids=["hello", "question", "system", "digits", "stress", "code"],
)
def test_known_ids_come_out_when_the_released_file_is_given(known, model, text, ids):
    tokenizer = GLM4Tokenizer.load(known(model))
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text


def test_special_ids_are_glm4s_when_the_released_file_is_given(known):
    tokenizer = GLM4Tokenizer.load(known("glm-4-9b"))
    assert [tokenizer.token_id(name) for name in NAMES] == list(range(151329, 151343))
    assert tokenizer.stop_ids == (151329, 151336, 151338)

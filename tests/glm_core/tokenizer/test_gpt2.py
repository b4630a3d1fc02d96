import json
import shutil

import pytest

from glm_core.tokenizer import IncrementalDecoder, encode_prompt
from glm_core.tokenizer.gpt2 import GPT2Tokenizer


@pytest.fixture(scope="module")
def tokenizer(gpt2_files):
    return GPT2Tokenizer.load(gpt2_files)


@pytest.fixture
def copy(gpt2_files, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(gpt2_files / name, tmp_path / name)
    return tmp_path


def as_roberta(folder):
    """Rewrites vocab.json the way RoBERTa's dictionary is laid out."""
    path = folder / "vocab.json"
    pieces = [piece for piece in json.loads(path.read_text()) if piece != "<|endoftext|>"]
    order = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    order += ["<|endoftext|>", "madeupword0000", "madeupword0001", "<mask>"]
    path.write_text(json.dumps({piece: token for token, piece in enumerate(order)}))


def test_ids_equal_the_written_down_algorithm_when_texts_are_encoded(tokenizer, gpt2_oracle, texts):
    expected = [gpt2_oracle(text) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == expected
    assert tokenizer.encode_batch(texts) == expected
    assert max(map(len, expected)) > 20


def test_text_is_unchanged_when_encoded_and_decoded(tokenizer, texts):
    for text in texts:
        ids = tokenizer.encode(text)
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert tokenizer.decode(ids) == text


def test_command_tokens_follow_the_vocabulary_when_it_is_gpt2s(tokenizer):
    assert (tokenizer.eos_id, tokenizer.pad_id) == (400, 400)
    names = ["<|startofpiece|>", "<|endofpiece|>", "[CLS]", "[MASK]", "[SEP]", "[UNK]"]
    names += ["[gMASK]", "[sMASK]", "<|dBLOCK|>"]
    assert [tokenizer.token_id(name) for name in names] == list(range(401, 410))
    assert tokenizer.token_id("[dBLOCK]") == tokenizer.dblock_id == 409
    assert tokenizer.vocab_size == 410
    assert tokenizer.special_ids == set(range(400, 410))
    assert tokenizer.stop_ids == (400, 402)
    assert tokenizer.decode([*range(400, 410)]) == ""


def test_dictionary_names_serve_as_command_tokens_when_it_is_robertas(copy, tokenizer):
    as_roberta(copy)
    roberta = GPT2Tokenizer.load(copy)
    assert (roberta.cls_id, roberta.eos_id, roberta.pad_id, roberta.mask_id) == (0, 2, 2, 407)
    assert (roberta.sop_id, roberta.eop_id, roberta.vocab_size) == (408, 409, 410)
    assert not roberta.has("[gMASK]")
    assert roberta.special_ids == {0, 1, 2, 3, *range(404, 410)}
    text = "the fox </s><mask><|endoftext|> madeupword0000"
    assert roberta.encode(text) == [token + 4 for token in tokenizer.encode(text)]
    assert roberta.decode(roberta.encode(text)) == text


def test_added_tokens_decide_when_the_folder_has_them(copy):
    added = {"<|startofpiece|>": 401, "<|endofpiece|>": 402, "[CLS]": 403, "[MASK]": 406}
    (copy / "added_tokens.json").write_text(json.dumps(added))
    tokenizer = GPT2Tokenizer.load(copy)
    assert (tokenizer.mask_id, tokenizer.sop_id, tokenizer.gmask_id) == (406, 401, 407)
    assert not tokenizer.has("[UNK]")  # its standard id is taken by [MASK]
    assert {404, 405} <= tokenizer.special_ids


def test_saved_folder_gives_the_same_tokenizer_when_loaded(copy, tmp_path):
    (copy / "added_tokens.json").write_text('{"[MASK]": 420}')
    first = GPT2Tokenizer.load(copy)
    first.save(tmp_path / "saved")
    second = GPT2Tokenizer.load(tmp_path / "saved")
    assert second.fingerprint() == first.fingerprint()
    assert second.mask_id == 420
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert (config["kind"], config["vocab_size"]) == ("gpt2", 421)


def test_emoji_appears_whole_when_its_bytes_are_several_tokens(tokenizer):
    decoder = IncrementalDecoder(tokenizer)
    ids = tokenizer.encode("a🦙b")
    assert len(ids) > 4
    shown = [decoder.push(token) for token in ids]
    assert "".join(shown) == "a🦙b"
    assert all("\ufffd" not in piece for piece in shown)


def test_lone_surrogate_becomes_a_question_mark_when_encoded(tokenizer):
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a?b")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_load_names_the_file_when_it_is_missing(copy, name):
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing: copy it from the released model"):
        GPT2Tokenizer.load(copy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", "{", "vocab.json is not valid JSON"),
        ("vocab.json", "[1, 2]", "must be a JSON object of tokens and their ids"),
        ("vocab.json", '{"a": 0, "b": 0}', "gives one id to several tokens"),
        ("vocab.json", '{"a": 0}', "neither <|endoftext|> nor RoBERTa's <mask>: it is not GPT-2's"),
        ("merges.txt", "#version: 0.2\nq zzz\n", "merges.txt does not fit vocab.json"),
        ("merges.txt", "#version: 0.2\na b c\n", "merges.txt does not fit vocab.json"),
        ("added_tokens.json", '{"[MASK]": "x"}', "added_tokens.json must be a JSON object"),
    ],
)
def test_load_says_what_is_wrong_when_a_file_is_damaged(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        GPT2Tokenizer.load(copy)


def test_known_ids_come_out_when_the_released_files_are_given(known):
    # Source: FlagAI tests/test_tokenizer.py; special ids: TensorRT-LLM's table for glm-10b.
    tokenizer = GPT2Tokenizer.load(known("glm-10b"))
    assert tokenizer.encode("fried chicken makes me happy") == [25520, 9015, 1838, 502, 3772]
    assert tokenizer.decode([25520, 9015, 1838, 502, 3772]) == "fried chicken makes me happy"
    ids = (tokenizer.eos_id, tokenizer.sop_id, tokenizer.eop_id, tokenizer.cls_id)
    assert ids == (50256, 50257, 50258, 50259)
    assert (tokenizer.mask_id, tokenizer.gmask_id, tokenizer.smask_id) == (50260, 50263, 50264)


def test_known_ids_come_out_when_robertas_files_are_given(known):
    tokenizer = GPT2Tokenizer.load(known("glm-roberta-large"))
    assert tokenizer.encode("fried chicken makes me happy") == [21209, 5884, 817, 162, 1372]
    assert (tokenizer.eos_id, tokenizer.mask_id, tokenizer.sop_id) == (2, 50264, 50265)


def test_white_space_goes_to_the_blank_when_it_stands_before_its_marker(tokenizer):
    ids = encode_prompt(tokenizer, "two words \n [MASK] and\n[gMASK]")
    expected = [*tokenizer.encode("two words"), tokenizer.mask_id, *tokenizer.encode(" and")]
    assert ids == [*expected, tokenizer.gmask_id]

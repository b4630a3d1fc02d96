import json
import re
import shutil

import pytest

from glm_core.tokenizer import IncrementalDecoder
from glm_core.tokenizer.codegeex import CodeGeeXTokenizer

EOS = 400  # of the small vocabulary; 50256 in the released one


@pytest.fixture(scope="module")
def tokenizer(gpt2_files):
    return CodeGeeXTokenizer.load(gpt2_files)


@pytest.fixture
def copy(gpt2_files, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(gpt2_files / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def oracle(gpt2_oracle):
    """As the original does it: names written into the text, longest run first, then cut out."""

    def encode(text: str) -> list[int]:
        for length in range(10, 1, -1):
            text = text.replace(" " * length, f"\ue000{length:02}\ue001")
        ids = []
        for index, part in enumerate(re.split("\ue000(..)\ue001", text)):
            ids += [EOS + 8 + int(part)] if index % 2 else gpt2_oracle(part)
        return ids

    return encode


def test_ids_equal_successive_replacement_when_texts_are_encoded(tokenizer, oracle, texts):
    many = [*texts, *("x" + " " * count + "y\n" + " " * count for count in range(45))]
    assert [tokenizer.encode(text) for text in many] == [oracle(text) for text in many]
    assert tokenizer.encode_batch(many) == [oracle(text) for text in many]


@pytest.mark.parametrize(
    ("count", "runs"),
    [
        (2, [410]),
        (3, [411]),
        (10, [418]),
        (13, [418, 411]),
        (20, [418, 418]),
        (29, [418, 418, 417]),
    ],
)
def test_run_has_its_own_ids_when_spaces_follow_each_other(tokenizer, count, runs):
    assert tokenizer.encode(" " * count) == runs
    assert tokenizer.decode(runs) == " " * count


def test_last_space_stays_plain_when_a_run_has_eleven(tokenizer):
    assert tokenizer.encode(" " * 11 + "x") == [418, *tokenizer.encode(" x")]


def test_tabs_and_line_ends_are_not_runs_when_repeated(tokenizer, gpt2_oracle):
    assert tokenizer.encode("\t\t\n\n\t\u00a0\u00a0") == gpt2_oracle("\t\t\n\n\t\u00a0\u00a0")


def test_text_is_unchanged_when_encoded_and_decoded(tokenizer, texts):
    for text in texts:
        ids = tokenizer.encode(text)
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.decode_bytes(ids) == text.encode()


def test_typed_names_stay_text_when_they_spell_extra_tokens(tokenizer):
    text = "a<|extratoken_12|>b<|extratoken_143|><|endoftext|>"
    ids = tokenizer.encode(text)
    assert max(ids) < EOS
    assert tokenizer.decode(ids) == text


def test_special_ids_are_all_but_the_runs_when_asked(tokenizer):
    assert tokenizer.vocab_size == EOS + 144  # 50400 as released; rows above are padding
    runs = set(range(410, 419))
    assert tokenizer.special_ids == set(range(EOS, EOS + 144)) - runs
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (EOS, EOS, (EOS,))
    assert not tokenizer.has("[MASK]")
    with pytest.raises(ValueError, match=r"codegeex tokenizer has no special token '\[CLS\]'"):
        _ = tokenizer.cls_id


def test_indentation_is_shown_at_once_when_streamed(tokenizer):
    decoder = IncrementalDecoder(tokenizer)
    assert [decoder.push(token) for token in (412, 418)] == ["    ", " " * 10]


def test_saved_folder_gives_the_same_tokenizer_when_loaded(copy, tmp_path):
    added = {f"<|extratoken_{number}|>": EOS + number for number in range(1, 144)}
    (copy / "added_tokens.json").write_text(json.dumps(added))
    first = CodeGeeXTokenizer.load(copy)
    first.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "added_tokens.json").is_file()
    assert CodeGeeXTokenizer.load(tmp_path / "saved").fingerprint() == first.fingerprint()


def test_load_says_so_when_added_tokens_are_anothers(copy):
    (copy / "added_tokens.json").write_text('{"<|startofpiece|>": 401}')
    with pytest.raises(ValueError, match="must name <.extratoken_1.> to <.extratoken_143.>"):
        CodeGeeXTokenizer.load(copy)


def test_load_says_so_when_the_vocabulary_is_anothers(copy):
    (copy / "vocab.json").write_text('{"<|endoftext|>": 0, "a": 1}')
    with pytest.raises(ValueError, match="must end with <.endoftext.>: it is not GPT-2's"):
        CodeGeeXTokenizer.load(copy)


def test_load_names_the_file_when_it_is_missing(copy):
    (copy / "merges.txt").unlink()
    with pytest.raises(ValueError, match="merges.txt is missing: copy it from the released model"):
        CodeGeeXTokenizer.load(copy)


def test_known_ids_come_out_when_the_released_files_are_given(known):
    # The original's path (names written in by str.replace, then GPT2TokenizerFast) gives these.
    tokenizer = CodeGeeXTokenizer.load(known("codegeex-13b"))
    code = "def f():\n    return  1\n"
    assert tokenizer.encode(code) == [4299, 277, 33529, 198, 50268, 7783, 50266, 16, 198]
    assert tokenizer.encode(" " * 11 + "x") == [50274, 2124]
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (50400, 50256)

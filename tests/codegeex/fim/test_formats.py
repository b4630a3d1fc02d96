from __future__ import annotations

import pytest

from codegeex.fim import FORMATS, SENTINELS, find_format, format_of, read_format, write_format
from codegeex.testing import tiny_code_tokenizer
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer


@pytest.fixture(scope="module")
def plain():
    return ByteBPETokenizer.train(["some text"], 264)


def test_template_offers_the_suffix_when_an_editor_looks_for_it():
    assert all(".Suffix" in format.template for format in FORMATS.values())


def test_suffix_comes_first_when_typing_should_leave_the_beginning():
    assert {name for name, format in FORMATS.items() if format.suffix_first} == {"spm", "codegeex4"}


def test_format_is_told_by_the_tokenizer_when_no_file_says_it(tmp_path, plain):
    assert format_of(tiny_code_tokenizer()).name == "spm"
    roles = ByteBPETokenizer.train(["x"], 280, (*SENTINELS, "<|user|>", "<|assistant|>"))
    assert format_of(roles).name == "codegeex4"
    assert read_format(tmp_path, plain) is None
    with pytest.raises(ValueError, match="was not taught to fill in: its tokenizer has no"):
        format_of(plain)


def test_format_is_read_back_when_a_folder_says_it(tmp_path):
    write_format(FORMATS["psm"], tmp_path)
    assert read_format(tmp_path, tiny_code_tokenizer()) is FORMATS["psm"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format"'])
def test_error_says_what_the_file_must_hold_when_it_is_damaged(tmp_path, content):
    (tmp_path / "fim.json").write_text(content)
    with pytest.raises(ValueError, match="fim.json is not readable: it must be"):
        read_format(tmp_path, tiny_code_tokenizer())


def test_error_offers_a_near_name_when_the_format_is_unknown():
    with pytest.raises(ValueError, match="'spn' is unknown: did you mean spm"):
        find_format("spn")

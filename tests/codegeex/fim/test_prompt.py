from __future__ import annotations

import argparse
import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.fim import FORMATS, SENTINELS, fim_ids
from codegeex.fim.prompt import path_line, prefix_ids
from codegeex.hole import Hole, Mode, Reference
from codegeex.testing import tiny_code_tokenizer
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer

SOURCE = inspect.getsource(argparse)
TOKENIZER = tiny_code_tokenizer()
HOLE = Hole(
    prefix="def area(radius):\n    return ",
    suffix="\n\nprint(area(2))\n",
    path="shapes/circle.py",
    language="python",
    references=(Reference(path="shapes/__init__.py", text="import math\n"),),
)


@pytest.fixture(scope="module")
def with_roles():
    """A tokenizer with CodeGeeX4's special tokens."""
    names = (*SENTINELS, "<|user|>", "<|assistant|>", "<|observation|>")
    return ByteBPETokenizer.train([SOURCE[:20_000]], 600, names)


def shown(ids, tokenizer=TOKENIZER):
    return "".join(tokenizer.token_name(token) for token in ids)


def test_suffix_stands_first_when_written_as_spm():
    assert shown(fim_ids(HOLE, FORMATS["spm"], TOKENIZER, 400)) == (
        "# shapes/__init__.py\nimport math\n<|endoftext|>"
        "<|code_suffix|>\n\nprint(area(2))\n"
        "<|code_prefix|># shapes/circle.py\ndef area(radius):\n    return <|code_middle|>"
    )


def test_prefix_stands_first_when_written_as_psm():
    assert shown(fim_ids(HOLE, FORMATS["psm"], TOKENIZER, 400)) == (
        "# shapes/__init__.py\nimport math\n<|endoftext|>"
        "<|code_prefix|># shapes/circle.py\ndef area(radius):\n    return "
        "<|code_suffix|>\n\nprint(area(2))\n<|code_middle|>"
    )


def test_prompt_is_that_of_the_guide_when_written_for_codegeex4(with_roles):
    # Put together by hand from THUDM/CodeGeeX4 guides/Infilling_guideline.md.
    assert shown(fim_ids(HOLE, FORMATS["codegeex4"], with_roles, 400), with_roles) == (
        "<|user|>\n###REFERENCE:\n###PATH:shapes/__init__.py\nimport math\n\n"
        "###PATH:shapes/circle.py\n###LANGUAGE:Python\n###MODE:BLOCK\n"
        "<|code_suffix|>\n\nprint(area(2))\n"
        "<|code_prefix|>def area(radius):\n    return <|code_middle|><|assistant|>\n"
    )


def test_slots_are_empty_when_nothing_is_known(with_roles):
    hole = Hole(prefix="x", mode=Mode.line)
    assert shown(fim_ids(hole, FORMATS["codegeex4"], with_roles, 200), with_roles) == (
        "<|user|>\n###PATH:\n###LANGUAGE:\n###MODE:LINE\n"
        "<|code_suffix|><|code_prefix|>x<|code_middle|><|assistant|>\n"
    )


def test_sentinels_in_code_stay_text_when_written():
    hole = Hole(prefix="a = '<|code_middle|>'", suffix="<|code_prefix|>", path="<|endoftext|>")
    ids = fim_ids(hole, FORMATS["spm"], TOKENIZER, 400)
    specials = [token for token in ids if token in TOKENIZER.special_ids]
    assert [TOKENIZER.token_name(token) for token in specials] == [
        "<|code_suffix|>",
        "<|code_prefix|>",
        "<|code_middle|>",
    ]


@settings(max_examples=40, deadline=None)
@given(
    cursor=st.integers(0, len(SOURCE)),
    gap=st.integers(0, 200),
    limit=st.integers(64, 700),
    num_references=st.integers(0, 3),
)
def test_prompt_fits_and_ends_at_the_cursor_when_the_file_is_long(
    cursor, gap, limit, num_references
):
    references = tuple(
        Reference(path=f"{i}.py", text=SOURCE[i * 500 : i * 500 + 400])
        for i in range(num_references)
    )
    prefix, suffix = SOURCE[:cursor], SOURCE[cursor + gap :]
    hole = Hole(prefix=prefix, suffix=suffix, references=references)
    ids = fim_ids(hole, FORMATS["spm"], TOKENIZER, limit)
    assert len(ids) <= limit
    mark = {name: ids.index(TOKENIZER.token_id(name)) for name in SENTINELS}
    before = TOKENIZER.decode(ids[mark["<|code_prefix|>"] + 1 : mark["<|code_middle|>"]])
    behind = TOKENIZER.decode(ids[mark["<|code_suffix|>"] + 1 : mark["<|code_prefix|>"]])
    assert prefix.endswith(before.replace("\ufffd", "")) and suffix.startswith(behind)
    assert before or not prefix
    assert behind or not suffix


def test_beginning_stays_when_somebody_types_at_the_end():
    """Of 400 keystrokes in a long file all but a few leave what the model has read as it is."""
    suffix, moved = SOURCE[31_000:], 0
    references = (Reference(path="other.py", text=SOURCE[:600]),)
    before: list[int] = []
    for cursor in range(30_000, 30_400):
        hole = Hole(prefix=SOURCE[:cursor], suffix=suffix, references=references)
        ids = fim_ids(hole, FORMATS["spm"], TOKENIZER, 1024)
        pairs = enumerate(zip(ids, before, strict=False))
        same = next((index for index, (a, b) in pairs if a != b), len(before))
        moved += same < len(before) - 4
        before = ids
    assert moved <= 10  # seen: 7, where the prefix is cut


def test_beginning_stays_when_an_editor_shows_the_last_lines_only():
    """As llama.vim does: with every line break the first of its lines is gone."""
    lines, moved, typed = SOURCE[:30_000].splitlines(keepends=True), 0, 40
    before: list[int] = []
    for last in range(len(lines) - typed, len(lines)):
        ids = prefix_ids("".join(lines[last - 150 : last]), TOKENIZER, 600)
        moved += ids[: len(before) // 2] != before[: len(before) // 2]
        before = ids
    assert moved <= 15  # seen: 11


def test_most_of_the_room_is_used_when_the_file_is_long():
    sizes = [len(prefix_ids(SOURCE[:end], TOKENIZER, 600)) for end in range(9000, 12000, 50)]
    assert 460 < min(sizes) and max(sizes) <= 600 and sum(sizes) / len(sizes) > 520


def test_long_lines_are_cut_between_tokens_when_they_do_not_fit():
    ids = prefix_ids("x = [" + "1, " * 5000, TOKENIZER, 50)
    assert 0 < len(ids) <= 50
    assert TOKENIZER.decode(ids).endswith("1, ")


def test_error_says_what_is_needed_when_there_is_no_room():
    with pytest.raises(ValueError, match="a prompt of 10 tokens has no room .* a context of 32"):
        fim_ids(HOLE, FORMATS["spm"], TOKENIZER, 10)


def test_error_names_the_token_when_the_tokenizer_lacks_one():
    with pytest.raises(ValueError, match="no <|user|>, which the fim format codegeex4 needs"):
        fim_ids(HOLE, FORMATS["codegeex4"], TOKENIZER, 400)


@pytest.mark.parametrize(
    ("path", "language", "line"),
    [
        ("", "python", ""),
        ("a/b.go", "", "// a/b.go\n"),
        ("a b\n.c", "", "// a b .c\n"),
        ("page.html", "html", "# page.html\n"),
    ],
)
def test_path_line_is_a_comment_when_the_language_has_them(path, language, line):
    assert path_line(path, language) == line

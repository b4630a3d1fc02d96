"""Lines that are remembered give the tokens of the whole text, as the library reads it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer

from glm_core.tokenizer import ByteBPETokenizer
from glm_core.tokenizer import known_lines as module
from glm_core.tokenizer.known_lines import KnownLines, may_cut

SOURCE = inspect.getsource(textwrap)
TOKENIZER = ByteBPETokenizer.train([SOURCE, "it's 12 o'clock\r\n\t»x\xa0\n\x1c\ny"] * 3, 700)
ALPHABET = "ab' \n\r\t\x0b\x1c\x85\xa0\u2028é1٣_'s.!()\"你🙂"


def whole(text: str) -> list[int]:
    """The ids of a text that was not cut, and not remembered."""
    bpe: HFTokenizer = TOKENIZER._bpe
    return list(bpe.encode(text, add_special_tokens=False).ids)


@given(st.text(st.sampled_from(ALPHABET), max_size=60))
def test_ids_are_those_of_the_whole_text_when_it_is_strange(text: str) -> None:
    assert TOKENIZER.encode(text) == whole(text)
    assert TOKENIZER.encode(text) == whole(text)  # from memory


def test_ids_are_those_of_the_whole_text_when_it_is_typed() -> None:
    for end in range(900, 1100):
        assert TOKENIZER.encode(SOURCE[:end]) == whole(SOURCE[:end])


def test_lines_are_read_once_and_only_so_many_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    read: list[str] = []

    def encode(text: str) -> list[int]:
        read.append(text)
        return [len(text)]

    lines = KnownLines(encode)
    assert lines.encode("ab\n  c\n\nd") == [2, 4, 3]
    assert lines.encode("ab\n  c\n\nde") == [2, 4, 4]
    assert read == ["ab", "\n  c", "\n\nd", "\n\nde"]
    lines.encode("x" * 1001)
    lines.encode("x" * 1001)
    assert len(read) == 6


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}}, True),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": True, "add_prefix_space": 1}}, False),
        ({"pre_tokenizer": {"type": "Split"}}, False),
        ({"pre_tokenizer": None}, False),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}, "normalizer": {"a": 1}},
            False,
        ),
    ],
)
def test_texts_are_cut_only_where_pieces_are_known_to_end(
    settings: Mapping[str, Any], expected: bool
) -> None:
    assert may_cut(settings) is expected

"""What the originals change in an answer, whole and streamed."""

from __future__ import annotations

import random
import re

import pytest

from glm_core.chat.postprocess import StreamedFix, fixed


def _original(text: str, punctuation: bool) -> str:
    """`process_response` of ChatGLM-6B (with punctuation) and of its successors."""
    text = text.strip().replace("[[训练时间]]", "2023年")
    if punctuation:
        for half, full in ((",", "，"), ("!", "！"), (":", "："), (";", "；"), (r"\?", "？")):
            text = re.sub(rf"([\u4e00-\u9fff]){half}", rf"\1{full}", text)
            text = re.sub(rf"{half}([\u4e00-\u9fff])", rf"{full}\1", text)
    return text


TEXTS = [
    "你好,世界!",
    "  \n 你好:a?b;好 \n ",
    "hello, world!",
    "在[[训练时间]],我知道",
    "[[训练时间",
    "[[[训练时间]]]",
    "好,,好,好,",
    ",好,",
    "a,",
    "a, 好",
    "好 ,a",
    "[[训练时间]][[训练时间]]?!",
    "",
    " \n ",
    "a  b\n\nc",
]


def _random_text(seed: int) -> str:
    pool = ["你", "鿿", "a", " ", "\n", ",", "!", ":", ";", "?", "，", "[", "[[训练时间]]", "训"]
    return "".join(random.Random(seed).choices(pool, k=14))


@pytest.mark.parametrize("punctuation", [False, True])
@pytest.mark.parametrize("text", [*TEXTS, *map(_random_text, range(60))])
def test_streamed_text_is_the_originals_however_it_is_cut(text: str, punctuation: bool) -> None:
    expected = _original(text, punctuation)
    assert fixed(text, punctuation) == expected
    chance = random.Random(text)
    for _ in range(5):
        stream, at, out = StreamedFix(punctuation), 0, ""
        while at < len(text):
            end = at + chance.randint(1, 4)
            out += stream.push(text[at:end])
            at = end
            assert expected.startswith(out)
        assert out + stream.finish() == expected


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    stream = StreamedFix(punctuation=True)
    assert [stream.push(char) for char in "a, 好?"] == ["a", "", ",", " 好", ""]
    assert stream.finish() == "？"

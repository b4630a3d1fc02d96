"""Streaming: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import random

import pytest

from glm_core.infer.stream import TextStream, find_stop, held_back
from glm_core.tokenizer import ByteBPETokenizer, IncrementalDecoder


class _Characters:
    """A decoder whose token ids are code points."""

    def push(self, token_id: int) -> str:
        return chr(token_id)


def _push(stream: TextStream, text: str) -> list[str]:
    return [stream.push(ord(character)) for character in text]


def test_stream_holds_back_what_may_become_a_stop_string() -> None:
    stream = TextStream(_Characters(), ["END"])
    assert _push(stream, "aEbENcEND") == ["a", "", "Eb", "", "", "ENc", "", "", ""]
    assert stream.stopped
    assert stream.text == "aEbENc"
    assert stream.push(ord("x")) == "" and stream.finish() == ""


def test_stream_gives_what_was_held_back_when_the_answer_ends() -> None:
    stream = TextStream(_Characters(), ["END"])
    assert "".join(_push(stream, "so EN")) == "so "
    assert stream.finish() == "EN"
    assert stream.text == "so EN"


def test_stream_never_shows_half_a_character(tokenizer: ByteBPETokenizer) -> None:
    text = "größe 你好 👋🏽 done"
    stream = TextStream(IncrementalDecoder(tokenizer))
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "�" not in "".join(pieces)
    assert "".join(pieces) == text
    assert "" in pieces  # some token ended inside a character


def test_stream_drops_a_character_that_never_became_complete(tokenizer: ByteBPETokenizer) -> None:
    stream = TextStream(IncrementalDecoder(tokenizer))
    shown = [stream.push(token) for token in tokenizer.encode("ok 👋")[:-1]]
    assert "".join(shown) + stream.finish() == "ok "


def test_stream_equals_plain_search_when_texts_are_random() -> None:
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices("ab", k=12))
        stop = ["".join(rng.choices("ab", k=rng.randint(2, 5))) for _ in range(2)]
        stream = TextStream(_Characters(), stop)
        shown = "".join(_push(stream, text)) + stream.finish()
        # The stop that is complete first wins; of two complete at once, the one that began first.
        ends = [text.find(word) + len(word) for word in stop if word in text]
        expected = text
        if ends:
            head = text[: min(ends)]
            expected = head[: min(head.find(word) for word in stop if word in head)]
        assert shown == stream.text == expected


def test_find_stop_takes_the_first() -> None:
    assert find_stop("one two", ["two", "ne"]) == 1
    assert find_stop("one", []) is None


@pytest.mark.parametrize(("text", "size"), [("", 0), ("ab", 1), ("aab", 2), ("xyz", 0)])
def test_held_back_is_the_longest_beginning_of_a_stop(text: str, size: int) -> None:
    assert held_back(text, ["bc", "abcd"] if text == "aab" else ["bc"]) == size

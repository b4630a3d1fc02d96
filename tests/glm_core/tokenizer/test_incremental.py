import pytest

from glm_core.tokenizer import ByteBPETokenizer, IncrementalDecoder


@pytest.fixture(scope="module")
def tokenizer():
    return ByteBPETokenizer.train([], 264)  # one token per byte: every character is cut


@pytest.mark.parametrize("text", ["naïve", "日本語🙂", "e\u0301", "plain"])
def test_pieces_are_complete_characters_when_bytes_arrive_one_by_one(tokenizer, text):
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert decoder.flush() == ""


def test_nothing_is_shown_when_a_character_is_half_there(tokenizer):
    decoder = IncrementalDecoder(tokenizer)
    first, *_ = tokenizer.encode("é")
    assert decoder.push(first) == ""
    assert decoder.flush() == "\ufffd"


def test_special_tokens_show_nothing_when_pushed(tokenizer):
    assert IncrementalDecoder(tokenizer).push(tokenizer.eop_id) == ""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert decoder.is_whole
    assert decoder.push(first) == ""
    assert not decoder.is_whole
    assert decoder.flush() == "\ufffd"


def test_special_tokens_show_nothing_when_pushed(tokenizer):
    assert IncrementalDecoder(tokenizer).push(tokenizer.eop_id) == ""


class SpacePieces:
    """SentencePiece as far as a decoder sees it: the library drops one space from the beginning."""

    def decode_bytes(self, ids):
        return b"".join((b" a", b" ", b"b", b"\xf0\x9f", b"\x91\x8b", b"")[token] for token in ids)

    def decode(self, ids):
        return self.decode_bytes(ids).removeprefix(b" ").decode(errors="replace")


@pytest.mark.parametrize(
    "ids", [[0, 0], [1, 0], [1, 1, 2], [5, 0], [2, 0], [3, 4, 0], [1, 3, 4], [5, 1, 5, 2]]
)
def test_first_space_is_dropped_when_the_decoder_drops_it(ids):
    decoder = IncrementalDecoder(SpacePieces())
    assert "".join(map(decoder.push, ids)) == SpacePieces().decode(ids)


def test_first_space_stays_when_the_ids_go_on_from_other_text():
    decoder = IncrementalDecoder(SpacePieces(), continues=True)
    assert "".join(map(decoder.push, [0, 0])) == " a a"


def test_whole_answer_is_not_decoded_again_when_it_is_long():
    class Counting(SpacePieces):
        longest = 0

        def decode(self, ids):
            self.longest = max(self.longest, len(ids))
            return super().decode(ids)

    tokenizer = Counting()
    decoder = IncrementalDecoder(tokenizer)
    assert "".join(map(decoder.push, [5, 1, *[2] * 50])) == "b" * 50
    assert tokenizer.longest == 3


class Pieces:
    """A tokenizer whose tokens are these bytes."""

    def __init__(self, pieces):
        self.pieces = pieces

    def decode_bytes(self, ids):
        return b"".join(self.pieces[token] for token in ids)

    def decode(self, ids):
        return self.decode_bytes(ids).decode(errors="replace")


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)),
    st.lists(st.integers(0, 40), max_size=12),
    st.booleans(),
)
def test_any_cut_of_any_bytes_gives_the_text_of_the_whole(whole, cuts, continues):
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]
    decoder = IncrementalDecoder(Pieces(pieces), continues)
    shown = [decoder.push(token) for token in range(len(pieces))]
    expected = whole.decode(errors="replace")
    assert "".join(shown) + decoder.flush() == expected
    assert "".join(shown).count("\ufffd") <= expected.count("\ufffd")

import numpy as np
import pytest

from glm_core.data.sentences import SentenceEnds
from glm_core.tokenizer import ByteBPETokenizer


@pytest.fixture(scope="module")
def bytes_tokenizer():
    return ByteBPETokenizer.train([], 264)


@pytest.fixture(scope="module")
def merged_tokenizer():
    texts = ['Foo (bar).\n\n\nOk.\n\n    Indented: yes! "Quoted." os.path is 1.5, no?\n' * 30]
    return ByteBPETokenizer.train(texts, 420)


def split(tokenizer, text):
    ids = np.array(tokenizer.encode(text))
    ends = np.flatnonzero(SentenceEnds(tokenizer).after(ids)) + 1
    parts = np.split(ids, ends)
    return [tokenizer.decode(part) for part in parts if len(part)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two? Three!", ["One.", " Two?", " Three!"]),
        ("See os.path or 1.5 here.", ["See os.path or 1.5 here."]),
        ("It says (so). Then", ["It says (so).", " Then"]),
        ("wrapped\nline. Next", ["wrapped\nline.", " Next"]),
        ("Title\n\nBody. More\n\n\nEnd", ["Title\n\n", "Body.", " More\n\n\n", "End"]),
        ("Done.\n\nArgs:\n    x", ["Done.\n\n", "Args:", "\n    x"]),
        ("no end", ["no end"]),
    ],
)
def test_sentences_are_those_of_a_reader_when_pieces_are_merged(merged_tokenizer, text, sentences):
    assert split(merged_tokenizer, text) == sentences


def test_full_width_punctuation_ends_a_sentence_when_it_is_one_piece():
    tokenizer = ByteBPETokenizer.train(["好。吗？好；" * 40], 300)
    assert split(tokenizer, "好。吗？好") == ["好。", "吗？", "好"]


def test_document_end_is_an_end_when_there_is_no_punctuation(bytes_tokenizer):
    tokenizer = bytes_tokenizer
    ids = np.array([*tokenizer.encode("ab."), tokenizer.eos_id, *tokenizer.encode("cd")])
    ends = SentenceEnds(tokenizer).after(ids)
    assert np.flatnonzero(ends).tolist() == [3]


def test_paragraph_ends_are_blank_lines_when_asked(bytes_tokenizer):
    ids = np.array(bytes_tokenizer.encode("a. b\nc\n\nd\n\n\ne"))
    ends = SentenceEnds(bytes_tokenizer).paragraphs_after(ids)
    assert np.flatnonzero(ends).tolist() == [7, 11]


def test_nothing_breaks_when_the_row_is_empty_or_single(bytes_tokenizer):
    ends = SentenceEnds(bytes_tokenizer)
    assert ends.after(np.array([], dtype=np.int64)).tolist() == []
    assert ends.after(np.array(bytes_tokenizer.encode("."))).tolist() == [True]

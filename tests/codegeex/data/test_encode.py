import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.data.encode import PieceEncoder
from codegeex.fim import SENTINELS
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer

TEXT = "def f(x):\n    return x + 10  # it's\n\n\nclass A:\n\tdef b(self):\n\t\tself.c_d = [1, 2]\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = ByteBPETokenizer.train([TEXT * 3], 330, SENTINELS)
    tokenizer.save(folder)
    return tokenizer, PieceEncoder(tokenizer, folder)


texts = st.one_of(
    st.text(alphabet=string.printable + "\x00\x1c\x1d\x1f\x7f", max_size=60),
    st.text(alphabet=" \t\n\r'ab_1stvelmd.(", max_size=40),
    st.text(max_size=20),
)


@given(st.lists(texts, max_size=4))
@settings(max_examples=400, deadline=None)
def test_ids_are_those_of_the_tokenizer_when_text_is_anything(pair, batch):
    tokenizer, encoder = pair
    expected = tokenizer.encode_batch(batch)
    assert [ids.tolist() for ids in encoder.encode_batch(batch)] == expected


def test_sentinels_in_text_are_text_when_encoded(pair):
    tokenizer, encoder = pair
    (ids,) = encoder.encode_batch(["".join(SENTINELS)])
    assert tokenizer.special_ids.isdisjoint(ids.tolist())


def test_other_tokenizers_are_asked_when_they_cut_otherwise(tmp_path):
    class Other:
        def encode_batch(self, texts):
            return [[len(text)] for text in texts]

    encoder = PieceEncoder(Other(), tmp_path)
    assert [ids.tolist() for ids in encoder.encode_batch(["abc", ""])] == [[3], [0]]


def test_ids_stay_the_same_when_the_memory_is_emptied(pair, monkeypatch):
    tokenizer, encoder = pair
    monkeypatch.setattr("codegeex.data.encode._REMEMBERED", 2)
    for _ in range(3):
        assert encoder.encode_batch([TEXT])[0].tolist() == tokenizer.encode(TEXT)

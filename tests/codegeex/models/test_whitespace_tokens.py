"""CodeGeeX-13B's tokens for runs of spaces, whatever the text: properties, and the exact ids."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_core.tokenizer import IncrementalDecoder, load_tokenizer

from .released_folders import EXTRA, PIECES, write_codegeex_13b

EOS = PIECES - 1  # 50256 in the released vocabulary
FIRST, LAST = EOS + 10, EOS + 18  # 50266 and 50274 there: two spaces, and ten

pieces = st.sampled_from(
    [" ", "  ", "   ", " " * 10, " " * 11, "\t", "\n", "\r\n", "x", "def", "+", "é", "你", "🙂"]
    + ["<|extratoken_12|>", "<|endoftext|>", "\u00a0", "\u3000", "<|", "_12|>"]
)
texts = st.one_of(st.lists(pieces, max_size=30).map("".join), st.text(max_size=40))
fast = settings(max_examples=80, deadline=None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whitespace")
    write_codegeex_13b(folder)
    loaded = load_tokenizer(folder)
    assert loaded.kind == "codegeex"
    return loaded


@pytest.fixture(scope="module")
def plain(tokenizer, tmp_path_factory):
    """GPT-2's encoder over the same files, without any added token."""
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("plain")
    tokenizer.save(folder)
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return lambda text: ByteLevelBPETokenizer(*files).encode(text).ids


def replaced(text, plain):
    """As the original does it: runs written as names, the longest first, then cut out.

    The names are written with characters that no text here has.
    """
    for length in range(10, 1, -1):
        text = text.replace(" " * length, f"\ue000{chr(0xE010 + length)}\ue001")
    ids = []
    for part in text.split("\ue000"):
        run, mark, rest = part.rpartition("\ue001")
        ids += [EOS + 8 + ord(run) - 0xE010] if mark else []
        ids += plain(rest) if rest else []
    return ids


@fast
@given(texts)
@example(" " * 11 + "x")
@example("a<|extratoken_12|>  <|extratoken_12|>b")
def test_text_comes_back_as_it_was(tokenizer, text):
    text = text.encode("utf-8", "replace").decode()  # lone surrogates are no text
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.special_ids.isdisjoint(ids)
    assert max(ids, default=0) < tokenizer.vocab_size


@fast
@given(texts.filter(lambda text: not set(text) & set("\ue000\ue001")))
def test_ids_are_those_of_replacing_the_longest_runs_first(tokenizer, plain, text):
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.encode(text) == replaced(text, plain)


@fast
@given(
    st.integers(0, 60), st.sampled_from(["", "x", "\n", "\tx", "你"]), st.sampled_from(["", "y"])
)
def test_spaces_are_as_few_tokens_as_there_can_be(tokenizer, plain, count, behind, before):
    """Tens first; of what is left two to nine are one token, and one is a plain space."""
    ids = tokenizer.encode(before + " " * count + behind)
    tens, rest = divmod(count, 10)
    runs = [LAST] * tens + ([EOS + 8 + rest] if rest > 1 else [])
    tail = (" " if rest == 1 else "") + behind
    if runs:
        assert ids == plain(before) + runs + (plain(tail) if tail else [])
    else:
        assert ids == plain(before + tail)


@fast
@given(st.text(alphabet="\t\n\r\x0b\x0c\u00a0\u2003\u3000", max_size=30))
def test_other_white_space_is_as_gpt2_has_it(tokenizer, plain, text):
    ids = tokenizer.encode(text)
    assert ids == (plain(text) if text else [])
    assert not any(FIRST <= token <= LAST for token in ids)


@fast
@given(st.integers(1, EXTRA), st.sampled_from(["", " ", "  ", "\n", "x"]))
def test_typed_name_of_an_extra_token_stays_text(tokenizer, number, around):
    """The original reads it as spaces; a person who types it means its characters."""
    text = f"{around}<|extratoken_{number}|>{around}"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert EOS + number not in ids or (around == "  " and EOS + number == FIRST)


@fast
@given(st.lists(st.sampled_from(range(FIRST, LAST + 1)), min_size=1, max_size=8), texts)
def test_runs_strip_nothing_from_their_neighbours(tokenizer, runs, text):
    """Added tokens of a slow tokenizer would take the spaces and line ends beside them."""
    text = text.encode("utf-8", "replace").decode()
    ids = [*tokenizer.encode(text), *runs, *tokenizer.encode(text)]
    spaces = " " * sum(token - EOS - 8 for token in runs)
    assert tokenizer.decode_bytes(ids) == (text + spaces + text).encode()
    decoder = IncrementalDecoder(tokenizer)
    shown = "".join(map(decoder.push, ids)) + decoder.flush()
    assert shown == text + spaces + text

import re

import numpy as np
import pytest

from codegeex.data.minhash import shingles, signature, similarity


def grams(text):
    words = re.findall(r"\w+", text)
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def mixed(rng, share, words=2_000):
    """Two texts, the second with a share of the first's words replaced."""
    first = [f"w{n}" for n in rng.integers(0, 400, words)]
    second = [f"x{i}" if rng.random() < share else word for i, word in enumerate(first)]
    return " ".join(first), " ".join(second)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.3, 1.0])
def test_similarity_is_near_the_exact_one_when_texts_overlap(share):
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(10):
        first, second = mixed(rng, share)
        a, b = grams(first), grams(second)
        errors.append(similarity(signature(first), signature(second)) - len(a & b) / len(a | b))
    # one estimate has a standard deviation of at most 0.044; the mean of ten was off by up to 0.014
    assert abs(np.mean(errors)) < 0.045
    assert max(map(abs, errors)) < 0.15


def test_signature_depends_on_words_only_when_spaces_differ():
    assert (signature("a b  c\nd e f") == signature("a, b; c + d(e) f")).all()


def test_grams_are_one_per_place_when_text_is_long():
    text = "a b c d e f a b c d e"
    hashes = shingles(text)
    assert len(hashes) == 7
    assert hashes[0] == hashes[6]
    assert len(set(hashes.tolist())) == 6


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a", 1), ("a b c d", 1), ("a b c d e f", 2)])
def test_grams_exist_when_text_is_short(text, count):
    assert len(shingles(text)) == count


def test_signature_is_the_same_when_computed_in_blocks(monkeypatch):
    text = " ".join(f"word{i * i % 1009}" for i in range(9_000))
    whole = signature(text)
    monkeypatch.setattr("codegeex.data.minhash._BLOCK", 7)
    assert (signature(text) == whole).all()

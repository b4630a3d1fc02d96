import random

import numpy as np
import pytest

from codegeex.data.duplicates import Candidate, bands, without_duplicates
from codegeex.data.minhash import signature
from codegeex.data.read import Found
from codegeex.data.reasons import Tally

RNG = random.Random(7)
TEXT = " ".join(RNG.choice(["alpha", "beta", "gamma", "delta"]) + str(i % 97) for i in range(1_500))
OTHER = " ".join(RNG.choice(["one", "two", "three"]) + str(i % 89) for i in range(1_500))


def candidate(text, split="train", sha=None, prompt_size=0):
    found = Found(
        repository="r",
        path="p",
        language="",
        licence="",
        sha=sha or str(hash(text)),
        start=0,
        size=len(text),
        prompt_size=prompt_size,
        imports=[],
    )
    return Candidate(found, split, signature(text))


def near(text, changes):
    words = text.split()
    for place in range(0, len(words), max(len(words) // changes, 1)):
        words[place] = "changed"
    return " ".join(words)


def chosen(candidates, threshold=0.8):
    tally = Tally()
    kept = without_duplicates(candidates, threshold, tally)
    return kept, {name: files for name, (files, _) in tally.as_dict().items()}


def test_first_stays_when_texts_are_the_same_or_nearly():
    texts = [TEXT, OTHER, TEXT, near(TEXT, 10), near(OTHER, 500)]
    kept, dropped = chosen([candidate(text) for text in texts])
    assert kept == {"train": [0, 1, 4], "heldout": []}
    assert dropped == {"exact_duplicate": 1, "near_duplicate": 1}


def test_heldout_stays_when_training_text_is_nearly_the_same():
    texts = [candidate(TEXT), candidate(OTHER), candidate(near(TEXT, 10), "heldout")]
    kept, dropped = chosen(texts)
    assert kept == {"train": [1], "heldout": [2]}
    assert dropped == {"near_heldout": 1}


def test_heldout_stays_when_training_text_is_the_same():
    kept, dropped = chosen([candidate(TEXT), candidate(TEXT, "heldout")])
    assert kept == {"train": [], "heldout": [1]}
    assert dropped == {"exact_duplicate": 1}


def test_only_equal_texts_go_when_near_ones_are_not_compared():
    kept, dropped = chosen([candidate(t) for t in (TEXT, TEXT, near(TEXT, 3))], threshold=0)
    assert kept["train"] == [0, 2]
    assert dropped == {"exact_duplicate": 1}


@pytest.mark.parametrize(("threshold", "kept"), [(0.6, [0]), (0.8, [0]), (0.97, [0, 1])])
def test_threshold_decides_when_texts_are_alike(threshold, kept):
    # 15 words of 1,500 changed: similarity about (1 - 0.05) / (1 + 0.05) = 0.905
    assert chosen([candidate(TEXT), candidate(near(TEXT, 15))], threshold)[0]["train"] == kept


def test_texts_without_words_are_no_near_duplicates_when_compared():
    kept, _ = chosen([candidate("()", sha="a"), candidate("[]", sha="b")])
    assert kept["train"] == [0, 1]


def test_prompts_are_compared_exactly_when_there_are_some():
    pairs = [candidate(TEXT, prompt_size=5), candidate(near(TEXT, 3), prompt_size=5)]
    assert chosen(pairs)[0]["train"] == [0, 1]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.85, 0.95])
def test_index_finds_pairs_when_they_are_at_the_threshold(threshold):
    number, rows = bands(threshold)
    assert number * rows <= 128
    rng = np.random.default_rng(3)
    same = rng.random((4_000, number, rows)) < threshold  # rows where the two minima agree
    assert same.all(axis=2).any(axis=1).mean() > 0.94

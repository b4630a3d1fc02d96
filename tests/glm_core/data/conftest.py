"""A small English corpus and a tokenizer trained on it."""

from __future__ import annotations

import random

import pytest

from glm_core.data.config import DataConfig
from glm_core.data.prepare import prepare_data
from glm_core.tokenizer import ByteBPETokenizer

NOUNS = "block file object list value name module class method loop index string".split()
VERBS = "wraps opens returns closes reads holds changes removes sorts prints".split()


def write_document(rng, sentences):
    lines = [
        f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(NOUNS)} of {rng.choice(NOUNS)}."
        for _ in range(sentences)
    ]
    return " ".join(lines)


@pytest.fixture(scope="session")
def texts():
    rng = random.Random(7)
    return [write_document(rng, rng.randint(3, 40)) for _ in range(120)]


@pytest.fixture(scope="session")
def tokenizer(texts):
    return ByteBPETokenizer.train(texts, 400)


@pytest.fixture(scope="session")
def corpus_folder(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for index, text in enumerate(texts):
        (folder / f"{index:03}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def make_config(corpus_folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(**changes):
        settings = {
            "source": str(corpus_folder),
            "vocab_size": 400,
            "seq_length": 64,
            "heldout_fraction": 0.1,
            "cache_dir": str(cache),
            "seed": 5,
        }
        return DataConfig(**{**settings, **changes})

    return make


@pytest.fixture(scope="session")
def prepared(make_config):
    return prepare_data(make_config())

"""A tiny corpus, tokenizer and model for the evaluation tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glm_core.data.config import DataConfig
from glm_core.data.prepare import PreparedData, prepare_data
from glm_core.model import Transformer, TransformerConfig
from glm_core.tokenizer import ByteBPETokenizer

NOUNS = "block function value list file module class object string number".split()
VERBS = "wraps returns closes opens reads writes raises holds".split()


def make_text(seed: int, sentences: int) -> str:
    """Sentences of a little grammar, in paragraphs."""
    rng = np.random.default_rng(seed)
    parts = []
    for index in range(sentences):
        words = ["The", rng.choice(NOUNS), rng.choice(VERBS), "the", rng.choice(NOUNS)]
        words += ["and", "then", "it", rng.choice(VERBS), "a", rng.choice(NOUNS)]
        end = ".\n\n" if index % 3 == 2 else ". "
        parts.append(" ".join(words) + end)
    return "".join(parts).strip()


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("corpus")
    for index in range(40):
        (folder / f"{index:02}.txt").write_text(make_text(index, 24), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> ByteBPETokenizer:
    return ByteBPETokenizer.train([make_text(seed, 24) for seed in range(40)], vocab_size=380)


@pytest.fixture(scope="session")
def data(
    corpus_folder: Path, tokenizer: ByteBPETokenizer, tmp_path_factory: pytest.TempPathFactory
) -> PreparedData:
    saved = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(saved)
    return prepare_data(
        DataConfig(
            source=str(corpus_folder),
            tokenizer=str(saved),
            heldout_fraction=0.2,
            cache_dir=str(tmp_path_factory.mktemp("cache")),
        )
    )


@pytest.fixture(scope="session")
def build_model(tokenizer: ByteBPETokenizer) -> Callable[..., Transformer]:
    def build(**fields: Any) -> Transformer:
        values: dict[str, Any] = {
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "max_position_embeddings": 64,
            "init_std": 0.1,
        }
        model = Transformer(TransformerConfig(**(values | fields)))
        model.init_weights(0)
        return model.eval()

    return build


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)

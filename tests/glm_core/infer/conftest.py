"""Tiny models and a tiny tokenizer for the inference tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from glm_core.model import Position, RopeLayout, Transformer, TransformerConfig
from glm_core.tokenizer import ByteBPETokenizer

TEXT = (
    "The with statement wraps a block of code. A context manager enters and leaves it. "
    "The return statement ends a function; the value goes to the caller. Números, größe, 你好."
)

POSITION_KINDS: dict[str, dict[str, Any]] = {
    "learned_2d": {"position": Position.learned_2d},
    "rope_halves": {"position": Position.rope},
    "rope_interleaved_partial": {
        "position": Position.rope,
        "rope_layout": RopeLayout.interleaved,
        "rotary_dim": 8,
        "num_kv_heads": 2,
    },
    "rope_2d": {"position": Position.rope_2d},
}


@pytest.fixture(scope="session")
def tokenizer() -> ByteBPETokenizer:
    return ByteBPETokenizer.train([TEXT] * 4, vocab_size=320)


@pytest.fixture(scope="session")
def build_model(tokenizer: ByteBPETokenizer) -> Callable[..., Transformer]:
    """Returns a function that builds a small random model; weights large enough to matter."""

    def build(seed: int = 0, **fields: Any) -> Transformer:
        values: dict[str, Any] = {
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 96,
            "init_std": 0.2,
        }
        model = Transformer(TransformerConfig(**(values | fields)))
        model.init_weights(seed)
        return model.eval()

    return build


@pytest.fixture(scope="session", params=POSITION_KINDS)
def model_of_each_position(
    request: pytest.FixtureRequest, build_model: Callable[..., Transformer]
) -> Transformer:
    return build_model(seed=3, **POSITION_KINDS[request.param])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)

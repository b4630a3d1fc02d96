"""Small folders to quantize."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.model import Transformer
from glm_core.testing import tiny_model
from glm_core.tokenizer import ByteBPETokenizer

TEXT = """The with statement wraps the execution of a block with methods defined by a manager.
A context manager enters and leaves; the value it returns is bound to the target of the statement.
Functions return values, and values have types; a type names the operations that its values have.
"""
SIZES = {"vocab_size": 300, "ffn_hidden_size": 64, "init_std": 0.3}


@pytest.fixture(scope="session")
def tokenizer() -> ByteBPETokenizer:
    return ByteBPETokenizer.train([TEXT] * 4, vocab_size=300)


@pytest.fixture
def save(tokenizer: ByteBPETokenizer, tmp_path: Path) -> Callable[..., tuple[Transformer, Path]]:
    """Returns a function that saves a random model: the model and its folder."""

    def build(family: str = "glm-4-9b", **changes: Any) -> tuple[Transformer, Path]:
        model = tiny_model(family, **{**SIZES, **changes})
        save_pretrained(model, tokenizer, tmp_path / "source")
        return model, tmp_path / "source"

    return build

"""The texts that quantization is calibrated on and measured with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glm_core.checkpoint.hub import resolve_model

if TYPE_CHECKING:
    from glm_core.data.batch import Ints
    from glm_core.tokenizer.protocol import Tokenizer

WINDOW = 512
"""Tokens that a model is given at a time."""


def documents_of(
    text: str, model: str, tokenizer: Tokenizer, heldout: bool, max_tokens: int = 0, seed: int = 0
) -> list[Ints]:
    """Documents as token ids, without specials.

    Args:
        text: a text file, all of which is one document; or a corpus as `data.source` of glm train
            names it.
        model: name or folder of the model whose tokenizer it is.
        heldout: of a corpus, whether its held-out or its training split.
        max_tokens: documents of a corpus are drawn by the seed until they have so many; 0 for all.

    Raises:
        ValueError: there is no such text, it is empty, or not UTF-8.
    """
    path = Path(text)
    if path.is_file() and path.suffix not in (".jsonl", ".parquet"):
        return [_one_document(path, tokenizer)]
    if path.suffix in (".txt", ".md"):
        raise ValueError(f"{text} does not exist: give a text file, or a corpus")
    return _corpus(text, model, heldout, max_tokens, seed)


def _one_document(path: Path, tokenizer: Tokenizer) -> Ints:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: convert it, for example with iconv") from error
    if not content.strip():
        raise ValueError(f"{path} is empty: give a text of some thousand words")
    return np.array(tokenizer.encode(content), dtype=np.int64)


def _corpus(source: str, model: str, heldout: bool, max_tokens: int, seed: int) -> list[Ints]:
    from glm_core.data.config import DataConfig
    from glm_core.data.prepare import prepare_data
    from glm_core.evaluate.report import heldout_documents

    folder = str(resolve_model(model, weights=False))
    data = prepare_data(DataConfig(source=source, tokenizer=folder))
    if heldout:
        return heldout_documents(data, 0, seed)
    found: list[Ints] = []
    for index in np.random.default_rng(seed).permutation(len(data.train)):
        if max_tokens and sum(map(len, found)) >= max_tokens:
            break
        found.append(data.train.document(int(index))[:-1])
    return found

"""Reads a tokenizer folder, whatever kind is in it."""

from __future__ import annotations

import json
from pathlib import Path

from glm_core.tokenizer.byte_bpe import KIND, ByteBPETokenizer
from glm_core.tokenizer.protocol import Tokenizer


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Loads the tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        ValueError: if the folder has no tokenizer, or one of an unknown kind.
    """
    path = Path(folder) / "tokenizer_config.json"
    if not path.is_file():
        raise ValueError(
            f"no tokenizer in {Path(folder)}: {path.name} is missing; give a folder that holds "
            "tokenizer.json and tokenizer_config.json, or train one with tokenizer=train"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); copy it again") from error
    kind = config.get("kind") if isinstance(config, dict) else None
    if kind != KIND:
        raise ValueError(f"{path} names tokenizer kind {kind!r}: known kinds are {KIND}")
    tokenizer = ByteBPETokenizer.load(folder)
    if config.get("vocab_size", tokenizer.vocab_size) != tokenizer.vocab_size:
        raise ValueError(
            f"{path} promises {config['vocab_size']} ids but tokenizer.json has "
            f"{tokenizer.vocab_size}: the two files are from different tokenizers"
        )
    return tokenizer

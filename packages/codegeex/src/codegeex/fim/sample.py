"""A hole with its answer, as a row of tokens to train on."""

from __future__ import annotations

from codegeex.fim.format import SENTINELS, FimFormat, Mark, Slot
from codegeex.fim.split import Cut
from glm_core.tokenizer.protocol import Tokenizer


def sample_ids(parts: Cut, format: FimFormat, tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens of a hole and, behind it, of its answer with its end.

    Only the marks and the three texts are written: path, language and other files are part of the
    document where they are known.
    """
    texts = {Slot.prefix: parts.prefix, Slot.suffix: parts.suffix}
    ids: list[int] = []
    for part in format.parts:
        if isinstance(part, Mark):
            ids.append(tokenizer.token_id(part.name))
        elif isinstance(part, Slot):
            ids.extend(_encode(texts.get(part, ""), tokenizer))
        else:
            ids.extend(_encode(part, tokenizer))
    return [*ids, *_encode(parts.middle, tokenizer), tokenizer.eos_id]


def unlearnt_ids(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that are never predicted: code, and no model, puts them into a text."""
    return [tokenizer.token_id(name) for name in SENTINELS if tokenizer.has(name)]


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text) if text else []

"""Prompts with blanks: the one place where text may name special tokens."""

from __future__ import annotations

import re

from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import BLANK_TOKENS

_MARKER = re.compile("(" + "|".join(re.escape(name) for name in BLANK_TOKENS) + ")")


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a prompt whose literal [MASK], [sMASK] and [gMASK] are blanks.

    The pieces between the markers are encoded one by one, each as the tokenizer wants a text
    before a blank.
    """
    ids: list[int] = []
    pieces = _MARKER.split(text)
    for index, piece in enumerate(pieces):
        if piece in BLANK_TOKENS:
            ids.append(tokenizer.token_id(piece))
            continue
        before_marker = index + 1 < len(pieces)
        kept = tokenizer.before_blank(piece) if before_marker else piece
        ids.extend(tokenizer.encode(kept) if kept else [])
    return ids
